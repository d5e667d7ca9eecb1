"""potstill/gate.py: what promotes, rejects and leaves open, and that the report and a comparison see the same data."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_compare import answers

from potstill import comparing, gate, metrics, paired
from potstill.gate import Against, Gate, Limits
from potstill.paired import Guarded

LIMITS = Limits(min_json_validity=0.98, min_slot_accuracy=0.9)


def spread(n: int, passed: int, scored: int, errors: int = 0) -> list[tuple[int, int, int]]:
    """Counts dealt out over n rows, one after the other."""
    deal = [[(total + n - 1 - i) // n for i in range(n)] for total in (passed, scored, errors)]
    return list(zip(*deal, strict=True))


def decide(n, json_validity, passed, scored, errors=0, limits=LIMITS, **more) -> Gate:
    tallies = {
        "json_validity": spread(n, round(json_validity * n), n),
        "slot_accuracy": spread(n, passed, scored, errors),
        "critical_slots": [(0, 0, 0)] * n,
    }
    tallies |= more.pop("tallies", {})
    # groups too few to draw from, so that the interval is Wilson's, which can be worked out
    return gate.decide(tallies, more.pop("groups", ["g"] * n), limits, **more)


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
    # more rows do not score what could not be scored
    assert doubtful.more_rows is None
    assert decide(1000, 1.0, 0, 0).verdict == "inconclusive", "no slot at all shows nothing"


@given(st.integers(30, 400), st.floats(0.8, 1), st.floats(0, 1), st.integers(0, 100))
def test_errors_never_turn_doubt_into_a_verdict(n, validity, rate, errors):
    before = decide(n, validity, round(rate * 5 * n), 5 * n)
    after = decide(n, validity, round(rate * 5 * n), 5 * n, errors)
    assert after.verdict in (before.verdict, "inconclusive")


def test_the_rows_it_asks_for_decide():
    found = decide(424, 1.0, 3900, 4240, limits=Limits(min_json_validity=0.99, min_slot_accuracy=0.9))
    assert found.verdict == "inconclusive"
    assert found.more_rows is not None
    assert f"about {found.more_rows:,} more rows like these would decide" in found.reasons[1]
    n = 424 + found.more_rows
    assert decide(n, 1.0, round(39 / 42.4 * 10 * n), 10 * n).verdict == "promote"
    # at 99% JSON validity, with no answer invalid: 381 rows (n / (n + 1.96^2) >= 0.99)
    strict = decide(300, 1.0, 3000, 3000, limits=Limits(min_json_validity=0.99, min_slot_accuracy=0.5))
    assert strict.more_rows == 81
    assert (
        decide(381, 1.0, 3810, 3810, limits=Limits(min_json_validity=0.99, min_slot_accuracy=0.5)).verdict == "promote"
    )
    assert decide(100, 1.0, 900, 1000, limits=LIMITS).more_rows is None, "the value is the limit itself"


def test_critical_slots_have_their_own_limit_and_none_hides_behind_the_others():
    limits = Limits(min_json_validity=0.9, min_slot_accuracy=0.5, min_critical_accuracy=0.9)
    good, bad = spread(500, 490, 500), spread(500, 400, 500)
    many = {f"slot s{n}": good for n in range(9)}
    together = spread(500, 9 * 490 + 400, 5000)
    assert (
        decide(500, 1.0, 4000, 5000, limits=limits, tallies={"critical_slots": spread(500, 4950, 5000)}).verdict
        == "promote"
    )
    assert (
        decide(500, 1.0, 4000, 5000, limits=limits, tallies={"critical_slots": spread(500, 4000, 5000)}).verdict
        == "reject"
    )
    hidden = decide(500, 1.0, 4000, 5000, limits=limits, tallies={"critical_slots": together, **many, "slot bad": bad})
    assert hidden.verdict == "reject"
    assert [reason for reason in hidden.reasons if "slot bad" in reason]
    # a slot that few rows have is no reason for doubt
    thin = {**many, "slot thin": [(1, 1, 0)] * 3 + [(0, 0, 0)] * 497}
    assert decide(500, 1.0, 4000, 5000, limits=limits, tallies={"critical_slots": good, **thin}).verdict == "promote"
    assert decide(500, 1.0, 4000, 5000, limits=limits).verdict == "promote", "a workload without critical slots"


def against(**bounds: tuple[float, float]) -> Against:
    found = {
        name.replace("__", " "): Guarded((low + high) / 2, low, high, "bootstrap")
        for name, (low, high) in bounds.items()
    }
    return Against("strong", 500, found, frozenset({"price"}))


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ({"critical_slots": (0.0, 0.02), "other_slots": (-0.04, 0.0)}, "promote"),
        ({"critical_slots": (-0.01, 0.02), "other_slots": (-0.04, 0.0)}, "inconclusive"),
        ({"critical_slots": (-0.02, -0.01), "other_slots": (-0.04, 0.0)}, "reject"),
        ({"critical_slots": (0.0, 0.02), "other_slots": (-0.06, -0.02)}, "inconclusive"),
        ({"critical_slots": (0.0, 0.02), "other_slots": (-0.09, -0.06)}, "reject"),
        # one slot may not hide behind the others, and is no reason for doubt
        ({"critical_slots": (0.0, 0.02), "other_slots": (0.0, 0.0), "slot__price": (-0.3, -0.01)}, "reject"),
        ({"critical_slots": (0.0, 0.02), "other_slots": (0.0, 0.0), "slot__price": (-0.3, 0.1)}, "promote"),
        ({"other_slots": (0.0, 0.0), "slot__name": (-0.3, -0.01)}, "promote"),
        ({"other_slots": (0.0, 0.0), "slot__name": (-0.3, -0.06)}, "reject"),
    ],
)
def test_against_the_strong_model_critical_slots_may_not_drop_and_others_by_five_points(bounds, verdict):
    found = decide(1000, 1.0, 9500, 10000, strong=against(**bounds))
    assert found.verdict == verdict
    assert any("minus strong" in reason for reason in found.reasons)


def test_regressions_against_the_baseline_are_named_and_those_beyond_the_drop_reject():
    small = decide(1000, 1.0, 9500, 10000, baseline=against(slot__name=(-0.06, -0.02), slot__size=(-0.1, 0.1)))
    assert small.verdict == "promote", "a drop of up to five points is allowed on a slot that is not critical"
    assert [found.slot for found in small.regressions] == ["name"]
    assert "slot name is worse than in strong: -4.0 points, 95% interval -6.0 to -2.0" in small.reasons
    critical = decide(1000, 1.0, 9500, 10000, baseline=against(slot__price=(-0.02, -0.001)))
    assert critical.verdict == "reject"
    assert critical.regressions[0].critical


def test_a_doubt_or_too_few_groups_promote_nothing_and_excuse_nothing():
    assert decide(1000, 1.0, 9500, 10000, doubts=["the judge run is void"]).verdict == "inconclusive"
    assert decide(1000, 0.9, 9500, 10000, doubts=["the judge run is void"]).verdict == "reject"
    few = LIMITS.model_copy(update={"min_groups": 20})
    found = decide(1000, 1.0, 9500, 10000, limits=few)
    assert (found.verdict, found.more_rows) == ("inconclusive", None)
    assert "the test rows are of 1 groups, min_groups asks for 20" in found.reasons


def test_equal_answers_of_few_rows_are_no_proof_that_nothing_is_lost():
    def difference(rows):
        tallies = {str(n): (1, 1, 1, 1) for n in range(rows)}
        clusters = {id: id for id in tallies}
        return paired.guarded(paired.differences({"x": tallies}, clusters, 200, 1)["x"], tallies, clusters)

    few, many = difference(30), difference(3000)
    assert (few.difference, few.method) == (0.0, "wilson")
    assert few.low < -0.1
    assert -0.002 < many.low < 0
    assert few.high == -few.low


def test_report_and_comparison_agree_on_the_same_data():
    random = numpy.random.default_rng(11)
    # b passes nothing, so that a - b is a; 25 groups of 4 rows
    marks = [(n // 4, [*(bool(m) for m in random.random(3) < 0.5 + 0.02 * (n // 4)), *[False] * 3]) for n in range(100)]
    a, b = answers("one", marks, 0), answers("two", marks, 3)
    compared = comparing.compare(a, b, "group")
    told, slots = metrics.numbers(a.rows, "group"), metrics.per_slot(a.rows, "group")
    assert told.methods["slot_accuracy"] == "bootstrap"
    for name in ("slot_accuracy", "perfect_records"):
        assert compared.headline[name].a == getattr(told, name)
        assert compared.headline[name].ci95 == pytest.approx(told.ci95[name])
    for path, rate in slots.items():
        assert compared.per_slot[path].ci95 == pytest.approx(rate.ci95)
    assert compared.groups == told.groups == 25


def test_the_limits_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError):
        Limits(min_json_validity=0.9, min_slot_accuracy=1.1)
    with pytest.raises(ValidationError):
        Limits(min_json_validity=0.9, min_slot_accuracy=0.9, max_drops=0.1)
