"""A workload: configs/workloads/<name>.yaml plus potstill/workloads/<name>.py, found by its file name.

The module defines
    SCHEMAS: dict[str, type[pydantic.BaseModel]]      the answer of each task
    convert(samples: Path) -> Iterator[Exemplar]      the workload's own raw material, as exemplars
and may define
    make_samples(out: Path, seed: int) -> list[Path]  writes the committed samples
"""

import functools
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from potstill import config
from potstill.config import Config
from potstill.files import canonical_json
from potstill.project import CONFIGS, SAMPLES
from potstill.records import SlotSpec, explain
from potstill.stop import USAGE, Stop


class Task(Config):
    """One prompt kind. `slots` maps a dotted path in the answer to how it is scored."""

    max_new_tokens: Annotated[int, Field(gt=0)]
    calls_per_day: Annotated[int, Field(ge=0)]
    slots: dict[str, SlotSpec]


class Split(Config):
    """How dataset.split divides clean rows. `group` and `stratify` are metadata keys, or `task`."""

    group: str
    stratify: list[str]
    val: Annotated[float, Field(gt=0, lt=0.5)]
    test: Annotated[float, Field(gt=0, lt=0.5)]
    seed: int


class WorkloadConfig(Config):
    schema_version: str
    # a file under data/samples/<name>/
    system_prompt: str
    # what ./fab demo asks the packaged model
    demo_message: str
    tasks: Annotated[dict[str, Task], Field(min_length=1)]
    split: Split


class Workload:
    def __init__(self, name: str, settings: WorkloadConfig, module: ModuleType):
        self.name = name
        self.settings = settings
        self.module = module
        self.schemas: dict[str, type[BaseModel]] = module.SCHEMAS
        if set(self.schemas) != set(settings.tasks):
            raise Stop(
                f"configs/workloads/{name}.yaml has the tasks {sorted(settings.tasks)}, "
                f"potstill/workloads/{name}.py has schemas for {sorted(self.schemas)}: want the same"
            )

    @property
    def samples(self) -> Path:
        return SAMPLES / self.name

    @functools.cached_property
    def system_prompt(self) -> str:
        """The system text of rows that bring none of their own."""
        path = self.samples / self.settings.system_prompt
        if not path.is_file():
            raise Stop(f"{path} is not there; configs/workloads/{self.name}.yaml names it as system_prompt.")
        return path.read_text(encoding="utf-8").strip()

    def check(self, task: str, answer: Any) -> tuple[Any, str]:
        """Validates a parsed answer: (the object with every key in schema order, "") or (None, why not)."""
        try:
            # JSON mode: an int is a float, a string is no enum member by accident
            model = self.schemas[task].model_validate_json(canonical_json(answer))
        except ValidationError as error:
            return None, explain(error)
        except ValueError as error:  # NaN and infinities are no JSON
            return None, str(error)
        return json.loads(model.model_dump_json()), ""


@functools.cache
def load(name: str) -> Workload:
    """Raises Stop 2, naming the nearest workload, when there is no such file."""
    path = CONFIGS / "workloads" / f"{name}.yaml"
    if not name.isidentifier() or not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise Stop(
            f"no workload {name!r}: {path} is not there.{config.nearest(name, known)} "
            f"Known: {', '.join(known) or 'none'}.",
            USAGE,
        )
    settings = config.load(path, WorkloadConfig)
    return Workload(name, settings, importlib.import_module(f"potstill.workloads.{name}"))
