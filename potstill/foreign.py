"""Opens somebody else's DuckDB file in a process of its own, under limits, and says what is in it.

Run: python -m potstill.foreign <file>        prints one JSON object and changes nothing
The reader has a limit of memory and time, and no extension, no other file, no network and none of our environment. It
attaches the file beside an empty database, so nothing that the file defines takes the place of a built-in function.
"""

import argparse
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from potstill import database
from potstill.records import Record, parse_row
from potstill.stop import BUSY, DATA, Stop

READER = [sys.executable, "-m", "potstill.foreign"]
MEMORY_MB = 4096
# the interpreter, its libraries and stacks, beyond what DuckDB counts
OVERHEAD_MB = 1536
OUTPUT_BYTES = 4 << 20
HEADERS_BYTES = 3 * 4096
MAX_TASKS = 1000
MAX_TABLES = 100
SHOWN = 200
TEXT_TYPES = re.compile(r"VARCHAR|JSON|ENUM\(.*\)", re.DOTALL)
ID_TYPES = re.compile(TEXT_TYPES.pattern + r"|UUID|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?", re.DOTALL)
SIGNATURES = {b"SQLite format 3": "SQLite", b"PAR1": "Parquet", b"PK\3\4": "zip", b"\x1f\x8b": "gzip", b"{": "JSON"}

AGAIN = "Copy it again, while no program writes it."
COPY_TABLE = (
    "Copy its table alone: ATTACH 'new.duckdb' AS new; CREATE TABLE new.examples AS SELECT * FROM examples; "
    "ALTER TABLE new.examples ADD PRIMARY KEY (id);"
)
# kind: what is the matter, what to do
REFUSALS = {
    "empty": ("holds nothing", "Look for the file that has the rows."),
    "not_duckdb": ("is no DuckDB database", "Name the .duckdb file itself."),
    "truncated": ("is cut off", AGAIN),
    "corrupt": ("is damaged", f"{AGAIN} If that does not help, restore it from a backup."),
    "newer_version": (
        "was written by a newer DuckDB",
        "Copy it there: ATTACH 'new.duckdb' (STORAGE_VERSION 'v1.0.0');",
    ),
    "older_version": ("was written by an old DuckDB", "EXPORT DATABASE with that, IMPORT DATABASE with a newer one."),
    "encrypted": ("is encrypted", f"No key is asked for here. {COPY_TABLE}"),
    "wrong_schema": ("does not keep the contract", "docs/contracts.md has the columns of the table examples."),
    "own_code": ("brings code of its own", COPY_TABLE),
    "open": ("is open in another process", "Wait for it, or end it; then run this again."),
    "unfolded": (
        "has a write-ahead log beside it",
        "End the program that writes it, or run CHECKPOINT; then try again.",
    ),
    "too_slow": ("takes too long to read", COPY_TABLE),
    "too_large": ("needs too much memory to read", "DuckDB reads 2,048 rows at once: store shorter prompts."),
    "reader_crashed": ("makes DuckDB crash", f"It is damaged, or made to do so. {AGAIN}"),
}
# what DuckDB says: kind; the first that fits
SIGNS = {
    "created with a newer": "newer_version",
    "we can only read storage versions": "older_version",
    "Cannot open encrypted": "encrypted",
    "Could not set lock": "open",
    "not a valid DuckDB database": "not_duckdb",
    "Could not read": "truncated",
}


class Refused(Stop):
    """A file that is not used; `kind` is a key of REFUSALS."""

    def __init__(self, kind: str, shown: Path | str, detail: str):
        what, mend = REFUSALS[kind]
        code = BUSY if kind in ("open", "unfolded") else DATA
        super().__init__(f"{shown} {what} ({detail}). {mend}", code)
        self.kind, self.detail = kind, detail


class Inspection(Record):
    """What a readable file holds: the tables of its schema main; of `examples` the columns with their types, whether
    it has a primary key, and its rows by task."""

    storage_version: str
    tables: list[str]
    columns: dict[str, str]
    primary_key: bool
    rows: dict[str, int]


def inspect(
    path: Path, shown: Path | str | None = None, memory_mb: int | None = None, seconds: float | None = None
) -> Inspection:
    """Reads every row of `examples` in another process. `shown` is the file's name in messages.

    `seconds` limits the reader's CPU time, and its wall time to three times as much; it grows with the file.
    Raises Refused (65, or 75 for a file that is being written) when the file breaks docs/contracts.md, cannot be read,
    or not within the limits.
    """
    path, shown = Path(path), shown or path
    if not path.is_file():
        raise Stop(f"{shown} is not there, or is no file. Name the .duckdb file itself.", DATA)
    check_header(path, shown)
    wal = path.with_name(path.name + ".wal")
    if wal.exists() and wal.stat().st_size:
        raise Refused("unfolded", shown, wal.name)
    # measured: 250 MB of file in a second of CPU time
    seconds = seconds or 60 + path.stat().st_size / 10e6
    answer = _ask_reader(path, shown, memory_mb or _memory_mb(), seconds)
    if answer.get("refused") in REFUSALS:
        raise Refused(answer["refused"], shown, printable(str(answer["detail"])))
    return parse_row(json.dumps(answer), Inspection, f"the reader of {shown}", "Run this again.")


