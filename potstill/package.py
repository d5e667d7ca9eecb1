"""What export, verify and parity agree on: configs/package/*.yaml and where a package lies."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from potstill import bases, compatibility, config
from potstill.config import Config
from potstill.project import CONFIGS, run_folder
from potstill.stop import USAGE, Stop

GGUF_TYPES = {
    "gguf-f16": "F16",
    "gguf-bf16": "BF16",
    "gguf-q8_0": "Q8_0",
    "gguf-q6_k": "Q6_K",
    "gguf-q5_0": "Q5_0",
    "gguf-q4_k_m": "Q4_K_M",
    "gguf-q4_0": "Q4_0",
}
KINDS = ("bf16", "fp16", "awq", "rtn-w4a16", "rtn-w8a16", *GGUF_TYPES)
Engine = Literal["transformers", "llama.cpp", "vllm", "ollama"]
Share = Annotated[float, Field(ge=0, le=1)]


class Artifact(Config):
    """Limits of package.parity, each against the merged model's answers; null is no limit.

    `min_same_json`: the smallest share of test rows with the same JSON. `max_slot_drop`: how much lower its accuracy of
    the slots that a rule can grade may be, as a share: 0.005 is half a point.
    """

    min_same_json: Share | None = None
    max_slot_drop: Share | None = None


class PackageConfig(Config):
    """configs/package/<name>.yaml"""

    # tokens of prompt and answer together
    num_ctx: Annotated[int, Field(gt=0)]
    # prompts that an engine answers at once in package.parity
    slots: Annotated[int, Field(gt=0, le=64)]
    artifacts: Annotated[dict[str, Artifact], Field(min_length=1)]
    # whom package.parity asks; --all asks the others too
    engines: Annotated[list[Engine], Field(min_length=1, default_factory=lambda: ["llama.cpp"])]
    # test rows whose next-token distributions are compared with the merged model's; 0: none
    forced_rows: Annotated[int, Field(ge=0)] = 16
    # where it is to be served: a runtime of configs/runtimes.yaml and its architecture, or null for any
    runtimes: Annotated[dict[str, str | None], Field(default_factory=dict)]
    # GGUF files of fewer than eight bits are rounded with an importance matrix of the train rows
    imatrix: bool = True
    # the artifact that the Raspberry Pi bundle is made of
    pi: str | None = None


def load_config(name: str, overrides: list[str] | tuple[str, ...] = (), tell: bool = False) -> PackageConfig:
    """With the artifacts that the config's runtimes can load: configs/runtimes.yaml. `tell` warns of what is known.

    Raises Stop 2 for an unknown key, an artifact that nothing here can make, or a runtime that could load none of them.
    """
    path = CONFIGS / "package" / f"{name}.yaml"
    settings = config.load(path, PackageConfig, overrides)
    for kind in settings.artifacts:
        if kind not in KINDS:
            hint = config.nearest(kind, KINDS)
            raise Stop(f"{path}: artifacts.{kind}: no such artifact.{hint} Known: {', '.join(KINDS)}.", USAGE)
    if settings.pi is not None and (settings.pi not in GGUF_TYPES or settings.pi not in settings.artifacts):
        raise Stop(f"{path}: pi: {settings.pi!r} is none of its GGUF artifacts, and a Raspberry Pi needs one.", USAGE)
    try:
        checked = compatibility.check(bases.MODEL_TYPE, settings.artifacts, settings.runtimes)
    except Stop as stop:
        raise Stop(f"{path}: {stop}", stop.code) from None
    if tell:
        for finding in checked.findings:
            print(f"warning: {finding}", file=sys.stderr)
    artifacts = {kind: settings.artifacts.get(kind, Artifact()) for kind in checked.artifacts}
    return settings.model_copy(update={"artifacts": artifacts})


def folder(run: str) -> Path:
    return run_folder(run) / "package"


def gguf_name(run: str, kind: str) -> str:
    return f"{run}.{GGUF_TYPES[kind]}.gguf"
