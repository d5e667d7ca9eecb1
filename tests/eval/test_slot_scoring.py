"""Slots with locale, currency, partial credit and nulls; what no answer can do to them; how verdicts are counted."""

import json
import os
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_slot_docs import LEVELS, score_answer

from potstill import grading, slots
from potstill.counts import Counts, counts, leaf_accuracy
from potstill.leaves import ABSENT, leaf, leaf_paths
from potstill.records import Example, SlotSpec
from potstill.slots import score
from potstill.stop import Stop
from potstill.values import STEPS, alike, same

RULES = ["exact", "substring", "numeric_tol", "set_match", "date_norm"]
DEEP: list = []
for _ in range(900):
    DEEP = [DEEP]
HOSTILE = [
    10**5000,
    -(10**400),
    float("inf"),
    float("nan"),
    1e308,
    DEEP,
    {"a": DEEP},
    "\ud800",
    ["\udfff"],
    "9" * 1_000_000,
    "1," * 100_000,
    "a" * 1_000_000,
    "(" * 50_000,
    "1e400",
    "1e999",
    "-",
    "€",
    "\x00",
    "٣" * 70,
    [[]] * 10_000,
    {str(n): n for n in range(10_000)},
    "",
    [],
    {},
]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b c", "1.5"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b.c", "d\\"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def outcome(*arguments, **options):
    found = score(*arguments, **options)
    return "error" if found.status == "error" else found.score


@pytest.mark.parametrize("level", RULES)
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
def test_no_value_crashes_a_level_or_hangs_it(level, value):
    usable = {"exact": "a", "substring": "a", "numeric_tol": 2, "set_match": ["a"], "date_norm": "2026-01-02"}[level]
    every = {
        "exact": {"normalise": [*STEPS, "text"]},
        "substring": {"normalise": list(STEPS)},
        "numeric_tol": {"type": "price", "locale": "de", "relative_tolerance": 0.1},
        "set_match": {"partial": "f1", "type": "number"},
        "date_norm": {"locale": "de"},
    }[level]
    for options in ({}, every, {**every, "nulls": "empty"}):
        wanted = [2] if "type" in options and level == "set_match" else usable
        assert outcome(level, wanted, value, **options) in (0.0, 1.0, "error")
        assert outcome(level, value, value, **options) in (0.0, 1.0, "error")


def test_a_hostile_answer_is_a_zero_in_every_slot_and_its_verdicts_can_be_written():
    specs = {level: {"level": level} for level in RULES} | {"list[]": {"level": "exact", "align": "best"}}
    reference = {"exact": 1, "substring": "xyz", "numeric_tol": 2, "set_match": ["a"], "date_norm": "2026-01-02"}
    for value in HOSTILE:
        verdicts = score_answer(specs, reference | {"list": ["a"]}, dict.fromkeys(specs, value) | {"list": [value]})
        assert not any(verdict.passed for verdict in verdicts)
        assert all(verdict.status == "scored" for verdict in verdicts)
        assert all(json.loads(verdict.model_dump_json()) for verdict in verdicts)


def test_a_reference_that_is_nested_too_deep_is_the_error():
    assert outcome("exact", DEEP, 1) == "error"
    assert outcome("exact", 1, DEEP) == 0


@given(st.decimals(0, 10**6, places=2), st.sampled_from(["€", "EUR", "$", "kr", ""]))
def test_a_price_is_the_same_number_in_either_notation(amount, sign):
    english = f"{amount:,}"
    german = english.translate(str.maketrans(",.", ".,"))
    for written in (f"{german} {sign}".strip(), f"{sign}{english}", f"{sign} {german}".strip(), str(amount)):
        assert outcome("numeric_tol", float(amount), written, type="price", locale="de") == 1
        assert outcome("numeric_tol", written, float(amount), type="price", locale="de") == 1
        assert outcome("numeric_tol", float(amount), written) == 0


