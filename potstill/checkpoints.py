"""What an interrupted training run goes on from: checkpoints that are whole, and the log of its steps.

A checkpoint is written under another name and renamed when everything in it is on the disk, with a list of its files
and their checksums. So what a kill leaves has no checkpoint's name, and what a broken copy leaves does not match.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from potstill.files import atomic_open, sha256_file, write_json
from potstill.records import Record

LIST = "checkpoint.json"
PARTIAL = ".partial"
# one to go on from, and one more in case the disk lies about the first
KEPT = 2


class Checkpoint(Record):
    """checkpoint.json: `settings` is the resolved train config it was made under, `files` maps names to sha256."""

    step: int
    processes: int
    device: str
    settings: dict[str, Any]
    files: dict[str, str]


class Change(Record):
    """One line of config_changes.jsonl: from `step` on, `key` is `new`. `key` is `device` for another machine."""

    at: str
    step: int
    key: str
    old: Any
    new: Any


def partial(folder: Path) -> Path:
    """Where the next checkpoint is to be written; what a kill left there is removed."""
    path = folder / PARTIAL
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def seal(written: Path, target: Path, facts: dict[str, Any]) -> None:
    """Makes what is written in a folder the checkpoint `target`. `facts` are Checkpoint's keys but `files`."""
    # a pickle of the trainer's arguments: nothing reads it, and a pickle is code
    (written / "training_args.bin").unlink(missing_ok=True)
    names = sorted(p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file())
    for name in names:
        with open(written / name, "rb") as file:
            os.fsync(file.fileno())
    found = Checkpoint(**facts, files={name: sha256_file(written / name) for name in names})
    write_json(written / LIST, found.model_dump())
    # the same step again, after a run was taken up from before it
    shutil.rmtree(target, ignore_errors=True)
    written.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def newest(folder: Path) -> tuple[Path, Checkpoint] | None:
    """The newest whole checkpoint of a run's checkpoints/ and its list; None when there is none."""
    for path in reversed(by_step(folder)):
        if (found := read(path)) is not None:
            return path, found
    return None


def read(path: Path) -> Checkpoint | None:
    """The list of a checkpoint; None unless every file of it is there, unchanged."""
    try:
        found = Checkpoint.model_validate_json((path / LIST).read_text(encoding="utf-8"))
        whole = all(sha256_file(path / name) == sha256 for name, sha256 in found.files.items())
    except (OSError, ValueError, ValidationError):
        return None
    return found if whole and found.files else None


def by_step(folder: Path) -> list[Path]:
    numbered = [p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdecimal()]
    return sorted(numbered, key=lambda p: int(p.name.rpartition("-")[2]))


def prune(folder: Path) -> None:
    """Leaves the newest KEPT checkpoints."""
    for path in by_step(folder)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def forget_after(path: Path, step: int) -> None:
    """Drops the rows of a JSONL file that are of later steps, or torn by a kill: those steps will be made again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if line.endswith("\n") and row["step"] <= step:
            kept.append(line)
    with atomic_open(path) as file:
        file.writelines(kept)


class StepLog:
    """models/<run>/steps.jsonl: one row per optimizer step, `step, loss, learning_rate, tokens, lines`.

    `loss` is the step's own, `tokens` counts what was read without padding, and `lines` are the rows' line numbers in
    the train snapshot, in the order in which they were read.
    """

    def __init__(self, path: Path, from_step: int):
        forget_after(path, from_step)
        self.file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115  (open as long as the run)
        self.tokens = 0

    def add(self, step: int, loss: float, learning_rate: float, tokens: int, lines: list[int]) -> None:
        self.tokens += tokens
        row = {"step": step, "loss": loss, "learning_rate": learning_rate, "tokens": tokens, "lines": lines}
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Puts the rows on the disk: a checkpoint must not be ahead of them."""
        os.fsync(self.file.fileno())
