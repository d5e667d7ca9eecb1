import json
from pathlib import Path

import pytest

from potstill.records import Example, Reject, SlotSpec, read_jsonl, write_jsonl
from potstill.stop import DATA, Stop

ROW = {
    "id": "1",
    "task": "t1_parse",
    "system": "",
    "prompt": "slow deck",
    "response": "{}",
    "slots": {"a": {"level": "exact"}},
    "metadata": {"group": "g"},
    "schema_version": "1",
    "source_sha256": "0",
}


def write(path: Path, *rows: dict | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_rows_come_back_as_they_were_written(tmp_path: Path):
    rows = [Example(**{**ROW, "slots": {"a": SlotSpec(level="exact", tolerance=0.1)}, "prompt": "ü \u2028 \n"})]
    assert write_jsonl(tmp_path / "a.jsonl", rows) == 1
    assert list(read_jsonl(tmp_path / "a.jsonl", Example)) == rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "extra": 1}, "line 2: extra: Extra inputs are not permitted"),
        ({k: v for k, v in ROW.items() if k != "prompt"}, "line 2: prompt: Field required"),
        ({**ROW, "prompt": 7}, "line 2: prompt: Input should be a valid string"),
        ({**ROW, "slots": {"a": {"levle": "exact"}}}, "line 2: slots.a.level: Field required"),
        ("{not json", "line 2: not JSON"),
    ],
)
def test_a_broken_row_is_named_by_file_line_and_key(tmp_path: Path, row, message: str):
    path = write(tmp_path / "clean.jsonl", ROW, row)
    with pytest.raises(Stop, match=r"clean\.jsonl") as stop:
        list(read_jsonl(path, Example, "Run fab dataset.clean."))
    assert message in str(stop.value)
    assert str(stop.value).endswith("Run fab dataset.clean.")
    assert stop.value.code == DATA


def test_an_error_never_shows_the_value(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {**ROW, "prompt": ["sk-secret"]})
    with pytest.raises(Stop) as stop:
        list(read_jsonl(path, Example))
    assert "sk-secret" not in str(stop.value)


def test_a_reason_is_a_stable_code(tmp_path: Path):
    row = {"id": "1", "task": "t", "stage": "clean", "reason": "Not a code!", "detail": ""}
    with pytest.raises(Stop, match="reason"):
        list(read_jsonl(write(tmp_path / "a.jsonl", row), Reject))


def test_a_missing_file_says_what_writes_it(tmp_path: Path):
    with pytest.raises(Stop, match=r"none\.jsonl is not there\. Run fab dataset\.clean\."):
        list(read_jsonl(tmp_path / "none.jsonl", Example, "Run fab dataset.clean."))