@given(st.fractions(-1000, 1000, max_denominator=100), st.sampled_from([0.01, 0.05, 0.5]))
def test_the_relative_tolerance_is_a_share_of_the_reference_and_inclusive(reference, share):
    reference = float(round(reference, 2))
    edge = abs(Fraction(str(reference))) * Fraction(str(share))
    for sign in (1, -1):
        inside, outside = (float(Fraction(str(reference)) + sign * (edge + extra)) for extra in (0, Fraction(1, 1000)))
        assert outcome("numeric_tol", reference, inside, relative_tolerance=share) == 1
        assert outcome("numeric_tol", reference, outside, relative_tolerance=share) == 0


def test_prices_that_are_two_or_none_are_not_guessed():
    options = {"type": "price", "tolerance": 0.005}
    assert outcome("numeric_tol", 10, "10-12 €", **options) == "error"
    assert outcome("numeric_tol", 4.95, "3 for 14.85 EUR", **options) == "error"
    assert outcome("numeric_tol", 1.299, "1.299", **options) == "error"
    assert outcome("numeric_tol", 1299, "1.299 €", **options) == 1
    assert outcome("numeric_tol", 1299, "1.299 €", locale="en", **options) == "error"
    assert outcome("numeric_tol", 1.299, "OMR 1.299", **options) == 1
    assert outcome("numeric_tol", 35.99, "35€ 99", **options) == 1
    assert outcome("numeric_tol", -5, "-€ 5.00", **options) == 1
    assert outcome("numeric_tol", 0, "Free!", **options) == 1
    assert outcome("numeric_tol", 50, "50%", **options) == 0
    assert outcome("numeric_tol", 2004, "July, 2004", **options) == 0


def test_a_currency_counts_where_both_sides_write_one():
    for a, b, want in (("$5", "5 AUD", 1), ("5 €", "5 EUR", 1), ("5 €", "$5", 0), ("5", "$5", 1), ("5 Kč", "5 kr", 0)):
        assert outcome("numeric_tol", a, b, type="price", locale="en") == want
        assert outcome("numeric_tol", b, a, type="price", locale="en") == want


@given(st.lists(st.sampled_from("abc"), max_size=5), st.lists(st.sampled_from("abc"), max_size=5), st.booleans())
def test_partial_credit_is_what_the_formulas_say(reference, candidate, multiplicity):
    options = {"multiplicity": multiplicity}
    found = {
        name: outcome("set_match", reference, candidate, partial=name, **options)
        for name in ("f1", "jaccard", "precision", "recall")
    }
    assert (found["f1"] == 1) == (outcome("set_match", reference, candidate, **options) == 1)
    assert found["f1"] == outcome("set_match", candidate, reference, partial="f1", **options)
    assert found["jaccard"] == outcome("set_match", candidate, reference, partial="jaccard", **options)
    assert found["recall"] == outcome("set_match", candidate, reference, partial="precision", **options)
    if found["precision"] + found["recall"]:
        harmonic = 2 * found["precision"] * found["recall"] / (found["precision"] + found["recall"])
        assert found["f1"] == pytest.approx(harmonic)
    assert 0 <= found["jaccard"] <= found["f1"] <= 1


@given(values, values, st.sampled_from([None, "absent", "empty"]))
def test_with_more_nulls_equality_stays_symmetric_and_reflexive(a, b, nulls):
    sides = [ABSENT, a, b]
    for left in sides:
        assert outcome("exact", left, left, nulls=nulls) == 1
        for right in sides:
            assert outcome("exact", left, right, nulls=nulls) == outcome("exact", right, left, nulls=nulls)


@given(st.text(max_size=30), st.sets(st.sampled_from([*STEPS, "text"])))
def test_normalising_twice_changes_nothing_that_is_compared(text, steps):
    steps = tuple(steps - {"articles", "unicode", "lower"})
    assert alike(alike(text, steps), steps) == alike(text, steps)
    assert outcome("exact", text, text, normalise=[*steps, "lower", "unicode"]) == 1


