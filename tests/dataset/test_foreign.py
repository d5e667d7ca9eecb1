"""Broken and hostile DuckDB files: each opens with the right rows, or is refused by name and changes nothing."""

import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from potstill import database, foreign
from potstill.foreign import Refused
from potstill.records import Exemplar
from potstill.stop import BUSY, DATA, Stop
from scripts.dataset import pull

HEADERS, BLOCK = 3 * 4096, 16384
ROW = "SELECT 'a' AS id, 't' AS task, 'p' AS prompt_text, '{}' AS response_strong"
PRIVATE = "do not read me"


def make(path: Path, *statements: str) -> Path:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database of 400 rows in twelve blocks of 16 KiB."""
    path = tmp_path_factory.mktemp("whole") / "x.duckdb"
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS x (BLOCK_SIZE {BLOCK})")
        columns = ", ".join(f"{name} {kind}" for name, kind in database.COLUMNS.items())
        connection.execute(f"CREATE TABLE x.examples({columns})")
        text = "(SELECT string_agg(md5((i * 7919 + j)::TEXT), '') FROM range(i % 40 + 1) AS u(j))"
        connection.execute(
            f"INSERT INTO x.examples SELECT i::TEXT, 't' || (i % 3), {text}, '{{}}', '{{}}', NULL, NULL "
            "FROM range(400) AS t(i)"
        )
    return path.read_bytes()


def rows(path: Path) -> list[tuple]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute("SELECT * FROM examples ORDER BY id").fetchall()


def refusal(path: Path, **limits) -> Refused:
    with pytest.raises(Refused) as refused:
        foreign.inspect(path, **limits)
    # every refusal names the file and ends with what to do
    assert str(refused.value).startswith(str(path))
    assert str(refused.value).endswith((".", ";"))
    assert "\n" not in str(refused.value)
    return refused.value


def checksum(block: bytes) -> int:
    """DuckDB's own of a block or header: 5381 xor each word times a constant, 64 bits wide."""
    result = 5381
    for word in struct.unpack(f"<{len(block) // 8}Q", block):
        result ^= word * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    return result


def edited(data: bytes, start: int, length: int, changes: dict[int, bytes]) -> bytes:
    """`data` with changes at offsets within its block at `start`, whose checksum then fits again."""
    block = bytearray(data[start : start + length])
    for offset, new in changes.items():
        block[offset : offset + len(new)] = new
    block[:8] = struct.pack("<Q", checksum(bytes(block[8:])))
    return data[:start] + bytes(block) + data[start + length :]