def check_header(path: Path, shown: Path | str) -> None:
    """Refuses what the first 12 KB and the length of a file give away.

    DuckDB's storage, numbers little-endian: a main header (checksum u64, "DUCK", version u64, ...) and two database
    headers (checksum, iteration, meta_block, free_list, block_count, block_size: u64 each; the higher iteration
    counts) of 4,096 bytes each, then blocks.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(HEADERS_BYTES)
    if not head:
        raise Refused("empty", shown, "0 bytes")
    if head[8:12] != b"DUCK":
        looks = [what for start, what in SIGNATURES.items() if head.lstrip().startswith(start)]
        raise Refused("not_duckdb", shown, f"it looks like {looks[0]}" if looks else "it does not begin like one")
    if len(head) < HEADERS_BYTES:
        raise Refused("truncated", shown, f"{size} bytes, its headers alone have {HEADERS_BYTES}")
    _, block_size = max(struct.unpack_from("<Q24xQ", head, start + 8) for start in (4096, 8192))
    if block_size in {1 << power for power in range(14, 19)} and (size - HEADERS_BYTES) % block_size:
        raise Refused("truncated", shown, f"{size} bytes end within a block of {block_size}")


def printable(text: str) -> str:
    """Text from a foreign file for a screen: one line, short, without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _memory_mb() -> int:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return min(MEMORY_MB, physical * 6 // 10)


def _ask_reader(path: Path, shown: Path | str, memory_mb: int, seconds: float) -> dict[str, Any]:
    # RLIMIT_CPU counts whole seconds
    limits = [f"--memory-mb={memory_mb}", f"--seconds={max(1, round(seconds))}"]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as output:
        # DuckDB looks for secrets and extensions in the home folder
        environment = {
            **kept,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "HOME": home,
            "LC_ALL": "C.UTF-8",
        }
        process = subprocess.Popen(
            [*READER, *limits, "--", str(path.resolve())],
            cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            code = process.wait(timeout=3 * seconds)
        except subprocess.TimeoutExpired:
            raise Refused("too_slow", shown, f"more than {3 * seconds:.0f} s") from None
        finally:
            process.kill()
            process.wait()
        if code == -signal.SIGXCPU:
            raise Refused("too_slow", shown, f"more than {seconds:.0f} s of CPU time")
        output.seek(0)
        try:
            answer = json.loads(output.read(OUTPUT_BYTES))
        except ValueError:
            answer = None
        if code or not isinstance(answer, dict):
            end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise Refused("reader_crashed", shown, f"the reader ended with {end}")
        return answer


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="for DuckDB (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=600, help="of CPU time (default: %(default)s)")
    arguments = parser.parse_args(argv)
    limits = {"AS": (arguments.memory_mb + OVERHEAD_MB) << 20, "FSIZE": OUTPUT_BYTES, "CORE": 0, "NOFILE": 64}
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    # past the first of the two the process is asked to end, past the second it is killed
    resource.setrlimit(resource.RLIMIT_CPU, (arguments.seconds, arguments.seconds + 5))
    try:
        answer = read(arguments.path, arguments.memory_mb)
    except Refused as refused:
        answer = {"refused": refused.kind, "detail": refused.detail}
    print(json.dumps(answer))


def read(path: Path, memory_mb: int) -> dict[str, Any]:
    """What Inspection has, read in this process. Raises Refused."""
    import duckdb

    try:
        connection = _attach(duckdb, path, memory_mb)
        _check_code(connection, path)
        columns = _columns(connection, path)
        rows = _count(connection, path, [name for name in database.COLUMNS if name in columns])
        _check_length(connection, path)
        query = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = 'arrived'"
        [(version,)] = connection.execute(query).fetchall()
        query = (
            "SELECT count(*) FROM duckdb_constraints() WHERE database_name = 'arrived' AND schema_name = 'main' "
            "AND table_name = 'examples' AND constraint_type = 'PRIMARY KEY' AND constraint_column_names = ['id']"
        )
        [(keys,)] = connection.execute(query).fetchall()
        tables = _names(connection, "table")[:MAX_TABLES]
    except (duckdb.Error, MemoryError) as error:
        raise _refusal(error, path) from None
    found = {"storage_version": str(version), "tables": tables, "columns": columns}
    return {**found, "primary_key": keys > 0, "rows": rows}


def _attach(duckdb: Any, path: Path, memory_mb: int) -> Any:
    quoted = str(path).replace("'", "''")
    limits = {"threads": "1", "memory_limit": f"{memory_mb}MB", "temp_directory": ""}
    extensions = {name: database.SAFE[name] for name in database.SAFE if "extensions" in name}
    connection = duckdb.connect(":memory:", config=limits | extensions)
    # DuckDB asks for the log even where there is none
    connection.execute(f"SET allowed_paths = ['{quoted}', '{quoted}.wal']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    connection.execute(f"ATTACH '{quoted}' AS arrived (READ_ONLY, TYPE duckdb)")
    return connection


def _names(connection: Any, what: str) -> list[str]:
    """The names of all tables, views, functions or triggers (`what`, singular) in the file's schema main."""
    query = f"SELECT {what}_name FROM duckdb_{what}s() WHERE database_name = 'arrived' AND schema_name = 'main'"  # noqa: S608
    # triggers have no such column
    query += " AND NOT internal" if what != "trigger" else ""
    return sorted(name for (name,) in connection.execute(query).fetchall())


def _check_code(connection: Any, path: Path) -> None:
    # a macro can stand in for a function that our statements call, a trigger runs when rows are added
    for what, shown in (("function", "macro"), ("trigger", "trigger")):
        for name in _names(connection, what)[:1]:
            raise Refused("own_code", path, f"the {shown} {printable(name)}")
    if "examples" in _names(connection, "view"):
        raise Refused("wrong_schema", path, "examples is a view, want a table")


def _columns(connection: Any, path: Path) -> dict[str, str]:
    found = connection.execute(
        "SELECT column_name, data_type, is_generated FROM duckdb_columns() WHERE database_name = 'arrived' "
        "AND schema_name = 'main' AND table_name = 'examples' ORDER BY column_index"
    ).fetchall()
    try:
        database.check_columns([name for name, _, _ in found], "it")
    except Stop as stop:
        raise Refused("wrong_schema", path, str(stop).removeprefix("it: ").partition(". ")[0]) from None
    for name, kind, generated in found:
        wanted = ID_TYPES if name == "id" else TEXT_TYPES
        if name in database.COLUMNS and generated:
            raise Refused("wrong_schema", path, f"the column {name} is generated, want stored values")
        if name in database.COLUMNS and not wanted.fullmatch(kind):
            raise Refused(
                "wrong_schema", path, f"the column {name} is {printable(kind)}, want {database.COLUMNS[name]}"
            )
    return {name: kind for name, kind, _ in found}


def _count(connection: Any, path: Path, columns: list[str]) -> dict[str, int]:
    """The rows by task. Hashes every value of `columns`, so that DuckDB compares the checksums on the way to them."""
    hashes = ", ".join(f"bit_xor(hash({name}))" for name in columns)
    # the names are our own constants
    query = (
        f"SELECT CAST(task AS VARCHAR), count(*), {hashes} FROM arrived.main.examples GROUP BY 1 LIMIT {MAX_TASKS + 1}"  # noqa: S608
    )
    rows = {str(task): count for task, count, *_ in connection.execute(query).fetchall()}
    if not rows:
        raise Refused("empty", path, "its table examples has no rows")
    if len(rows) > MAX_TASKS:
        raise Refused("wrong_schema", path, f"more than {MAX_TASKS} different values in task, want names of tasks")
    [(ids,)] = connection.execute("SELECT count(DISTINCT id) FROM arrived.main.examples").fetchall()
    if ids < sum(rows.values()):
        raise Refused("wrong_schema", path, f"{sum(rows.values()) - ids} rows without an id or with that of another")
    return dict(sorted(rows.items()))


def _check_length(connection: Any, path: Path) -> None:
    # a whole file can be shorter than its header says: free blocks at its end need not have been written
    query = "SELECT block_size, used_blocks FROM pragma_database_size() WHERE database_name = 'arrived'"
    [(block_size, used)] = connection.execute(query).fetchall()
    size, wanted = path.stat().st_size, HEADERS_BYTES + block_size * used
    if size < wanted:
        raise Refused("truncated", path, f"{size} bytes, its used blocks have {wanted}")


def _refusal(error: Exception, path: Path) -> Refused:
    """What an error of DuckDB means. Its words are passed on where they cannot hold a value of a row."""
    text, name = str(error), type(error).__name__
    if name in ("OutOfMemoryException", "MemoryError"):
        return Refused("too_large", path, "more than the reader may use")
    kind = next((kind for sign, kind in SIGNS.items() if sign in text), "corrupt")
    if versions := re.search(r"version number (\d+), but we can only read \w+ \w+ (between \d+ and \d+)", text):
        return Refused(kind, path, f"storage version {versions[1]}; the DuckDB here reads those {versions[2]}")
    # a name in quotes is that of the file while it is read, not the one the user knows
    plain = re.sub(r'\s*"[^"]*"', "", text.partition("\n")[0]) if name in ("IOException", "Error") else name
    return Refused(kind, path, plain)


if __name__ == "__main__":
    main()