@given(values, values)
def test_the_leaf_accuracy_is_that_of_leaves_flattened_by_hand(reference, candidate):
    def flat(value, at=()):
        if isinstance(value, dict):
            return {k: v for key, item in value.items() for k, v in flat(item, (*at, key)).items()}
        if isinstance(value, list):
            return {k: v for index, item in enumerate(value) for k, v in flat(item, (*at, index)).items()}
        return {at: value}

    reference, candidate = {"r": reference}, {"r": candidate}
    want, found = flat(reference), flat(candidate)
    right = sum(at in found and same(value, found[at]) for at, value in want.items())
    specs = {path: {"level": "exact"} for path in leaf_paths(reference, candidate)}
    verdicts = score_answer(specs, reference, candidate) if specs else []
    assert leaf_accuracy(verdicts) == (right / len(want) if want else None)


@given(values)
def test_leaf_paths_lead_to_every_leaf(value):
    def scalars(found):
        if isinstance(found, list):
            return [part for item in found for part in scalars(item)]
        return [] if isinstance(found, dict) or found is ABSENT else [found]

    by_path = [scalar for path in leaf_paths(value) for scalar in scalars(leaf(value, path))]
    assert {repr(scalar) for scalar in by_path} == {repr(scalar) for scalar in walk(value)}


def walk(value):
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
        yield from walk(item) if isinstance(item, dict | list) else [item]


