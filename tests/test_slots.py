"""potstill/slots.py and leaves.py: what each level accepts, and the laws every level keeps."""

import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill import slots
from potstill.leaves import ABSENT, leaf, pairs
from potstill.slots import score
from potstill.stop import Stop

LEVELS = ["exact", "substring", "numeric_tol", "set_match", "date_norm", "llm_similarity"]
CONFIG = Path(__file__).parents[1] / "configs" / "judge_slots.yaml"

numbers = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
dates = st.dates(min_value=datetime.date(1, 1, 1))
own_values = {
    "exact": values,
    "substring": st.text(),
    "numeric_tol": numbers,
    "set_match": st.lists(values, max_size=5),
    "date_norm": dates.map(str),
    "llm_similarity": values,
}


def outcome(*arguments, **options):
    found = score(*arguments, **options)
    return found.score if found.status == "scored" else "error"


@pytest.mark.parametrize(
    ("level", "reference", "candidate", "options", "want"),
    [
        ("exact", "slow", "slow", {}, 1),
        ("exact", "slow", "Slow", {}, 0),
        ("exact", "slow", "slow ", {}, 0),
        ("exact", 1, True, {}, 0),
        ("exact", False, 0, {}, 0),
        ("exact", 1, 1.0, {}, 1),
        ("exact", 1, "1", {}, 0),
        ("exact", [1, {"a": True}], [1, {"a": 1}], {}, 0),
        ("exact", {"a": 1, "b": 2}, {"b": 2, "a": 1}, {}, 1),
        ("exact", [1, 2], [2, 1], {}, 0),
        ("exact", 10**400, 10**400, {}, 1),
        ("substring", "light pickup", "wants a light pickup, please", {}, 1),
        ("substring", "light pickup", "light", {}, 0),
        ("substring", "", "anything", {}, 0),
        ("substring", "", "", {}, 1),
        ("substring", 5, "5", {}, "error"),
        ("substring", "5", 5, {}, 0),
        ("numeric_tol", 2.8, 2.82, {"tolerance": 0.02}, 1),
        ("numeric_tol", 2.8, 2.78, {"tolerance": 0.02}, 1),
        ("numeric_tol", 2.8, 2.8200001, {"tolerance": 0.02}, 0),
        ("numeric_tol", 0.3, 0.1 + 0.2, {}, 0),
        ("numeric_tol", 3, 3.0, {}, 1),
        ("numeric_tol", 1, True, {"tolerance": 1}, 0),
        ("numeric_tol", True, 1, {"tolerance": 1}, "error"),
        ("numeric_tol", 2.8, "2.8", {"tolerance": 0.02}, 0),
        ("numeric_tol", "2.8", 2.8, {"tolerance": 0.02}, "error"),
        ("numeric_tol", float("nan"), 1.0, {}, "error"),
        ("numeric_tol", float("inf"), float("inf"), {}, "error"),
        ("numeric_tol", 1.0, float("nan"), {"tolerance": 5}, 0),
        ("numeric_tol", 1.0, float("inf"), {"tolerance": 5}, 0),
        ("numeric_tol", 10**400, 1.5, {"tolerance": 5}, 0),
        ("numeric_tol", 1.5, 10**400, {"tolerance": 5}, 0),
        ("set_match", ["a", "b"], ["b", "a"], {}, 1),
        ("set_match", ["a", "b"], ["b", "a", "a"], {}, 1),
        ("set_match", ["a", "b"], ["b", "a", "a"], {"multiplicity": True}, 0),
        ("set_match", ["a", "b"], ["a"], {}, 0),
        ("set_match", ["a"], ["a", "b"], {}, 0),
        ("set_match", [], [], {}, 1),
        ("set_match", [], ["a"], {}, 0),
        ("set_match", [1], [True], {}, 0),
        ("set_match", [1], [1.0], {}, 1),
        ("set_match", [["x"], {"k": [1]}], [{"k": [1]}, ["x"]], {}, 1),
        ("set_match", ["a"], "a", {}, 0),
        ("set_match", "a", ["a"], {}, "error"),
        ("date_norm", "2026-01-02", "2 January 2026", {}, 1),
        ("date_norm", "2026-01-02", "January 2, 2026", {}, 1),
        ("date_norm", "2026-01-02", "Jan. 2nd 2026", {}, 1),
        ("date_norm", "2026-09-03", "3 Sept 2026", {}, 1),
        ("date_norm", "2026-05-03", "3 may 2026", {}, 1),
        ("date_norm", "2026-01-02", "2026-01-02T23:59:00+05:30", {}, 1),
        ("date_norm", "2026-01-02", "2026-01-03", {}, 0),
        ("date_norm", "2026-01-02", "tomorrow", {}, 0),
        ("date_norm", "2026-01-02", "2026", {}, 0),
        ("date_norm", "2026-01-02", "January 2026", {}, 0),
        ("date_norm", "2026-01-02", "2026-02-30", {}, 0),
        ("date_norm", "2026-01-02", 20260102, {}, 0),
        ("date_norm", "2026-01-02", "2 Januar 2026", {}, 1),
        ("date_norm", "2026-01-13", "13/01/2026", {}, 1),
        ("date_norm", "2026-04-03", "03/04/2026", {}, "error"),
        ("date_norm", "2026-04-03", "3.4.26", {}, "error"),
        ("date_norm", "03/04/2026", "2026-04-03", {}, "error"),
        ("date_norm", "03/04/2026", "03/04/2026", {}, "error"),
        ("date_norm", "soon", "2026-04-03", {}, "error"),
        ("date_norm", "2026-04-03", "2026-04-03" * 100_000, {}, 0),
        ("llm_similarity", "the same", " the same\n", {}, 1),
        ("llm_similarity", "The same", "the same", {}, "error"),
        ("llm_similarity", "one text", "another", {}, "error"),
    ],
)
def test_examples(level, reference, candidate, options, want):
    assert outcome(level, reference, candidate, **options) == want


