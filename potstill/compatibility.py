"""Will it load where it is to be served? Asked of configs/runtimes.yaml before training and before export.

    checked = compatibility.check("gemma3_text", ["fp16", "gguf-q8_0"], {"vllm-rocm": "gfx942", "ollama": None})
    checked.artifacts     ["gguf-q8_0", "bf16"]: what is to be written
    checked.findings      "fp16 for vllm-rocm on gfx942: vLLM will not load fp16 Gemma 3 ...; bf16 will be written
                          instead"

A package's manifest carries what `runtimes` says of each artifact. Nothing is guessed: a combination without a row is
untested, and said to be.

Run: python -m potstill.compatibility      prints the table, as docs/compatibility.md has it
"""

import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from potstill import config, runtime_table
from potstill.runtime_table import ANY, RUNTIMES, Table, Verdict, reads, rows_of
from potstill.stop import USAGE, Stop


@dataclass(frozen=True)
class Finding:
    """What is known of one artifact in one runtime. `instead` is what is written in place of a refused one."""

    artifact: str
    runtime: str
    architecture: str | None
    verdict: Verdict
    words: str
    source: str | None
    instead: str | None = None

    def __str__(self) -> str:
        where = f"{self.runtime} on {self.architecture}" if self.architecture else self.runtime
        said = "" if self.verdict == "refused" else f"{self.verdict}: "
        return f"{self.artifact} for {where}: {said}{self.words}" + (f" ({self.source})" if self.source else "")


@dataclass(frozen=True)
class Checked:
    """`artifacts` is what to write; `findings` is what a user should read, and so has nothing of what works."""

    artifacts: list[str]
    findings: list[Finding]


def check(
    family: str, artifacts: Iterable[str], targets: Mapping[str, str | None], table: Table | None = None
) -> Checked:
    """Whether each target, a runtime and its architecture (None: not known), can load one of the artifacts.

    `family` is config.json's model_type, `table` that of configs/runtimes.yaml unless another is given. An artifact
    that is refused gives way to the one its row names. Raises Stop 2 when a target refuses all that it could read.
    """
    table, asked = table or runtime_table.load(), list(dict.fromkeys(artifacts))
    findings: list[Finding] = []
    loaded: set[str] = set()
    for runtime, architecture in targets.items():
        _check_target(table, runtime, architecture)
        found = [look_up(table, family, kind, runtime, architecture) for kind in asked if reads(runtime, kind)]
        if not found:
            findings.append(Finding("nothing", runtime, architecture, "warns", _nothing_is_for(runtime), None))
            continue
        good = [finding.artifact for finding in found if finding.verdict != "refused"]
        added = [f.instead for f in found if f.instead and not good and _loads(table, family, f)]
        if not good and not added:
            why = "; ".join(str(finding) for finding in found)
            raise Stop(f"{why}. Ask for another artifact, or leave runtimes.{runtime} out.", USAGE)
        loaded.update(good)
        findings += [_told(finding, good, added) for finding in found if finding.verdict != "works"]
    gone = {finding.artifact for finding in findings if finding.instead} - loaded
    written = [kind for kind in asked if kind not in gone] + [f.instead for f in findings if f.instead]
    return Checked(list(dict.fromkeys(written)), findings)


def look_up(table: Table, family: str, artifact: str, runtime: str, architecture: str | None) -> Finding:
    """What the table says of one combination; without an architecture what it says of all."""
    rows = rows_of(table, family, artifact, runtime, architecture)
    if not rows:
        words = f"nobody says whether {runtime} loads it there; ask package.parity on that machine"
        return Finding(artifact, runtime, architecture, "untested", words, None)
    if len({row.verdict for row in rows}) > 1:
        verdicts = "; ".join(f"{row.verdict} on {_named(row.architectures)}" for row in rows)
        words = f"{verdicts}. Name yours: runtimes.{runtime} in configs/package/*.yaml"
        return Finding(artifact, runtime, architecture, "untested", words, None)
    row = rows[0]
    return Finding(artifact, runtime, architecture, row.verdict, row.words, row.source, row.instead)


