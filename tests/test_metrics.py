"""potstill/metrics.py, gate.py and intervals.py against scipy, numpy and paper."""

import numpy
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from potstill import gate, metrics
from potstill.gate import Limits
from potstill.grading import Row
from potstill.intervals import quantile, wilson
from potstill.records import Example, Prediction, Verdict

LIMITS = Limits(min_json_validity=0.98, min_slot_accuracy=0.9)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_scipys(counts):
    passed, n = counts
    oracle = scipy.stats.binomtest(passed, n).proportion_ci(method="wilson")
    assert wilson(passed / n, n) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_the_quantile_is_numpys(values, q):
    assert quantile(values, q) == pytest.approx(float(numpy.quantile(values, q)), rel=1e-9, abs=1e-9)


def decide(n, json_validity, passed, scored, errors=0):
    return gate.decide(n, json_validity, passed, scored, errors, LIMITS)


def test_the_gate_promotes_rejects_and_says_when_it_cannot_tell():
    assert decide(1000, 1.0, 9500, 10000).verdict == "promote"
    assert decide(1000, 0.95, 9500, 10000).verdict == "reject"
    assert decide(1000, 1.0, 8000, 10000).verdict == "reject"
    assert decide(1000, 1.0, 9100, 10000).verdict == "inconclusive"
    assert decide(20, 1.0, 200, 200).verdict == "inconclusive", "twenty rows cannot show 98%"
    # a clear no on one count is not softened by doubt on the other
    assert decide(1000, 0.95, 9100, 10000).verdict == "reject"


def test_slots_that_could_not_be_scored_widen_the_interval():
    assert decide(1000, 1.0, 9500, 9500).verdict == "promote"
    assert decide(1000, 1.0, 8600, 9000, errors=1000).verdict == "inconclusive"
    doubtful = decide(1000, 1.0, 0, 0, errors=10)
    assert doubtful.verdict == "inconclusive"
    assert "10 slots could not be scored" in doubtful.reasons
    assert decide(1000, 1.0, 0, 0).verdict == "inconclusive", "no slot at all shows nothing"


def row(*passed: bool | None, valid: bool = True, slot: str = "a", **metadata) -> Row:
    example = Example(
        id="1",
        task="t",
        system="",
        prompt="",
        response="{}",
        slots={},
        metadata=metadata,
        schema_version="1",
        source_sha256="",
    )
    prediction = Prediction(
        id="1",
        task="t",
        output="",
        parsed=None,
        valid_json=valid,
        valid_schema=valid,
        repaired=not valid,
        prompt_tokens=1,
        completion_tokens=1,
        latency_ms=1.0,
        finish_reason="stop",
        backend="",
    )
    verdicts = [
        Verdict(
            id="1",
            task="t",
            slot=slot,
            level="exact",
            reference=None,
            candidate=None,
            score=None if p is None else float(p),
            passed=p,
            status="error" if p is None else "scored",
            judge="rule",
            reason="",
            cached=False,
            cost_usd=0.0,
        )
        for p in passed
    ]
    return Row(example, prediction, verdicts)


def test_an_error_is_in_no_denominator():
    found = metrics.numbers([row(True, None), row(True, False), row(True, True), row(False, None)])
    assert (found.slots_scored, found.errors) == (6, 2)
    assert found.slot_accuracy == pytest.approx(4 / 6)
    # the first answer may or may not be perfect; the last is not, whatever its error hides
    assert found.perfect_records == pytest.approx(1 / 3)
    only_errors = metrics.numbers([row(None)])
    assert only_errors.slot_accuracy is None
    assert only_errors.perfect_records is None
    assert metrics.per_slot([row(None)])["a"].pass_rate is None


def test_repaired_answers_are_told_apart_and_count_as_invalid():
    found = metrics.numbers([row(False, valid=False), row(True)])
    assert (found.json_validity, found.schema_validity, found.repaired) == (0.5, 0.5, 0.5)


def test_list_items_count_in_the_slot_of_their_list():
    found = metrics.per_slot([row(True, slot="items[0].price"), row(False, slot="items[12].price")])
    assert {path: (rate.n, rate.pass_rate) for path, rate in found.items()} == {"items[].price": (2, 0.5)}


def test_rows_of_a_slice_count_there_and_nowhere_else():
    rows = [row(True), row(True, tenant="a"), row(False, tenant="b"), row(False, tenant="a", slice="odd")]
    found = metrics.slices(rows)
    assert {name: (part.n, part.slot_accuracy) for name, part in found.items()} == {
        "unseen_families": (3, pytest.approx(2 / 3)),
        "odd": (1, 0.0),
        "task=t": (3, pytest.approx(2 / 3)),
        "tenant=a": (1, 1.0),
        "tenant=b": (1, 0.0),
    }
