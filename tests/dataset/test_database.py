import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import database
from potstill.records import Exemplar, Reject
from potstill.stop import BUSY, DATA, Stop

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


def exemplar(id: str, **changes) -> Exemplar:
    row = {"id": id, "task": "t", "prompt_text": "p", "response_strong": "{}", "metadata": {"converted_by": "w"}}
    return Exemplar(**{**row, **changes})


@settings(max_examples=40, deadline=None)
@given(prompt=texts, system=st.none() | texts, note=texts)
def test_rows_come_back_as_they_went_in(tmp_path_factory, prompt, system, note):
    path = tmp_path_factory.mktemp("db") / "x.duckdb"
    row = exemplar("1", prompt_text=prompt, system_prompt=system, metadata={"note": note})
    database.write(path, [row])
    assert list(database.read(path, ["t"])) == [row]


def test_text_that_is_no_json_is_kept_as_a_json_string(tmp_path: Path):
    database.write(
        tmp_path / "x", [exemplar("1", response_strong="Four. Lovely."), exemplar("2", response_strong="7 ")]
    )
    assert [e.response_strong for e in database.read(tmp_path / "x", ["t"])] == ['"Four. Lovely."', "7 "]


def test_a_second_conversion_replaces_its_own_rows_only(tmp_path: Path):
    path = tmp_path / "x"
    database.write(path, [exemplar("theirs", metadata={}), exemplar("old")])
    database.write(path, [exemplar("new")], replace_workload="w")
    assert [e.id for e in database.read(path, ["t"])] == ["new", "theirs"]


def test_a_failing_conversion_writes_nothing(tmp_path: Path):
    path = tmp_path / "x"
    database.write(path, [exemplar("kept")])

    def rows():
        for n in range(5_000):
            yield exemplar(str(n))
        raise Stop("a bad row", DATA)

    with pytest.raises(Stop):
        database.write(path, rows(), replace_workload="w")
    assert [e.id for e in database.read(path, ["t"])] == ["kept"]


def test_a_users_table_needs_no_optional_column_and_may_have_more(tmp_path: Path):
    with duckdb.connect(str(tmp_path / "x")) as connection:
        connection.execute(
            "CREATE TABLE examples AS SELECT 'a' id, 't' task, 'p' prompt_text, '{}' response_strong, 1 extra"
        )
    (row,) = database.read(tmp_path / "x", ["t"])
    assert isinstance(row, Exemplar)
    assert row.metadata == {}


@pytest.mark.parametrize(
    ("column", "value", "detail"),
    [
        ("metadata", "'[1]'", "metadata"),
        ("slot_specs", "'{\"a\": {}}'", "slot_specs.a.level"),
        ("prompt_text", "NULL", "prompt_text"),
    ],
)
def test_a_malformed_row_is_a_reject_that_names_the_key(tmp_path: Path, column: str, value: str, detail: str):
    database.write(tmp_path / "x", [exemplar("1")])
    with duckdb.connect(str(tmp_path / "x")) as connection:
        connection.execute(f"UPDATE examples SET {column} = {value}")
    (row,) = database.read(tmp_path / "x", ["t"])
    assert isinstance(row, Reject)
    assert row.reason == "malformed_row"
    assert detail in row.detail


def test_a_missing_file_table_or_column_is_one_line(tmp_path: Path):
    with pytest.raises(Stop, match="is not there"):
        database.task_counts(tmp_path / "none")
    (tmp_path / "text").write_text("not a database, but long enough to be read as one" * 100)
    with pytest.raises(Stop, match="cannot be opened"):
        database.task_counts(tmp_path / "text")
    with duckdb.connect(str(tmp_path / "empty")) as connection:
        connection.execute("CREATE TABLE other(a INT)")
    with pytest.raises(Stop, match="no table 'examples'"):
        database.task_counts(tmp_path / "empty")
    with duckdb.connect(str(tmp_path / "short")) as connection:
        connection.execute("CREATE TABLE examples(id TEXT, task TEXT, prompt_text TEXT)")
    with pytest.raises(Stop, match="lacks the column 'response_strong'"):
        database.task_counts(tmp_path / "short")


def test_a_database_open_elsewhere_is_busy(tmp_path: Path):
    path = tmp_path / "x.duckdb"
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=-1, stdout=-1)
    holder.stdout.readline()
    try:
        with pytest.raises(Stop, match="open in another process") as stop:
            database.write(path, [exemplar("1")])
        assert stop.value.code == BUSY
    finally:
        holder.communicate()
