"""Rows written by hand, and snapshots of them, in the project folder a test runs in."""

import json

from potstill import project, snapshots, tombstones
from potstill.files import sha256_file
from potstill.records import Example, Exemplar, SlotSpec, write_jsonl
from potstill.snapshots import SPLITS, Snapshot, Version

WORKLOAD = "batfit"
SLOTS = {"size": SlotSpec(level="exact"), "items[].price": SlotSpec(level="numeric_tol")}


def exemplar(id: str, prompt: str | None = None, task: str = "t1_parse", **metadata) -> Exemplar:
    return Exemplar(id=id, task=task, prompt_text=prompt or f"raw {id}", response_strong="{}", metadata=metadata)


def example(id: str, prompt: str | None = None, size: str | None = "small", prices: tuple = (), **metadata) -> Example:
    """What dataset.clean would have made of `exemplar(id)`."""
    response = json.dumps({"size": size, "items": [{"price": p} for p in prices]}, separators=(",", ":"))
    return Example(
        id=id,
        task="t1_parse",
        system="Answer in JSON.",
        prompt=prompt or f"prompt of {id}",
        response=response,
        slots=SLOTS,
        metadata=metadata,
        schema_version="1",
        source_sha256=tombstones.source_sha256(exemplar(id, prompt)),
    )


def variant(parent: Example, kind: str = "typos") -> Example:
    metadata = {**parent.metadata, "parent": parent.id, "augmented": kind}
    return parent.model_copy(
        update={"id": f"{parent.id}~{kind}", "metadata": metadata, "source_sha256": "0" * 64, "prompt": "typo"}
    )


def snapshot(name: str, train: list[Example], val: list[Example], test: list[Example]) -> Version:
    entries = {}
    for split, rows in zip(SPLITS, (train, val, test), strict=True):
        path = snapshots.path_of(WORKLOAD, split, name)
        write_jsonl(path, rows)
        entries[split] = Snapshot(file=path.as_posix(), rows=len(rows), sha256=sha256_file(path))
    version = Version(**entries, seed=17, parents={"clean.jsonl": "f" * 64})
    snapshots.register(WORKLOAD, name, version)
    return version


def ids(path) -> list[str]:
    return [json.loads(line)["id"] for line in open(path, encoding="utf-8")]


def processed(name: str):
    return project.processed(WORKLOAD) / name