@pytest.mark.parametrize("level", LEVELS)
def test_null_and_absent_are_decided_before_any_level(level):
    value = {"numeric_tol": 1, "set_match": ["a"], "date_norm": "2026-01-02"}.get(level, "text")
    assert outcome(level, None, None) == 1
    assert outcome(level, ABSENT, ABSENT) == 1
    for reference, candidate in [(None, value), (value, None), (ABSENT, value), (value, ABSENT)]:
        assert outcome(level, reference, candidate) == 0
    assert outcome(level, None, ABSENT) == 0
    assert outcome(level, ABSENT, None) == 0
    assert score(level, value, ABSENT).reason != score(level, value, None).reason


@given(st.data())
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_reflexive(level, data):
    value = data.draw(own_values[level])
    assert outcome(level, value, value) == 1


@given(st.data())
@pytest.mark.parametrize("level", ["exact", "numeric_tol", "set_match", "date_norm"])
def test_levels_that_compare_are_symmetric(level, data):
    a, b = data.draw(own_values[level]), data.draw(own_values[level])
    assert outcome(level, a, b) == outcome(level, b, a)


@given(st.sampled_from(LEVELS), values, values)
def test_no_json_value_breaks_a_level_and_an_error_has_no_score(level, reference, candidate):
    found = score(level, reference, candidate, threshold=0.5)
    if found.status == "error":
        assert found.score is None
        assert found.passed is None
    else:
        assert found.score in (0.0, 1.0)
        assert found.passed == (found.score >= 0.5)
    assert found.reason


@given(values, values)
def test_a_set_member_is_found_exactly_when_the_values_are_the_same(a, b):
    assert outcome("set_match", [a], [b]) == outcome("exact", [a], [b])