def runtimes(family: str, artifacts: Iterable[str], table: Table | None = None) -> dict[str, dict[str, str]]:
    """For a manifest: artifact -> runtime that reads its format -> the verdict on each architecture, and why."""
    known = table or runtime_table.load()
    return {
        kind: {runtime: _summary(known, family, kind, runtime) for runtime in RUNTIMES if reads(runtime, kind)}
        for kind in artifacts
    }


def family(base: str | Path) -> str:
    """The model_type of a Hugging Face folder."""
    found: str = json.loads((Path(base) / "config.json").read_text(encoding="utf-8"))["model_type"]
    return found


def architecture_of(name: str) -> str:
    """gfx942, sm90, x86_64 or aarch64 of what a driver or a kernel says: "gfx942:sramecc+:xnack-", "9.0", "arm64".

    Raises Stop 2 for anything else.
    """
    text = name.strip().lower()
    if found := re.match(r"(gfx[0-9a-f]{3,4})(:|$)", text):
        return found[1]
    if found := re.fullmatch(r"(\d{1,2})\.(\d)", text):
        return f"sm{found[1]}{found[2]}"
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(text, text)
    if machine not in ("x86_64", "aarch64"):
        raise Stop(f"{name!r} is no architecture that is known here, such as gfx942, 9.0 or aarch64", USAGE)
    return machine


def this_machine() -> str:
    """The architecture of this machine's first GPU, or of its CPU when PyTorch sees no GPU."""
    import torch

    if not torch.cuda.is_available():
        return architecture_of(platform.machine())
    if torch.version.hip:
        return architecture_of(torch.cuda.get_device_properties(0).gcnArchName)
    return architecture_of("{}.{}".format(*torch.cuda.get_device_capability(0)))


def _check_target(table: Table, runtime: str, architecture: str | None) -> None:
    if runtime not in RUNTIMES:
        hint = config.nearest(runtime, RUNTIMES)
        raise Stop(f"runtimes.{runtime}: no such runtime.{hint} Known: {', '.join(RUNTIMES)}.", USAGE)
    if architecture is not None and not runtime_table.ARCHITECTURE.match(architecture):
        known = sorted({name for row in table.rows if runtime in row.runtimes for name in row.architectures} - {ANY})
        hint = config.nearest(architecture, known)
        raise Stop(
            f"runtimes.{runtime} is {architecture!r}, want an architecture such as {', '.join(known) or 'sm90'}.{hint}",
            USAGE,
        )


def _loads(table: Table, family: str, refused: Finding) -> bool:
    found = look_up(table, family, refused.instead or "", refused.runtime, refused.architecture)
    return found.verdict != "refused"


def _told(finding: Finding, good: list[str], added: list[str]) -> Finding:
    """A finding with, for a refused artifact, what its runtime gets in its place."""
    if finding.verdict != "refused":
        return finding
    if good:
        return replace(finding, words=f"{finding.words}; it loads {', '.join(good)}", instead=None)
    if finding.instead in added:
        return replace(finding, words=f"{finding.words}; {finding.instead} will be written instead")
    return replace(finding, words=f"{finding.words}; it gets {added[0]}", instead=None)


def _nothing_is_for(runtime: str) -> str:
    gguf = runtime in runtime_table.READ_GGUF
    kind = "GGUF file, such as gguf-q8_0" if gguf else "Hugging Face folder, such as bf16"
    return f"artifacts has no {kind}"


def _summary(table: Table, family: str, artifact: str, runtime: str) -> str:
    rows = rows_of(table, family, artifact, runtime, None)
    said = [f"{row.verdict}{_on(row.architectures, len(rows))}: {row.words} ({row.source})" for row in rows]
    return "; ".join(said) or "untested"


def _on(architectures: list[str], rows: int) -> str:
    return "" if architectures == [ANY] and rows == 1 else f" on {_named(architectures)}"


def _named(architectures: list[str]) -> str:
    return ", ".join("any other" if name == ANY else name for name in architectures)


if __name__ == "__main__":
    print(runtime_table.markdown(runtime_table.load()), end="")
