"""What export, verify and parity agree on: configs/package/*.yaml and where a package lies."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from potstill import config
from potstill.config import Config
from potstill.project import CONFIGS, run_folder
from potstill.stop import USAGE, Stop

GGUF_TYPES = {"gguf-f16": "F16", "gguf-bf16": "BF16", "gguf-q8_0": "Q8_0", "gguf-q4_0": "Q4_0"}
KINDS = ("bf16", *GGUF_TYPES)


class Artifact(Config):
    # null where parity has no engine to ask
    min_same_json: Annotated[float, Field(ge=0, le=1)] | None = None


class PackageConfig(Config):
    """configs/package/<name>.yaml"""

    num_ctx: Annotated[int, Field(gt=0)]
    slots: Annotated[int, Field(gt=0, le=64)]
    artifacts: Annotated[dict[str, Artifact], Field(min_length=1)]


def load_config(name: str, overrides: list[str] | tuple[str, ...] = ()) -> PackageConfig:
    """Raises Stop 2 for an unknown key, or an artifact that nothing here can make."""
    path = CONFIGS / "package" / f"{name}.yaml"
    settings = config.load(path, PackageConfig, overrides)
    for kind in settings.artifacts:
        if kind not in KINDS:
            hint = config.nearest(kind, KINDS)
            raise Stop(f"{path}: artifacts.{kind}: no such artifact.{hint} Known: {', '.join(KINDS)}.", USAGE)
    return settings


def folder(run: str) -> Path:
    return run_folder(run) / "package"


def gguf_name(run: str, kind: str) -> str:
    return f"{run}.{GGUF_TYPES[kind]}.gguf"
