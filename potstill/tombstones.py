"""configs/tombstones.jsonl: rows that were taken down, so that no later pull or conversion brings them back.

It names rows by hashes and by the domain or tenant asked for, never by content, so it can be committed: then a fresh
checkout keeps the promise too. dataset.takedown writes it before it removes anything; dataset.clean asks of every row.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from potstill import project
from potstill.files import canonical_json, sha256_text
from potstill.records import Example, Exemplar, Record, Reject, read_jsonl, write_jsonl
from potstill.stop import DATA, Stop

FILE = project.CONFIGS / "tombstones.jsonl"
Kind = Literal["id", "domain", "tenant", "no_consent"]


class Tombstone(Record):
    """One takedown. `value` is the domain or the tenant, else null; `ids` and `sources` are SHA-256 sums.

    `ids` of row ids, for the kinds id and no_consent; `sources` of contents (`source_sha256`), for the kind id.
    `versions` has the snapshot versions that held such rows, and how many in each split: they are withdrawn.
    """

    workload: str
    kind: Kind
    value: str | None
    ids: list[str]
    sources: list[str]
    versions: dict[str, dict[str, int]]
    reason: str
    created_at: str


@dataclass(frozen=True)
class Tombstones:
    """What several tombstones name together; compares hashes, hosts and names only."""

    ids: frozenset[str]
    sources: frozenset[str]
    domains: frozenset[str]
    tenants: frozenset[str]
    # rows without consent have a reject reason of their own, so only dataset.takedown sets this
    no_consent: bool = False

    def matches(self, row: Exemplar | Example | Reject) -> bool:
        """Was this row taken down, or is it a variant of one that was, or the same content under another id?"""
        if isinstance(row, Reject):
            return self.named(row.id, {}, None)
        if isinstance(row, Example):
            return self.named(row.id, row.metadata, row.source_sha256)
        return self.named(row.id, row.metadata, source_sha256(row) if self.sources else None)

    def named(self, id: str, metadata: dict[str, Any], source: str | None) -> bool:
        """`matches` for a row of any kind. `source` is its `source_sha256`, where it has one."""
        # a variant names the row it was made of
        owners = (id, metadata.get("parent"))
        if self.ids and any(isinstance(owner, str) and sha256_text(owner) in self.ids for owner in owners):
            return True
        if source is not None and source in self.sources:
            return True
        if self.tenants and isinstance(tenant := metadata.get("tenant"), str) and tenant in self.tenants:
            return True
        if self.domains and any(self._below(host) for host in hosts(metadata)):
            return True
        return self.no_consent and metadata.get("consent") is False

    def _below(self, host: str) -> bool:
        labels = host.split(".")
        return any(".".join(labels[start:]) in self.domains for start in range(len(labels)))


def load(workload: str | None = None) -> Tombstones:
    """The matcher that dataset.clean asks about every exemplar: tombstones of one workload, or of all."""
    return matcher(stone for stone in read() if workload in (None, stone.workload))


def matcher(stones: Iterable[Tombstone]) -> Tombstones:
    stones = list(stones)
    values = {kind: frozenset(s.value for s in stones if s.kind == kind and s.value) for kind in ("domain", "tenant")}
    return Tombstones(
        frozenset(id for stone in stones for id in stone.ids),
        frozenset(source for stone in stones for source in stone.sources),
        values["domain"],
        values["tenant"],
    )


def read() -> list[Tombstone]:
    """Raises Stop 65 for a damaged file: to go on would bring rows back."""
    return list(read_jsonl(FILE, Tombstone, "Restore it from the repository.")) if FILE.is_file() else []


def find(workload: str, kind: Kind, value: str | None, id: str | None) -> Tombstone | None:
    """The tombstone of an earlier takedown of the same rows. There is one per id, domain and tenant."""
    for stone in read():
        same = (stone.workload, stone.kind, stone.value) == (workload, kind, value)
        if same and (id is None or sha256_text(id) in stone.ids):
            return stone
    return None


def save(stone: Tombstone) -> None:
    """Adds a tombstone; one of the same takedown is replaced."""
    write_jsonl(FILE, [*(s for s in read() if _name(s) != _name(stone)), stone])


def withdrawn(path: Path) -> Tombstone | None:
    """The tombstone that withdrew a snapshot's file, by the file's name."""
    for stone in read():
        names = {f"{split}.{version}.jsonl" for version, rows in stone.versions.items() for split in rows}
        if path.parent == project.processed(stone.workload) and path.name in names:
            return stone
    return None


def refuse_withdrawn(path: Path) -> None:
    """Raises Stop 65, naming the file, when its rows were taken down; also when somebody put the file back."""
    if stone := withdrawn(path):
        raise Stop(
            f"{path} was withdrawn: rows of it were taken down on {stone.created_at[:10]} ({FILE}). "
            f"Use a newer snapshot: fab dataset.split -w {stone.workload}, then prepare a new run.",
            DATA,
        )


def source_sha256(row: Exemplar) -> str:
    """The sum that dataset.clean records of an exemplar's content as `source_sha256`."""
    return sha256_text(canonical_json([row.system_prompt, row.prompt_text, row.response_strong]))


def hosts(metadata: dict[str, Any]) -> list[str]:
    """The hosts a row names: metadata.domain, and that of metadata.source_url."""
    found = []
    if isinstance(domain := metadata.get("domain"), str):
        found.append(host(domain))
    if isinstance(url := metadata.get("source_url"), str):
        with contextlib.suppress(ValueError):  # no URL, so no host
            found.append(host(urlsplit(url).hostname or ""))
    return [name for name in found if name]


def host(domain: str) -> str:
    """In lower case, without port and outer dots, and in ASCII: xn--bcher-kva.example."""
    name = domain.strip().lower().strip(".").partition(":")[0]
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def _name(stone: Tombstone) -> tuple[str, str, str | None, str]:
    return stone.workload, stone.kind, stone.value, stone.ids[0] if stone.kind == "id" else ""
