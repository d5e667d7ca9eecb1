"""The DuckDB table `examples`: exemplars come in here, and extra columns are ignored.

DuckDB never holds run state; it is opened for one batch of reads or one transaction of writes.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from potstill.files import canonical_json
from potstill.records import Exemplar, Reject, explain
from potstill.stop import BUSY, DATA, Stop

COLUMNS = {
    "id": "TEXT PRIMARY KEY",
    "task": "TEXT",
    "prompt_text": "TEXT",
    "response_strong": "JSON",
    "metadata": "JSON",
    "slot_specs": "JSON",
    "system_prompt": "TEXT",
}
OPTIONAL = ("metadata", "slot_specs", "system_prompt")
# rows that are fetched at a time, and that DuckDB holds unpacked
READ_ROWS, VECTOR = 64, 2_048
# rows of one insert, which ends sooner when it has this many characters
INSERT_ROWS, INSERT_CHARS = 2_000, 16_000_000
# a database may come from somebody else, and its own macros and triggers run within our statements
SAFE: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "lock_configuration": "true",
}


def connect(path: Path, read_only: bool) -> Any:
    """Opens the database, which then can reach no other file and no network.

    Raises Stop 65 when it is missing or no DuckDB file, 75 when another process writes to it.
    """
    import duckdb

    path = Path(path)
    if read_only and not path.is_file():
        raise Stop(f"{path} is not there. Run fab dataset.convert, or copy your own DuckDB file to it.", DATA)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return duckdb.connect(str(path), read_only=read_only, config=SAFE)
    except duckdb.Error as error:
        if "Could not set lock" in str(error):
            raise Stop(f"{path} is open in another process. Wait for it, then run this again.", BUSY) from None
        reason = str(error).splitlines()[0]
        raise Stop(f"{path} cannot be opened as a DuckDB database: {reason}", DATA) from None


def write(path: Path, exemplars: Iterable[Exemplar], replace_workload: str | None = None) -> int:
    """Adds exemplars, all or none; a row with a known id is replaced. Returns how many were written.

    `replace_workload` first removes the rows that an earlier conversion of that workload wrote.
    """
    connection = connect(path, read_only=False)
    try:
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        connection.execute("BEGIN")
        connection.execute(f"CREATE TABLE IF NOT EXISTS examples({columns})")
        _check_columns(connection, path)
        if replace_workload is not None:
            connection.execute(
                "DELETE FROM examples WHERE json_extract_string(metadata, '$.converted_by') = ?", [replace_workload]
            )
        count = 0
        for batch in _batches(exemplars):
            _insert(connection, batch)
            count += len(batch)
        connection.execute("COMMIT")
        return count
    finally:
        connection.close()


def read(path: Path, tasks: Iterable[str]) -> Iterator[Exemplar | Reject]:
    """Streams the rows of the named tasks in id order; a row that breaks the contract comes as a Reject.

    Raises Stop 65 when the table or a column is missing.
    """
    tasks = list(tasks)
    connection = connect(path, read_only=True)
    try:
        present = _check_columns(connection, path)
        wanted = ", ".join(f"CAST({name} AS VARCHAR)" if name in present else f"NULL AS {name}" for name in COLUMNS)
        found = (
            _by_id(connection, wanted, tasks, path.parent)
            if _has_key(connection)
            else _sorted(connection, wanted, tasks)
        )
        for row in found:
            yield _exemplar(dict(zip(COLUMNS, row, strict=True)))
    finally:
        connection.close()


def _has_key(connection: Any) -> bool:
    keys = connection.execute(
        "SELECT constraint_column_names FROM duckdb_constraints() "
        "WHERE table_name = 'examples' AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')"
    ).fetchall()
    return (["id"],) in keys


def _by_id(connection: Any, columns: str, tasks: list[str], folder: Path) -> Iterator[list[Any]]:
    """The rows in id order, by way of a file in `folder`: DuckDB's own sort would hold every page in memory.

    DuckDB unpacks VECTOR rows to get at any of them, so each vector is read once; the file then gives the rows.
    """
    chosen = f"task IN ({_marks(tasks)})"
    order = connection.execute(f"SELECT rowid FROM examples WHERE {chosen} ORDER BY id", tasks).fetchall()  # noqa: S608
    places: dict[int, tuple[int, int]] = {}
    with tempfile.TemporaryFile(dir=folder) as file:
        for first in range(0, max(order, default=(-1,))[0] + 1, VECTOR):
            query = f"SELECT rowid, {columns} FROM examples WHERE rowid BETWEEN ? AND ? AND {chosen}"  # noqa: S608
            cursor = connection.execute(query, [first, first + VECTOR - 1, *tasks])
            while rows := cursor.fetchmany(READ_ROWS):
                for number, *row in rows:
                    places[number] = (file.tell(), file.write(json.dumps(row).encode()))
        file.flush()
        for (number,) in order:
            start, length = places.pop(number)
            yield json.loads(os.pread(file.fileno(), length, start))


def _sorted(connection: Any, columns: str, tasks: list[str]) -> Iterator[tuple[Any, ...]]:
    """As `_by_id`, of a view, or of a table whose ids may come twice."""
    query = f"SELECT {columns} FROM examples WHERE task IN ({_marks(tasks)}) ORDER BY id"  # noqa: S608 - our own names
    cursor = connection.execute(query, tasks)
    while rows := cursor.fetchmany(READ_ROWS):
        yield from rows


def _marks(values: list[Any]) -> str:
    return ", ".join("?" for _ in values)


def task_counts(path: Path) -> dict[str, int]:
    connection = connect(path, read_only=True)
    try:
        _check_columns(connection, path)
        return dict(connection.execute("SELECT task, count(*) FROM examples GROUP BY task ORDER BY task").fetchall())
    finally:
        connection.close()


def _check_columns(connection: Any, path: Path) -> set[str]:
    found = {
        row[0]
        for row in connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'examples'"
        ).fetchall()
    }
    check_columns(found, path)
    return found


def check_columns(found: Iterable[str], path: Path | str) -> None:
    """Raises Stop 65 when `found`, the columns of the table `examples`, lacks one that the contract requires."""
    found = set(found)
    if not found:
        raise Stop(f"{path} has no table 'examples'. See docs/contracts.md for the columns it needs.", DATA)
    missing = [name for name in COLUMNS if name not in found and name not in OPTIONAL]
    if missing:
        raise Stop(f"{path}: table examples lacks the column {missing[0]!r}. See docs/contracts.md.", DATA)


def _insert(connection: Any, batch: list[Exemplar]) -> None:
    # one statement for the batch: DuckDB's executemany is a round trip per row
    rows: list[dict[str, Any]] = [
        {
            "id": e.id,
            "task": e.task,
            "prompt_text": e.prompt_text,
            # a strong model's answer may be text that is no JSON; the column's type then wants it as a JSON string
            "response_strong": _as_json(e.response_strong),
            "metadata": json.dumps(e.metadata, ensure_ascii=False),
            "slot_specs": None
            if e.slot_specs is None
            else json.dumps({k: v.model_dump() for k, v in e.slot_specs.items()}),
            "system_prompt": e.system_prompt,
        }
        for e in batch
    ]
    names = ", ".join(COLUMNS)
    items = ", ".join(f"json_extract_string(item, '$.{name}')" for name in COLUMNS)
    connection.execute(
        f"INSERT OR REPLACE INTO examples ({names}) "  # noqa: S608 - our own column names
        f"SELECT {items} FROM (SELECT unnest(CAST(? AS JSON[])) AS item)",
        [json.dumps(rows, ensure_ascii=False)],
    )


def _as_json(response: str) -> str:
    """JSON for the column: the answer, or as a string what is no JSON, or JSON that cannot be written as UTF-8."""
    try:
        canonical_json(json.loads(response)).encode()
    except (ValueError, RecursionError):
        return json.dumps(response)
    return response


def _exemplar(row: dict[str, Any]) -> Exemplar | Reject:
    identity = {"id": str(row["id"]), "task": str(row["task"]), "stage": "read"}
    try:
        for name, empty in (("metadata", "{}"), ("slot_specs", "null")):
            row[name] = json.loads(row[name] or empty)
    except ValueError as error:
        return Reject(**identity, reason="malformed_row", detail=f"{name} is not JSON: {error}")
    if not isinstance(row["metadata"], dict):
        return Reject(**identity, reason="malformed_row", detail="metadata is no JSON object")
    try:
        return Exemplar.model_validate(row)
    except ValidationError as error:
        return Reject(**identity, reason="malformed_row", detail=explain(error))


def _batches(items: Iterable[Exemplar]) -> Iterator[list[Exemplar]]:
    batch: list[Exemplar] = []
    chars = 0
    for item in items:
        batch.append(item)
        chars += len(item.prompt_text)
        if len(batch) >= INSERT_ROWS or chars >= INSERT_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
