"""A workload: configs/workloads/<name>.yaml plus potstill/workloads/<name>.py, found by its file name.

The module defines
    SCHEMAS: dict[str, type[pydantic.BaseModel]]      the answer of each task
    convert(samples: Path) -> Iterator[Exemplar]      the workload's own raw material, as exemplars
and may define
    make_samples(out: Path, seed: int) -> list[Path]  writes the committed samples
    generate(count: int, seed: int) -> Iterator[Exemplar]  exemplars from a seed, for dataset.generate
    LEVELS: dict[str, Callable]                       slot levels of its own: level(reference, candidate, *, prompt)
                                                      -> potstill.slots.Score, pure; a slot names them like the others
    CONVERT_OPTIONS: dict[str, tuple[type, str]]      options of dataset.convert of its own, each with a type (bool: a
                                                      flag) and a help text; convert(samples, **options) gets them all
    REPAIR_TASK, REPAIR_PREFIX: str                   the task whose prompts are broken answers, and what stands before
                                                      each: dataset.augment then makes broken_json variants
Two environment variables hold for every workload: <NAME>_SYSTEM_PROMPT, a file whose text takes the place of the
workload's own (`Workload.system_prompt`), and <NAME>_BASE_MODEL, the base that train.prepare takes.
"""

import functools
import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from potstill import config, slots, workloads
from potstill.config import Config
from potstill.files import canonical_json
from potstill.project import CONFIGS, SAMPLES
from potstill.records import SlotSpec, explain
from potstill.slots import OwnLevels
from potstill.stop import DATA, USAGE, Stop


class Task(Config):
    """One prompt kind. `slots` maps a dotted path in the answer to how it is scored."""

    max_new_tokens: Annotated[int, Field(gt=0)]
    calls_per_day: Annotated[int, Field(ge=0)]
    slots: dict[str, SlotSpec]


class Html(Config):
    """How dataset.clean reduces prompts that are web pages (potstill/html.py)."""

    budget_tokens: Annotated[int, Field(gt=0)] = 1200
    # attributes kept beside the text, such as href, src, alt; class names carry no answer
    keep_attributes: Annotated[list[str], Field(default_factory=lambda: ["href", "src", "alt", "content"])]
    # the page's own machine-readable product data; off, because many pages have none
    keep_jsonld: bool = False


class Pii(Config):
    """Which personal data dataset.clean replaces by pseudonyms (potstill/pii.py)."""

    # texts that stay as they are, such as a shop's public phone number
    allow: Annotated[list[str], Field(default_factory=list)]
    # an installed spaCy model, or its folder, for names of people and places; see docs/dataset.md
    recogniser: str | None = None


class Grounding(Config):
    """Whether every value of an answer can be found in its prompt (potstill/grounding.py)."""

    # what happens to a row with a value that its raw prompt never had
    unfounded: Literal["flag", "reject"] = "flag"
    # slots whose values are said in other words than the prompt's, so that they cannot be looked up
    skip: Annotated[list[str], Field(default_factory=list)]


class NearDuplicates(Config):
    """When two prompts count as one (potstill/near.py). `threshold` is a Jaccard similarity of shingles."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.85


class Augment(Config):
    """Variants that dataset.augment makes of train rows (potstill/augment.py)."""

    # variants of a row; 0 makes none
    per_row: Annotated[int, Field(ge=0)] = 1
    kinds: list[str]
    seed: int = 17


class Split(Config):
    """How dataset.split divides clean rows. `group` and `stratify` are metadata keys, or `task`."""

    group: str
    stratify: list[str]
    val: Annotated[float, Field(gt=0, lt=0.5)]
    test: Annotated[float, Field(gt=0, lt=0.5)]
    seed: int
    # the largest difference between a stratum's share of a split and its share of all free rows
    max_drift: Annotated[float, Field(gt=0, le=1)] = 0.2


class WorkloadConfig(Config):
    schema_version: str
    # a file under data/samples/<name>/
    system_prompt: str
    # what ./fab demo asks the packaged model
    demo_message: str
    # the task of that message; the first one when it is not named
    demo_task: str | None = None
    # what train.prepare takes without -c, as ./fab demo does: a file under configs/train/
    train_config: str = "nano"
    # the same of package.export and package.parity: a file under configs/package/
    package_config: str = "default"
    tasks: Annotated[dict[str, Task], Field(min_length=1)]
    split: Split
    # each absent block leaves its step of dataset.clean or dataset.augment out
    html: Html | None = None
    pii: Pii | None = None
    grounding: Grounding | None = None
    near_duplicates: NearDuplicates | None = None
    augment: Augment | None = None


class Workload:
    def __init__(self, name: str, settings: WorkloadConfig, module: ModuleType):
        self.name = name
        self.settings = settings
        self.module = module
        self.schemas: dict[str, type[BaseModel]] = module.SCHEMAS
        self.levels: OwnLevels = getattr(module, "LEVELS", {})
        if set(self.schemas) != set(settings.tasks):
            raise Stop(
                f"configs/workloads/{name}.yaml has the tasks {sorted(settings.tasks)}, "
                f"potstill/workloads/{name}.py has schemas for {sorted(self.schemas)}: want the same"
            )
        if settings.demo_task not in (None, *settings.tasks):
            raise Stop(f"configs/workloads/{name}.yaml: demo_task {settings.demo_task!r} is none of its tasks")
        known = [*slots.LEVELS, *self.levels]
        for task, path, level in ((t, p, s.level) for t, own in settings.tasks.items() for p, s in own.slots.items()):
            if level not in known:
                raise Stop(
                    f"configs/workloads/{name}.yaml: tasks.{task}.slots.{path}: no level {level!r}."
                    f"{config.nearest(level, known)} Known: {', '.join(known)}."
                )

    @property
    def samples(self) -> Path:
        return SAMPLES / self.name

    @functools.cached_property
    def system_prompt(self) -> str:
        """The system text of rows that bring none of their own: <NAME>_SYSTEM_PROMPT's, or the configured file's."""
        path = override(self.name, "system_prompt") or self.samples / self.settings.system_prompt
        if not path.is_file():
            raise Stop(f"{path} is not there; configs/workloads/{self.name}.yaml names it as system_prompt.")
        try:
            return path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise Stop(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.", DATA) from None

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


def variable(name: str, setting: str) -> tuple[str, str | None]:
    """The environment variable of a workload's setting, BATFIT_DATA_DIR for data_dir, and its value unless empty."""
    key = f"{name}_{setting}".upper()
    return key, os.environ.get(key) or None


def override(name: str, setting: str, given: Path | None = None, *, folder: bool = False) -> Path | None:
    """The file, or folder, that an option gives, or else the setting's variable; None when neither does.

    Raises Stop 2, naming which of the two, when it is not there.
    """
    key, value = variable(name, setting)
    path = given or (Path(value) if value else None)
    if path is None:
        return None
    path = path.expanduser()
    if path.is_dir() if folder else path.is_file():
        return path
    kind, source = "folder" if folder else "file", f"--{setting.replace('_', '-')}" if given else key
    raise Stop(f"{source} names {path}, where no {kind} is. Correct it or leave it out.", USAGE)


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
    # a project of one's own, beside an installed potstill, keeps its workloads at the same place
    here = str(Path("potstill/workloads").resolve())
    if here not in workloads.__path__:
        workloads.__path__.append(here)
    try:
        module = importlib.import_module(f"potstill.workloads.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"potstill.workloads.{name}":
            raise
        raise Stop(f"{path} is there and potstill/workloads/{name}.py is not. Write it; see docs/workloads/.") from None
    return Workload(name, settings, module)
