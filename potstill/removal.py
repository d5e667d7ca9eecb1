"""Finds the rows that a takedown names, wherever the project keeps rows, and takes them out of files and database."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from potstill import database, progress, project, snapshots, tombstones
from potstill.files import atomic_open, sha256_text
from potstill.records import Exemplar
from potstill.snapshots import SPLITS, Version
from potstill.stop import DATA, Stop
from potstill.tombstones import Tombstone, Tombstones
from potstill.workload import Workload

# of DuckDB, while it writes the database anew; what does not fit it keeps on disk
MEMORY_LIMIT = "512MB"


class Line(NamedTuple):
    data: bytes
    id: str
    metadata: dict[str, Any]
    source: str  # its source_sha256; "None" where it has none


@dataclass
class Found:
    """Rows that are to go, by place; only ids and sums are held."""

    ids: set[str] = field(default_factory=set)
    originals: set[str] = field(default_factory=set)  # those that are no variants
    sources: set[str] = field(default_factory=set)  # of rows named by id
    database: list[str] = field(default_factory=list)
    previous: list[str] = field(default_factory=list)  # of the database that the last pull replaced
    elsewhere: Counter[str] = field(default_factory=Counter)  # tasks of other workloads
    files: Counter[str] = field(default_factory=Counter)
    versions: dict[str, dict[str, int]] = field(default_factory=dict)


def survey(job: Workload, stone: Tombstone) -> tuple[Found, Tombstones]:
    """What is to go, and its matcher. Looks again until nothing more is found: variants of rows, and equal contents."""
    gone = tombstones.matcher([stone])
    gone = Tombstones(gone.ids, gone.sources, gone.domains, gone.tenants, stone.kind == "no_consent")
    while True:
        found = _scan(job, stone, gone)
        ids = gone.ids | {sha256_text(id) for id in found.ids}
        sources = gone.sources | (found.sources if stone.kind == "id" else set())
        if (ids, sources) == (gone.ids, gone.sources):
            return found, gone
        gone = Tombstones(frozenset(ids), frozenset(sources), gone.domains, gone.tenants, gone.no_consent)


def _scan(job: Workload, stone: Tombstone, gone: Tombstones) -> Found:
    found = Found()
    for path, ids in ((project.database(), found.database), (project.previous_database(), found.previous)):
        ids += _look_in_database(path, job, gone, found)
    for path in _loose_files(job.name):
        found.files[path.as_posix()] = _look(path, gone, found)
    for name, version in snapshots.registry().get(job.name, {}).items():
        counts = _version_rows(version, gone, found, name in stone.versions)
        # of a version that this takedown withdrew already the tombstone says what it held
        if any(counts.values()) and name not in stone.versions:
            found.versions[name] = dict.fromkeys(SPLITS, 0) | counts
    return found


def _look_in_database(path: Path, job: Workload, gone: Tombstones, found: Found) -> list[str]:
    """The ids of rows that are to go; those of other workloads' tasks are counted only."""
    ids = []
    counts = database.task_counts(path) if path.is_file() else {}
    rows = database.read(path, counts) if counts else ()
    for row in progress.track(rows, f"look in {path.name}", sum(counts.values())):
        if not gone.matches(row):
            continue
        if row.task not in job.settings.tasks:
            # the previous database has most of the same rows
            found.elsewhere[row.task] += path == project.database()
            continue
        ids.append(row.id)
        metadata = row.metadata if isinstance(row, Exemplar) else {}
        source = tombstones.source_sha256(row) if isinstance(row, Exemplar) else "None"
        _note(found, Line(b"", row.id, metadata, source))
    return ids


def _version_rows(version: Version, gone: Tombstones, found: Found, ours: bool) -> dict[str, int]:
    """split -> rows that are to go, of the files still there. Raises Stop 65 for a snapshot that was edited."""
    counts = {}
    for split, snapshot in version.files().items():
        path = Path(snapshot.file)
        if path.is_file() and (ours or not tombstones.withdrawn(path)):
            counts[split] = _look(path if ours else snapshots.checked(snapshot), gone, found)
    return counts


def _look(path: Path, gone: Tombstones, found: Found) -> int:
    count = 0
    for line in progress.track(lines_of(path), f"look in {path.name}"):
        if gone.named(line.id, line.metadata, line.source):
            _note(found, line)
            count += 1
    return count


def _note(found: Found, line: Line) -> None:
    found.ids.add(line.id)
    if "parent" not in line.metadata:
        found.originals.add(line.id)
        if len(line.source) == 64:
            found.sources.add(line.source)


def _loose_files(name: str) -> list[Path]:
    """The JSONL files of a workload that are no registered snapshots."""
    registered = {s.file for v in snapshots.registry().get(name, {}).values() for s in v.files().values()}
    return [path for path in sorted(project.processed(name).glob("*.jsonl")) if path.as_posix() not in registered]


def lines_of(path: Path) -> Iterator[Line]:
    with open(path, "rb") as file:
        for number, data in enumerate(file, 1):
            try:
                row = json.loads(data)
                metadata, source = row.get("metadata"), row.get("source_sha256")
                found = Line(data, str(row["id"]), metadata if isinstance(metadata, dict) else {}, str(source))
            except (ValueError, KeyError, AttributeError):
                where = f"{path} line {number}"
                raise Stop(f"{where}: no row with an id. Make the file anew, or delete it.", DATA) from None
            yield found


def without(source: Path, target: Path, gone: Tombstones) -> int:
    """Copies the lines that stay, byte for byte; returns how many."""
    count = 0
    with atomic_open(target, "wb") as file:
        for line in lines_of(source):
            if not gone.named(line.id, line.metadata, line.source):
                file.write(line.data)
                count += 1
    return count


def purge(path: Path, ids: list[str]) -> None:
    """Deletes rows, then writes the database anew: DuckDB leaves the bytes of deleted rows in its file."""
    import duckdb

    if not path.is_file():
        return
    spare = path.with_name(f".{path.name}.takedown")
    # what a killed takedown left
    shutil.rmtree(spare, ignore_errors=True)
    spare.mkdir()
    # waits for nobody, and says who has it open
    database.connect(path, read_only=False).close()
    try:
        with duckdb.connect(str(path)) as connection:
            _delete_and_copy(connection, ids, spare / path.name)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise Stop(
            f"{path} could not be written anew without the rows: {reason}. Pull or convert it anew.", DATA
        ) from None
    with open(spare / path.name, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(spare / path.name, path)
    spare.rmdir()


def _delete_and_copy(connection: Any, ids: list[str], copy: Path) -> None:
    """The only folder that the database can reach is the copy's."""
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    # in this order: a database may come from somebody else, and its triggers run within our statements
    connection.execute(f"SET allowed_directories = [{_text(str(copy.parent.resolve()))}]")
    for option, setting in database.SAFE.items():
        connection.execute(f"SET {option} = {setting}")
    chosen = "CAST(id AS VARCHAR) IN (SELECT unnest(CAST(? AS VARCHAR[])))"
    connection.execute(f"DELETE FROM examples WHERE {chosen}", [ids])  # noqa: S608 - our own text
    connection.execute("CHECKPOINT")
    (own,) = connection.execute("SELECT current_database()").fetchone()
    connection.execute(f"ATTACH {_text(str(copy.resolve()))} AS compacted")
    name = own.replace('"', '""')
    connection.execute(f'COPY FROM DATABASE "{name}" TO compacted')
    connection.execute("DETACH compacted")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