def mutants(data: bytes) -> dict[str, bytes]:
    """Cut at headers, within blocks and between blocks; with bytes changed in headers and blocks."""
    chance = random.Random(7)
    blocks = (len(data) - HEADERS) // BLOCK
    cuts = [1, 4096, 9000, HEADERS - 1, HEADERS, len(data) - 1, len(data) // 2]
    cuts += [HEADERS + BLOCK * number for number in (1, blocks // 2, blocks - 1)]
    made = {f"cut at {cut}": data[:cut] for cut in cuts}
    for name, low, high in (("header", 0, 4096), ("header", 4096, HEADERS), ("block", HEADERS, len(data))):
        for _ in range(7 if name == "header" else 10):
            # most of a header is padding, which no checksum needs to cover
            offset = chance.randrange(low, high if name == "block" else low + 128)
            changed = bytes([data[offset] ^ chance.randrange(1, 256)])
            made[f"{name} byte at {offset}"] = data[:offset] + changed + data[offset + 1 :]
    noise = chance.randbytes(BLOCK)
    for number in (0, blocks // 2, blocks - 1):
        start = HEADERS + BLOCK * number
        made[f"noise in block {number}"] = data[:start] + noise + data[start + BLOCK :]
        made[f"block {number} of zeros"] = data[:start] + bytes(BLOCK) + data[start + BLOCK :]
    return made


def test_a_whole_file_is_described(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'it\'s "x".duckdb'
    path.write_bytes(whole)
    found = foreign.inspect(path)
    assert found.rows == {"t0": 134, "t1": 133, "t2": 133}
    assert found.columns["metadata"] == "JSON"
    assert list(found.columns) == list(database.COLUMNS)
    assert (found.tables, found.primary_key) == (["examples"], True)
    assert found.storage_version.startswith("v")
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == [path.name]


def test_forty_broken_files_keep_their_rows_or_are_refused(whole: bytes, project_folder: Path) -> None:
    target, broken = pull.project.database(), project_folder / "broken.duckdb"
    database.write(target, [Exemplar(id="mine", task="t", prompt_text="p", response_strong="{}")])
    present = target.read_bytes()
    broken.write_bytes(whole)
    right = rows(broken)
    kinds = []
    for name, data in mutants(whole).items():
        broken.write_bytes(data)
        kind = None
        try:
            pull.main(["--source", str(broken)])
        except Refused as refused:
            kind = refused.kind
        kinds.append(kind or "right")
        if kind:
            assert target.read_bytes() == present, name
        else:
            assert rows(target) == right, name
            target.write_bytes(present)
    assert len(kinds) >= 40
    assert kinds.count("truncated") >= 9
    assert kinds.count("corrupt") >= 15
    assert set(kinds) <= {"right", "truncated", "corrupt", "not_duckdb", "newer_version", "older_version", "encrypted"}


def test_damage_under_a_right_checksum_does_not_crash_us(whole: bytes, tmp_path: Path) -> None:
    chance = random.Random(11)
    path = tmp_path / "x.duckdb"
    ends = set()
    for number in range(6):
        start = HEADERS + BLOCK * (number * 2)
        changes = {chance.randrange(8, BLOCK): bytes([chance.randrange(256)]) for _ in range(400)}
        path.write_bytes(edited(whole, start, BLOCK, changes))
        try:
            ends.add(foreign.inspect(path).storage_version)
        except Refused as refused:
            ends.add(refused.kind)
    assert ends & set(foreign.REFUSALS)


@pytest.mark.parametrize(
    ("start", "changes", "kind", "said"),
    [
        (0, {12: struct.pack("<Q", 70)}, "newer_version", "storage version 70"),
        (0, {12: struct.pack("<Q", 12345)}, "newer_version", "storage version 12345"),
        (0, {12: struct.pack("<Q", 39)}, "older_version", "EXPORT DATABASE"),
        (0, {20: b"\1"}, "encrypted", "No key is asked for"),
        (0, {8: b"duck"}, "not_duckdb", "does not begin like one"),
        (4096, {56: struct.pack("<Q", 4000)}, "newer_version", "storage version 4000"),
        (4096, {40: struct.pack("<Q", 12345)}, "corrupt", "is damaged"),
    ],
)
def test_edited_headers(start: int, changes: dict, kind: str, said: str, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    active = max((4096, 8192), key=lambda offset: struct.unpack_from("<Q", whole, offset + 8))
    path.write_bytes(edited(whole, active if start else 0, 4096, changes))
    refused = refusal(path)
    assert (refused.kind, refused.code) == (kind, DATA)
    assert said in str(refused)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET force_mbedtls_unsafe = 'true'")
        connection.execute(f"ATTACH '{tmp_path}/encrypted' AS x (ENCRYPTION_KEY 'k')")
        connection.execute(f"CREATE TABLE x.examples AS {ROW}")
        connection.execute(f"COPY (SELECT 1) TO '{tmp_path}/parquet' (FORMAT parquet)")
    with sqlite3.connect(tmp_path / "sqlite") as connection:
        connection.execute("CREATE TABLE examples(id TEXT)")
    (tmp_path / "json").write_text(json.dumps({"id": 1}) * 5000)
    (tmp_path / "nothing").touch()
    (tmp_path / "log").write_text("a line\n")
    ends = {name: refusal(tmp_path / name) for name in ("encrypted", "parquet", "sqlite", "json", "nothing", "log")}
    assert {name: end.kind for name, end in ends.items()} == {
        "encrypted": "encrypted", "parquet": "not_duckdb", "sqlite": "not_duckdb", "json": "not_duckdb",
        "nothing": "empty", "log": "not_duckdb",
    }  # fmt: skip
    assert [word in str(ends[word.lower()]) for word in ("SQLite", "Parquet", "JSON")] == [True] * 3
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(Stop, match="is not there, or is no file"):
            foreign.inspect(missing)


@pytest.mark.parametrize(
    ("statements", "kind", "said"),
    [
        (["CREATE TABLE other(a INT)"], "wrong_schema", "no table 'examples'"),
        ([f"CREATE SCHEMA s; CREATE TABLE s.examples AS {ROW}"], "wrong_schema", "no table 'examples'"),
        (["CREATE TABLE examples AS SELECT 'a' id, 't' task"], "wrong_schema", "lacks the column 'prompt_text'"),
        ([f"CREATE TABLE examples AS {ROW}, {{'k': 1}} AS metadata"], "wrong_schema", "want JSON"),
        ([f"CREATE TABLE examples AS {ROW}", "DELETE FROM examples"], "empty", "no rows"),
        ([f"CREATE TABLE examples AS {ROW}", f"INSERT INTO examples {ROW}"], "wrong_schema", "1 rows without an id"),
        ([f"CREATE TABLE examples AS {ROW} FROM range(1)", "UPDATE examples SET id = NULL"], "wrong_schema", "an id"),
        (
            [f"CREATE TABLE examples AS SELECT * REPLACE (i AS id, i::TEXT AS task) FROM ({ROW}), range(2000) t(i)"],
            "wrong_schema",
            "names of tasks",
        ),
        ([f"CREATE VIEW examples AS {ROW}"], "wrong_schema", "is a view"),
        (
            ["CREATE TABLE examples(id TEXT, task TEXT, response_strong JSON, prompt_text TEXT AS (task || id))"],
            "wrong_schema",
            "prompt_text is generated",
        ),
        ([f"CREATE TABLE examples AS {ROW}", "CREATE MACRO count(x) AS 7"], "own_code", "the macro count"),
        ([f"CREATE TABLE examples AS {ROW}", "CREATE MACRO f(x) AS TABLE SELECT x"], "own_code", "the macro f"),
        (
            [f"CREATE TABLE examples AS {ROW}", "CREATE TABLE log(a TEXT)",
             "CREATE TRIGGER g AFTER INSERT ON examples FOR EACH STATEMENT INSERT INTO log VALUES ('x')"],
            "own_code",
            "the trigger g",
        ),
    ],
)  # fmt: skip
def test_tables_that_break_the_contract(statements: list[str], kind: str, said: str, tmp_path: Path) -> None:
    refused = refusal(make(tmp_path / "x.duckdb", *statements))
    assert (refused.kind, refused.code) == (kind, DATA)
    assert said in str(refused)


def test_no_code_of_a_file_reads_another_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(PRIVATE)
    reading = f"(SELECT content FROM read_text('{secret}'))"
    view = make(tmp_path / "view", "CREATE VIEW examples AS " + ROW.replace("'p'", reading))
    assert refusal(view).kind == "wrong_schema"
    # what the project's own statements call, replaced by the file
    macro = f"CREATE MACRO json_extract_string(a, b) AS {reading}"
    shadow = make(tmp_path / "shadow", f"CREATE TABLE examples AS {ROW}", macro)
    assert refusal(shadow).kind == "own_code"
    with duckdb.connect(str(shadow)) as connection:
        assert connection.execute("SELECT json_extract_string('{}', '$.a')").fetchall() == [(PRIVATE,)]
    # nor when such a file is the project's database, put there by hand
    for path in (view, shadow):
        with pytest.raises(duckdb.Error, match="disabled by configuration"):
            connection = database.connect(path, read_only=True)
            connection.execute("SELECT prompt_text, json_extract_string('{}', '$.a') FROM examples").fetchall()
        with pytest.raises(duckdb.Error, match="configuration"):
            connection.execute("SET enable_external_access = true")
        connection.close()


def test_the_reader_reaches_no_other_file_and_no_extension(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    path.write_bytes(whole)
    (tmp_path / "secret.txt").write_text(PRIVATE)
    connection = foreign._attach(duckdb, path, 512)
    for statement in (
        f"SELECT * FROM read_text('{tmp_path}/secret.txt')",
        f"ATTACH '{tmp_path}/other.duckdb'",
        f"COPY arrived.main.examples TO '{tmp_path}/out.csv'",
        "LOAD httpfs",
        "INSTALL httpfs",
        "SET allowed_paths = ['/']",
        "DELETE FROM arrived.main.examples",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(statement)
    connection.close()
    assert sorted(os.listdir(tmp_path)) == ["secret.txt", "x.duckdb"]


def test_a_users_own_table_is_taken_as_it_is(tmp_path: Path) -> None:
    path = make(
        tmp_path / "x.duckdb",
        "CREATE TYPE kinds AS ENUM ('t', 'u')",
        "CREATE TABLE examples AS SELECT 7 id, 't'::kinds task, 'p' prompt_text, '{}'::JSON response_strong, 1.5 cost",
        "CREATE VIEW recent AS SELECT * FROM examples",
    )
    found = foreign.inspect(path)
    assert (found.rows, found.primary_key) == ({"t": 1}, False)


def test_a_whole_file_may_be_shorter_than_its_header_says(tmp_path: Path) -> None:
    path = make(
        tmp_path / "x.duckdb",
        "SET threads = 1",
        f"CREATE TABLE examples AS {ROW}",
        "CHECKPOINT",
        "CREATE TABLE large AS SELECT md5(i::TEXT) FROM range(300000) t(i)",
        "DROP TABLE large",
        "CHECKPOINT",
    )
    data = path.read_bytes()
    _, blocks, size = max(struct.unpack_from("<Q16xQQ", data, start + 8) for start in (4096, 8192))
    assert HEADERS + blocks * size > len(data)
    assert foreign.inspect(path).rows == {"t": 1}


def test_what_is_being_written_is_busy(tmp_path: Path) -> None:
    path = make(tmp_path / "x.duckdb", f"CREATE TABLE examples AS {ROW}")
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=-1, stdout=-1)
    holder.stdout.readline()
    try:
        refused = refusal(path)
        assert (refused.kind, refused.code) == ("open", BUSY)
    finally:
        holder.communicate()
    (tmp_path / "x.duckdb.wal").write_bytes(b"x")
    assert (refusal(path).kind, refusal(path).code) == ("unfolded", BUSY)


def reader(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """The real reader with `body` in the place of its work."""
    code = f"import os, sys, time\nfrom potstill import foreign\ndef read(path, memory_mb):\n    {body}\n"
    monkeypatch.setattr(foreign, "READER", [sys.executable, "-c", f"{code}foreign.read = read\nforeign.main()"])


def test_a_reader_without_end_or_measure_is_ended(whole: bytes, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "x.duckdb"
    path.write_bytes(whole)
    for body, seconds, kind in (
        ("while True: pass", 1, "too_slow"),
        ("time.sleep(600)", 0.5, "too_slow"),
        ("bytearray(8 << 30)", 30, "reader_crashed"),
        (f"os.kill(os.getpid(), {int(signal.SIGSEGV)})", 30, "reader_crashed"),
        ("print('no JSON'); sys.exit()", 30, "reader_crashed"),
        ("print('[1]'); sys.exit()", 30, "reader_crashed"),
        ("print('x' * (5 << 20))", 30, "reader_crashed"),
        ("return {'rows': 7}", 30, None),
    ):
        reader(monkeypatch, body)
        with pytest.raises(Stop) as stop:
            foreign.inspect(path, seconds=seconds, memory_mb=256)
        assert getattr(stop.value, "kind", None) == kind, body
        assert str(path) in str(stop.value)
        assert stop.value.code == DATA
    assert path.read_bytes() == whole


def test_the_reader_gets_nothing_of_our_environment(whole: bytes, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "x.duckdb"
    path.write_bytes(whole)
    monkeypatch.setenv("OPENAI_API_KEY", PRIVATE)
    reader(monkeypatch, "raise foreign.Refused('corrupt', path, ' '.join([*os.environ, *os.environ.values()]))")
    refused = refusal(path)
    assert "HOME" in str(refused)
    assert PRIVATE not in str(refused)
    assert str(Path.home()) not in refused.detail.split()


def test_values_too_large_for_the_reader(tmp_path: Path) -> None:
    values = (
        "SELECT i::TEXT id, 't' task, repeat(md5(i::TEXT), 900) prompt_text, '{}' response_strong FROM range(3000) t(i)"
    )
    refused = refusal(make(tmp_path / "x.duckdb", f"CREATE TABLE examples AS {values}"), memory_mb=30)
    assert refused.kind == "too_large"


def test_names_in_a_file_cannot_write_on_the_screen(tmp_path: Path) -> None:
    path = make(tmp_path / "x.duckdb", f"CREATE TABLE examples AS {ROW}", 'CREATE MACRO "a\x1b[2J\nb"() AS 1')
    assert "\x1b" not in str(refusal(path))
    assert foreign.printable("a\x1b[2J\nb\u202e") == "a [2J b "
    assert len(foreign.printable("x" * 10_000)) < 300