def test_counts_tell_the_five_kinds_of_leaves_apart():
    specs = {name: {"level": "exact"} for name in "abcde"} | {"f": {"level": "date_norm"}}
    reference = {"a": 1, "b": 1, "c": 1, "d": None, "e": None, "f": "03/04/2026"}
    found = counts(score_answer(specs, reference, {"a": 1, "b": 2, "c": None, "d": 1, "e": None, "f": "x"}))
    assert found == Counts(right=1, wrong=1, missing=1, extra=1, empty=1)
    assert (found.precision, found.recall, found.f1) == (1 / 3, 1 / 3, 1 / 3)
    assert Counts().f1 is Counts().precision is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"level": "exact", "multiplicity": True}, "multiplicity is an option of set_match"),
        ({"level": "exact", "type": "price"}, "type is an option of numeric_tol, set_match"),
        ({"level": "numeric_tol", "type": "date"}, "a date is level date_norm"),
        ({"level": "numeric_tol", "locale": "de"}, "reads a locale only with type"),
        ({"level": "date_norm", "normalise": ["lower"]}, "normalise is an option of exact"),
        ({"level": "own", "nulls": "empty"}, "nulls is an option of exact"),
        ({"level": "exact", "normalise": ["upper"]}, "Input should be"),
        ({"level": "exact", "align": "nearest"}, "align"),
        ({"level": "numeric_tol", "relative_tolerance": -1.0}, "greater than or equal to 0"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_when_it_is_read(spec, message):
    with pytest.raises(ValidationError, match=message):
        SlotSpec.model_validate(spec)


def test_options_that_are_not_given_are_not_written_so_that_old_rows_stay_as_they_were():
    old = '{"level":"numeric_tol","path":null,"tolerance":0.02,"threshold":null,"critical":true}'
    assert SlotSpec.model_validate_json(old).model_dump_json() == old
    new = '{"level":"set_match","path":null,"tolerance":null,"threshold":null,"critical":false,"normalise":["lower"]'
    new += ',"multiplicity":true,"partial":"f1","align":{"key":"sku","normalise":[]}}'
    assert SlotSpec.model_validate_json(new).model_dump_json() == new


def test_a_locale_that_nobody_knows_is_named_when_fixed_and_decides_nothing_in_a_row():
    spec = {"a": {"level": "date_norm", "locale": "metadata.language"}}
    answer = ({"a": "2026-04-03"}, {"a": "03/04/2026"})
    for metadata in ({}, {"language": "Klingon"}, {"language": 5}):
        assert score_answer(spec, *answer, metadata=metadata)[0].status == "error"
    assert score_answer(spec, *answer, metadata={"language": "en_GB"})[0].passed
    with pytest.raises(Stop, match=r"slot 'a' has the locale 'Klingon'.*de or en-GB"):
        score_answer({"a": {"level": "date_norm", "locale": "Klingon"}}, *answer)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_slot_with_an_impossible_tolerance_is_named(tolerance):
    with pytest.raises(Stop, match="id 'r': slot 'a': tolerance is"):
        score_answer({"a": {"level": "numeric_tol", "tolerance": tolerance}}, {"a": 1}, {"a": 2})


def test_the_steps_and_tolerances_of_score_are_checked():
    with pytest.raises(Stop, match=r"no step 'lowr'.*'lower'"):
        score("exact", "a", "b", normalise=["lowr"])
    with pytest.raises(Stop, match="relative_tolerance is -1"):
        score("numeric_tol", 1, 2, relative_tolerance=-1)


def test_a_level_of_a_workloads_own_works_beside_aligned_lists():
    def longer(reference, candidate, *, prompt):
        return (
            slots.Score(1.0, True, "scored", "as long")
            if len(candidate) >= len(reference)
            else slots.Score(0.0, False, "scored", "shorter")
        )

    specs = {"a[].n": {"level": "longer", "align": "best"}, "a[].k": {"level": "exact", "align": "best"}}
    reference = {"a": [{"n": "one", "k": 1}, {"n": "three", "k": 2}]}
    candidate = {"a": [{"n": "three!", "k": 2}, {"n": "on", "k": 1}]}
    found = {v.slot: v.passed for v in score_answer(specs, reference, candidate, own={"longer": longer})}
    assert found == {"a[0].n": False, "a[0].k": True, "a[1].n": True, "a[1].k": True}


def test_a_prediction_that_is_not_usable_fails_but_a_bad_reference_stays_the_error():
    specs = {
        "a": SlotSpec(level="exact"),
        "b": SlotSpec(level="date_norm"),
        "c[]": SlotSpec(level="exact", align="best"),
    }
    example = Example.model_construct(
        id="r", prompt="", response='{"a":1,"b":"soon","c":["x"]}', slots=specs, metadata={}, task="t"
    )
    for valid_json, valid_schema in ((False, False), (True, False)):
        prediction = grading.Prediction.model_construct(
            parsed={"a": 1}, valid_json=valid_json, valid_schema=valid_schema
        )
        found = [grade.decided for grade in grading.grade(example, prediction, LEVELS, {})]
        assert [score.status for score in found] == ["scored", "error", "scored"]
        assert [score.passed for score in found] == [False, None, False]


def test_scores_do_not_depend_on_the_zone_the_locale_or_the_day():
    code = (
        "import json, sys; from potstill.slots import score\n"
        "print([tuple(score(c[0], c[1], c[2], **c[3])) for c in json.load(sys.stdin)])"
    )
    price = {"type": "price", "locale": "de", "tolerance": 0.005}
    cases = [
        ["exact", "STRASSE İ", "straße i̇", {"normalise": ["lower"]}],
        ["substring", "Straße", "die strasse", {"normalise": ["unicode", "lower"]}],
        ["numeric_tol", 1299.0, "1.299,00 €", price],
        ["numeric_tol", 1.5, "1,5", {"type": "number"}],
        ["numeric_tol", 1, "1,299", {"type": "number"}],
        ["set_match", ["2026-04-03"], ["3.4.2026", "today"], {"type": "date", "locale": "de", "partial": "f1"}],
        ["date_norm", "2026-04-03", "2026-04-03T23:59:00-11:00", {}],
        ["date_norm", "2026-04-03", "03/04/2026", {}],
        ["date_norm", "2026-04-03", "today", {}],
        ["date_norm", "2026-04-03", "3. März 2026", {}],
        ["llm_similarity", "a", "a ", {}],
    ]
    outputs = set()
    for zone, locale in (("Pacific/Kiritimati", "C"), ("Etc/GMT+12", "de_DE.UTF-8"), ("UTC", "tr_TR.UTF-8")):
        environment = {**os.environ, "TZ": zone, "LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "1"}
        ran = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(cases),
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(ran.stdout)
    assert len(outputs) == 1
    assert outputs.pop().count("'scored'") == 9
