"""Immutable, checksummed versions of a split, registered in configs/datasets.yaml."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from potstill import config, project, tombstones
from potstill.config import Config
from potstill.files import sha256_file, stage_lock, write_text
from potstill.project import PROCESSED, REGISTRY
from potstill.records import Example, Record, read_jsonl
from potstill.splitting import SPLITS as SPLITS
from potstill.stop import DATA, Stop


class Snapshot(Record):
    """One file of one version."""

    file: str
    rows: int
    sha256: str


class Version(Config):
    """The three files of one version, the seed that divided them, and the checksums of what they were made from."""

    train: Snapshot
    val: Snapshot
    test: Snapshot
    seed: int
    parents: dict[str, str]

    def files(self) -> dict[str, Snapshot]:
        return {split: getattr(self, split) for split in SPLITS}


HEADER = "# Snapshots, written by fab dataset.split. Commit it: it says what every run was trained and graded on.\n"


def registry() -> dict[str, dict[str, Version]]:
    """workload -> version name -> Version; empty before the first split."""
    if not REGISTRY.is_file():
        return {}
    return {
        workload: {
            name: config.validate(entry, Version, f"{REGISTRY}: {workload}.{name}") for name, entry in versions.items()
        }
        for workload, versions in config.read_yaml(REGISTRY).items()
    }


def newest(workload: str) -> tuple[str, Version]:
    """Raises Stop 65 when the workload has no snapshot yet."""
    versions = registry().get(workload)
    if not versions:
        raise Stop(f"workload {workload} has no snapshot yet. Run fab dataset.split -w {workload}.", DATA)
    name = max(versions, key=lambda v: int(v.removeprefix("v")))
    return name, versions[name]


def register(workload: str, name: str, version: Version) -> None:
    """Adds a version to the registry, or replaces its entry; waits for other workloads that are being registered."""
    with stage_lock(PROCESSED, "registry", wait=True):
        # what a writer that was killed left behind
        for leftover in REGISTRY.parent.glob(f".{REGISTRY.name}.*"):
            leftover.unlink()
        entries: dict[str, Any] = {
            w: {n: v.model_dump() for n, v in versions.items()} for w, versions in registry().items()
        }
        entries.setdefault(workload, {})[name] = version.model_dump()
        write_text(REGISTRY, HEADER + yaml.safe_dump(entries, sort_keys=False))


def path_of(workload: str, split: str, name: str) -> Path:
    return project.processed(workload) / f"{split}.{name}.jsonl"


def checked(snapshot: Snapshot) -> Path:
    """The snapshot's file. Raises Stop 65, naming it, when it is missing, withdrawn, or was changed since the split."""
    path = Path(snapshot.file)
    tombstones.refuse_withdrawn(path)
    if not path.is_file():
        raise Stop(f"{path} is not there. Run fab dataset.split.", DATA)
    if sha256_file(path) != snapshot.sha256:
        raise Stop(
            f"{path} was changed after the split: its sha256 is not the one recorded. "
            "Restore it; or delete it, run fab dataset.split and prepare a new run.",
            DATA,
        )
    return path


def check_all(workload: str) -> None:
    """Raises Stop 65, naming the file, when any snapshot of the workload was changed. One that is missing is no harm.

    A fresh checkout has the registry without the files: dataset.split writes them again.
    """
    for version in registry().get(workload, {}).values():
        for snapshot in version.files().values():
            path = Path(snapshot.file)
            if path.is_file() and not tombstones.withdrawn(path):
                checked(snapshot)


def read(snapshot: Snapshot) -> Iterator[Example]:
    """The rows of an unchanged snapshot; see `checked`."""
    yield from read_jsonl(checked(snapshot), Example, "Run fab dataset.split.")
