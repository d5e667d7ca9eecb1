"""Moves what potstill.capture spooled into the DuckDB table: one process at a time, in one transaction."""

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from potstill import capture_spool, database
from potstill.files import atomic_open
from potstill.records import Exemplar
from potstill.stop import BUSY, IO, Stop

log = logging.getLogger(__name__)
Lines = list[tuple[str, bytes]]


class Flushed(NamedTuple):
    """Rows that are in the table now, and lines of the spool that were no rows, by reason."""

    written: int
    refused: dict[str, int]


class Merging(Stop):
    """Another process is at it."""


def merge(path: Path, wait: bool) -> Flushed:
    """Spool -> the table of the database `path`; see capture.flush."""
    folder = capture_spool.folder_of(path)
    if not folder.is_dir():
        return Flushed(0, {})
    with capture_spool.merge_lock(folder, wait) as ours:
        if not ours:
            raise Merging(f"{folder} is being merged by another process. Wait for it, then run this again.", BUSY)
        sealed = capture_spool.seal(folder)
        refused: dict[Path, Lines] = {file: [] for file in sealed}
        written = _write(path, folder, (row for file in sealed for row in capture_spool.read(file, refused[file])))
        # a kill from here on has the same rows written again, under the same ids
        for file in sealed:
            if refused[file]:
                _set_aside(file, refused[file])
            file.unlink()
    return Flushed(written, dict(Counter(reason for lines in refused.values() for reason, _ in lines)))


def _write(path: Path, folder: Path, rows: Iterator[Exemplar]) -> int:
    import duckdb

    first = next(rows, None)
    if first is None:
        return 0
    try:
        return database.write(path, chain([first], rows))
    except duckdb.Error as error:
        # what DuckDB says of a value can hold the value
        about_values = isinstance(error, duckdb.DataError | duckdb.IntegrityError)
        reason = type(error).__name__ if about_values else str(error).splitlines()[0]
        raise Stop(f"{path}: {reason}. The captured calls stay in {folder}; mend it and flush again.", IO) from None


def _set_aside(file: Path, lines: Lines) -> None:
    kept = file.with_name(file.name.replace(capture_spool.SEALED, capture_spool.REFUSED))
    with atomic_open(kept, "wb") as out:
        out.writelines(line + b"\n" for _, line in lines)
    told = ", ".join(f"{n} {reason}" for reason, n in Counter(reason for reason, _ in lines).items())
    log.warning(
        "%s holds lines that are no captured calls of this version: %s. Look at it, then delete it.", kept, told
    )