@given(st.lists(values, max_size=6), st.randoms(use_true_random=False), st.booleans())
def test_sets_have_no_order(members, shuffler, multiplicity):
    shuffled = list(members)
    shuffler.shuffle(shuffled)
    assert outcome("set_match", members, shuffled, multiplicity=multiplicity) == 1


@given(st.decimals(-1000, 1000, places=2), st.decimals(0, 10, places=3))
def test_the_tolerance_is_inclusive_in_decimal(reference, tolerance):
    step = Decimal("0.001")
    options = {"tolerance": float(tolerance)}
    for sign in (1, -1):
        assert outcome("numeric_tol", float(reference), float(reference + sign * tolerance), **options) == 1
        assert outcome("numeric_tol", float(reference), float(reference + sign * (tolerance + step)), **options) == 0


@given(dates)
def test_a_day_is_the_same_however_it_is_written(day):
    for written in (
        f"{day}",
        f"{day}T00:30:00Z",
        f"{day.day} {day:%B} {day.year:04}",
        f"{day:%B} {day.day}, {day.year:04}",
    ):
        assert outcome("date_norm", str(day), written) == 1


def test_thresholds_and_levels_come_from_the_config():
    levels = slots.load_levels(CONFIG)
    assert levels == {
        "exact": 1.0,
        "substring": 0.8,
        "numeric_tol": 0.9,
        "set_match": 0.95,
        "date_norm": 0.9,
        "llm_similarity": 0.85,
    }


def test_wrong_levels_options_and_files_are_named(tmp_path):
    with pytest.raises(Stop, match="Did you mean 'set_match'"):
        score("setmatch", [], [])
    with pytest.raises(Stop, match="tolerance is -1"):
        score("numeric_tol", 1, 2, tolerance=-1)
    with pytest.raises(Stop, match="threshold is 0"):
        score("exact", 1, 2, threshold=0)
    lacking = tmp_path / "judge_slots.yaml"
    lacking.write_text("levels:\n  exact: {pass_threshold: 1.0}\n")
    with pytest.raises(Stop, match="missing or unknown: date_norm"):
        slots.load_levels(lacking)


def test_leaves_are_found_through_objects_and_lists():
    value = {"a": {"b": 1}, "items": [{"price": 1}, {"price": None}, {}], "grid": [[1], [2, 3]], "n": None}
    assert leaf(value, "a.b") == 1
    assert leaf(value, "a.c") is ABSENT
    assert leaf(value, "n") is None
    assert leaf(value, "n.x") is ABSENT
    assert leaf(value, "items[].price") == [1, None, ABSENT]
    assert leaf(value, "grid[][]") == [[1], [2, 3]]
    assert leaf(value, "a[]") is ABSENT
    assert leaf("text", "a") is ABSENT
    for path in ("", "a..b", ".a", "a."):
        with pytest.raises(Stop, match="slot path"):
            leaf(value, path)


def test_lists_are_paired_by_index():
    reference = {"items": [{"p": 1}, {"p": 2}]}
    assert list(pairs(reference, {"items": [{"p": 9}]}, "items[].p")) == [
        ("items[0].p", 1, 9),
        ("items[1].p", 2, ABSENT),
    ]
    assert list(pairs({"items": []}, {"items": []}, "items[].p")) == [("items[].p", ABSENT, ABSENT)]
    assert list(pairs({"items": []}, {"items": [{"p": 1}]}, "items[].p")) == [("items[0].p", ABSENT, 1)]
    assert list(pairs({"items": None}, {"items": None}, "items[].p")) == [("items[].p", None, None)]
    assert list(pairs({"items": [{"p": 1}]}, ABSENT, "items[].p")) == [("items[0].p", 1, ABSENT)]
    assert list(pairs({"a": 1}, {}, "a")) == [("a", 1, ABSENT)]


@given(values)
def test_an_answer_equal_to_the_reference_has_equal_leaves(value):
    for path in ("a", "a.b", "[]", "[].a", "a[]"):
        for _, reference, candidate in pairs(value, value, path):
            assert outcome("exact", reference, candidate) == 1
