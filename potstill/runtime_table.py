"""The table of configs/runtimes.yaml: model family x dtype x quantisation x runtime x architecture -> verdict.

potstill/compatibility.py asks it. A combination without a row is untested; two rows that speak of the same are an
error.
"""

import datetime
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from potstill import config
from potstill.config import Config
from potstill.project import CONFIGS
from potstill.stop import USAGE, Stop

NAME = "runtimes.yaml"
ANY = "any"
Dtype = Literal["bfloat16", "float16", "gguf"]
# from f16 on: what most tensors of a GGUF file are stored in
Quantisation = Literal["none", "w4a16", "w8a16", "f16", "bf16", "q8_0", "q6_k", "q5_0", "q4_k_m", "q4_0"]
Runtime = Literal["transformers", "vllm-cuda", "vllm-rocm", "vllm-cpu", "llama.cpp", "ollama"]
Verdict = Literal["works", "warns", "refused", "untested"]
RUNTIMES: tuple[Runtime, ...] = ("transformers", "vllm-cuda", "vllm-rocm", "vllm-cpu", "llama.cpp", "ollama")
READ_GGUF = ("llama.cpp", "ollama")
# sm and gfx name GPUs, the others CPUs
ARCHITECTURE = re.compile(r"^(any|x86_64|aarch64|sm\d{2,3}|gfx[0-9a-f]{3,4})$")
# an artifact is a name for what it holds
ARTIFACTS: dict[str, tuple[Dtype, Quantisation]] = {
    "bf16": ("bfloat16", "none"),
    "fp16": ("float16", "none"),
    "awq": ("bfloat16", "w4a16"),
    "rtn-w4a16": ("bfloat16", "w4a16"),
    "rtn-w8a16": ("bfloat16", "w8a16"),
    "gguf-f16": ("gguf", "f16"),
    "gguf-bf16": ("gguf", "bf16"),
    "gguf-q8_0": ("gguf", "q8_0"),
    "gguf-q6_k": ("gguf", "q6_k"),
    "gguf-q5_0": ("gguf", "q5_0"),
    "gguf-q4_k_m": ("gguf", "q4_k_m"),
    "gguf-q4_0": ("gguf", "q4_0"),
}


class Row(Config):
    """`instead` is the artifact that is written where this row refuses one that was asked for."""

    families: Annotated[list[str], Field(min_length=1)]
    dtype: Dtype
    quantisations: Annotated[list[Quantisation], Field(min_length=1)]
    runtimes: Annotated[list[Runtime], Field(min_length=1)]
    architectures: Annotated[list[str], Field(min_length=1)]
    verdict: Verdict
    words: Annotated[str, Field(min_length=10)]
    source: str
    checked: datetime.date
    instead: str | None = None

    @field_validator("source")
    @classmethod
    def names_a_source(cls, text: str) -> str:
        if not text.startswith(("https://", "measured: ")):
            raise ValueError('want an https:// address, or "measured: " and how')
        return text

    @field_validator("architectures")
    @classmethod
    def are_architectures(cls, names: list[str]) -> list[str]:
        for name in names:
            if not ARCHITECTURE.match(name):
                raise ValueError(f"no architecture {name!r}: want gfx942, sm90, x86_64, aarch64, ... or any")
        return names

    @field_validator("instead")
    @classmethod
    def is_an_artifact(cls, name: str | None) -> str | None:
        if name is not None and name not in ARTIFACTS:
            raise ValueError(f"no artifact {name!r}.{config.nearest(name, ARTIFACTS)}")
        return name


class Table(Config):
    rows: list[Row]


def load(path: Path | None = None) -> Table:
    """Raises Stop 2 that names the file, the row and the key, or two rows that speak of the same combination."""
    path = path or CONFIGS / NAME
    table = config.load(path, Table)
    seen: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(table.rows):
        for cell in _cells(row):
            first = seen.setdefault(cell, number)
            if first != number:
                raise Stop(f"{path}: rows.{first} and rows.{number} both speak of {' x '.join(cell)}. Keep one.", USAGE)
    return table


def rows_of(table: Table, family: str, artifact: str, runtime: str, architecture: str | None) -> list[Row]:
    """At most one row, or without an architecture those of all architectures."""
    dtype, quantisation = parts(artifact)
    rows = [
        row
        for row in table.rows
        if family in row.families
        and row.dtype == dtype
        and quantisation in row.quantisations
        and runtime in row.runtimes
    ]
    if architecture is None:
        return rows
    named = [row for row in rows if architecture in row.architectures]
    return named or [row for row in rows if ANY in row.architectures]


def parts(artifact: str) -> tuple[Dtype, Quantisation]:
    """dtype and quantisation. Raises Stop 2 for a name that is no artifact's."""
    if artifact not in ARTIFACTS:
        hint = config.nearest(artifact, ARTIFACTS)
        raise Stop(f"no artifact {artifact!r}.{hint} Known: {', '.join(ARTIFACTS)}.", USAGE)
    return ARTIFACTS[artifact]


def reads(runtime: str, artifact: str) -> bool:
    """Whether the runtime reads the artifact's format at all: GGUF files, or Hugging Face folders."""
    return (parts(artifact)[0] == "gguf") == (runtime in READ_GGUF)


def markdown(table: Table) -> str:
    """The table as docs/compatibility.md has it."""
    lines = ["| dtype, quantisation | runtime | architecture | verdict | | source |", "|---|---|---|---|---|---|"]
    for row in table.rows:
        source = f"[source]({row.source})" if row.source.startswith("https://") else row.source
        cells = (
            f"{row.dtype}: {', '.join(row.quantisations)}",
            ", ".join(row.runtimes),
            ", ".join(row.architectures),
            row.verdict,
            row.words,
            source,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[tuple[str, ...]]:
    return [
        (family, row.dtype, quantisation, runtime, architecture)
        for family in row.families
        for quantisation in row.quantisations
        for runtime in row.runtimes
        for architecture in row.architectures
    ]
