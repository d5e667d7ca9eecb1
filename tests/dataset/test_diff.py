import random
from pathlib import Path

import handmade
import pytest
from handmade import example
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import project
from potstill.leaves import ABSENT
from potstill.stop import DATA, USAGE, Stop
from scripts.dataset import diff, takedown


@pytest.fixture
def shop(project_folder: Path) -> Path:
    same = [example(f"same{n}") for n in range(5)]
    handmade.snapshot(
        "v1",
        [*same, example("moves"), example("gone"), example("size", size="small"), example("prompt", "before")],
        [example("v", prices=(1, 2))],
        [example("t", language="en")],
    )
    handmade.snapshot(
        "v2",
        [*reversed(same), example("size", size="<b>`large`|"), example("prompt", "after"), example("new")],
        [example("v", prices=(1, 3, 4))],
        [example("t", language="de"), example("moves")],
    )
    return project_folder


def report(*arguments: str) -> str:
    diff.main(["-w", "batfit", *arguments])
    (path,) = project.reports("batfit").glob("diff_*.md")
    return path.read_text()


def test_added_removed_moved_and_changed_rows_are_counted_by_split(shop: Path, capsys):
    text = report()
    assert "| rows before | 9 | 1 | 1 |" in text
    assert "| removed | 1 | 0 | 0 |" in text
    assert "| moved out | 1 | 0 | 0 |" in text
    assert "| added | 1 | 0 | 0 |" in text
    assert "| moved in | 0 | 0 | 1 |" in text
    assert "| rows after | 8 | 1 | 2 |" in text
    assert "| changed | 2 | 1 | 1 |" in text
    assert "- train to test, 1: `moves`" in text
    assert "**1 rows moved into or out of train**" in text
    out = capsys.readouterr().out
    assert "v1 to v2: 1 added, 1 removed, 1 moved, 4 changed" in out
    assert "diff_v1_v2.md" in out


def test_answers_are_compared_slot_by_slot(shop: Path):
    text = report()
    assert "| size | 1 | 0 | 0 |" in text
    # two prices of one row differ: one row
    assert "| items\\[\\].price | 0 | 1 | 0 |" in text
    assert "- `v` `items[1].price`: `2` to `3`" in text
    assert "| prompt | 1 | 0 | 0 |" in text
    assert "| metadata | 0 | 0 | 1 |" in text


def test_values_cannot_break_out_of_the_report(shop: Path):
    text = report()
    (line,) = [line for line in text.splitlines() if line.startswith("- `size` ")]
    assert line == '- `size` `size`: `"small"` to ``"<b>`large`|"``'


def test_the_order_of_rows_is_no_change_and_a_version_equals_itself(shop: Path):
    text = report("--from", "v1", "--to", "v1")
    assert "| changed | 0 | 0 | 0 |" in text
    assert "same" not in text
    assert "##" not in text


def test_the_report_is_the_same_every_time(shop: Path):
    assert report() == report("--old", "v1", "--new", "v2")


def test_an_edited_snapshot_is_refused_by_name(shop: Path):
    path = handmade.processed("test.v2.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"de"', b'"fr"'))
    with pytest.raises(Stop, match=r"test\.v2\.jsonl was changed") as stop:
        diff.main(["-w", "batfit"])
    assert stop.value.code == DATA


def test_versions_that_cannot_be_compared_are_one_line(shop: Path):
    with pytest.raises(Stop, match=r"no snapshot 'v7'\. Known: v1, v2") as stop:
        diff.main(["-w", "batfit", "--to", "v7"])
    assert stop.value.code == USAGE
    with pytest.raises(Stop, match="want 2") as stop:
        diff.main(["-w", "batfit", "--to", "v1"])
    assert stop.value.code == DATA


def test_a_withdrawn_version_is_not_one_of_the_two_newest(shop: Path):
    takedown.main(["-w", "batfit", "--id", "new"])
    # v3 came of v2, which is withdrawn
    text = report()
    assert "snapshot v1 to v3" in text
    assert "`new`" not in text


leaves = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["a", "b", 1.0])
answers = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(answers, answers)
def test_leaves_differ_when_and_only_when_the_answers_do(old, new):
    changes = list(diff.leaf_changes(old, new))
    assert bool(changes) == (diff.text(old) != diff.text(new) and shape(old) != shape(new))
    assert all(
        before is ABSENT or after is ABSENT or before != after or type(before) is not type(after)
        for *_, before, after in changes
    )


def shape(value):
    """Values told apart by type, objects without the order of their keys."""
    if isinstance(value, dict):
        return ("object", frozenset((key, shape(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("list", tuple(map(shape, value)))
    return (type(value).__name__, value)


def test_rows_before_and_after_add_up(shop: Path):
    rng = random.Random(5)
    for name in ("v3", "v4"):
        chosen = [example(f"r{n}", size=rng.choice("ab")) for n in rng.sample(range(40), 30)]
        handmade.snapshot(name, chosen[:20], chosen[20:25], chosen[25:])
    lines = [line.strip("| ").split(" | ") for line in report().splitlines() if line.startswith("| ")]
    cells = {name: list(map(int, numbers)) for name, *numbers in lines if numbers and numbers[0].isdecimal()}
    assert sum(cells["removed"]) == sum(cells["added"]) > 0
    assert sum(cells["moved out"]) == sum(cells["moved in"]) > 0
    for n in range(3):
        left = cells["rows before"][n] - cells["removed"][n] - cells["moved out"][n]
        assert left + cells["added"][n] + cells["moved in"][n] == cells["rows after"][n]
