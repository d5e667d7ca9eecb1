"""potstill/metrics.py and intervals.py against scipy, numpy and paper."""

import numpy
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from potstill import intervals, metrics
from potstill.grading import Row
from potstill.intervals import quantile, wilson
from potstill.records import Example, Prediction, SlotSpec, Verdict


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_scipys(counts):
    passed, n = counts
    oracle = scipy.stats.binomtest(passed, n).proportion_ci(method="wilson")
    assert wilson(passed / n, n) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_the_quantile_is_numpys(values, q):
    assert quantile(values, q) == pytest.approx(float(numpy.quantile(values, q)), rel=1e-9, abs=1e-9)


GROUP = "group"


def drawn(rates: list[float], slots: int = 9, seed: int = 5) -> tuple[list[tuple[int, int]], list[str]]:
    """Rows in 40 groups of 5, each group with its own rate: tallies and groups."""
    random = numpy.random.default_rng(seed)
    of_group = random.choice(rates, size=40)
    return [(int(random.binomial(slots, of_group[n // 5])), slots) for n in range(200)], [
        f"g{n // 5}" for n in range(200)
    ]


def test_the_interval_of_a_rate_is_scipys_bootstrap_of_groups():
    rows, groups = drawn([0.5, 0.8, 1.0])
    (found,) = intervals.of_rates({"x": rows}, groups).values()
    passed = numpy.array([p for p, _ in rows]).reshape(40, 5).sum(axis=1)

    def rate(p, n, axis):
        return p.sum(axis) / n.sum(axis)

    oracle = scipy.stats.bootstrap(
        (passed, numpy.full(40, 45)), rate, paired=True, method="percentile", n_resamples=10_000,
        random_state=numpy.random.default_rng(9),
    ).confidence_interval  # fmt: skip
    assert found.method == "bootstrap"
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=0.004)
    # rows of a group are alike, and to take them for independent would tell a narrower interval
    (by_rows,) = intervals.of_rates({"x": rows}, [str(n) for n in range(200)]).values()
    assert found.high - found.low > 1.5 * (by_rows.high - by_rows.low)


@given(st.permutations(range(40)))
def test_the_order_of_rows_and_the_names_of_groups_change_no_interval(order):
    rows, groups = drawn([0.6, 0.9])
    one = intervals.of_rates({"x": rows}, groups, draws=300)
    indexes = [5 * g + n for g in order for n in range(5)]
    other = intervals.of_rates({"x": [rows[i] for i in indexes]}, [groups[i] for i in indexes], draws=300)
    assert one == other


def test_copies_of_rows_narrow_no_bootstrap_interval():
    rows, groups = drawn([0.6, 0.9])
    once = intervals.of_rates({"x": rows}, groups, draws=300)["x"]
    thrice = intervals.of_rates({"x": rows * 3}, groups * 3, draws=300)["x"]
    assert thrice[:2] == pytest.approx(once[:2])


def test_too_few_groups_or_too_few_that_differ_take_wilsons_interval_over_rows():
    few = [(1, 1)] * 90 + [(0, 1)] * 10
    found = intervals.of_rates({"x": few}, [f"g{n % 19}" for n in range(100)])["x"]
    assert found == (*wilson(0.9, 100), "wilson")
    # one row of a hundred fails: a bootstrap would call 100% certain enough
    rare = intervals.of_rates({"x": [(1, 1)] * 99 + [(0, 1)]}, [str(n) for n in range(100)])["x"]
    assert rare == (*wilson(0.99, 100), "wilson")
    everything = intervals.of_rates({"x": [(1, 1)] * 100}, [str(n) for n in range(100)])["x"]
    assert (everything.high, everything.low) == (1.0, pytest.approx(1 / (1 + intervals.Z95**2 / 100)))
    assert intervals.of_rates({"x": [(0, 0)]}, ["a"]) == {}


@given(st.integers(1, 400), st.integers(10, 400), st.floats(0.01, 0.99))
def test_the_rows_needed_decide_and_one_fewer_does_not(passed, n, limit):
    rate = min(passed, n) / n
    found = intervals.rows_needed(rate, *wilson(rate, n), limit, n, "wilson")
    if found is None:
        assert abs(rate - limit) < 1e-6
        return

    def decides(rows):
        low, high = wilson(rate, rows)
        return low >= limit if rate > limit else high < limit

    assert decides(found)
    assert found <= n or not decides(found - 1)


def test_a_bootstrap_interval_narrows_with_the_root_of_the_rows():
    assert intervals.rows_needed(0.92, 0.88, 0.96, 0.90, 100, "bootstrap") == pytest.approx(400, abs=1)
    assert intervals.rows_needed(0.90, 0.88, 0.92, 0.90, 100, "bootstrap") is None


def row(*passed: bool | None, valid: bool = True, slot: str = "a", **metadata) -> Row:
    example = Example(
        id="1",
        task="t",
        system="",
        prompt="",
        response="{}",
        slots={slot: SlotSpec(level="exact")},
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
    found = metrics.numbers([row(True, None), row(True, False), row(True, True), row(False, None)], GROUP)
    assert (found.slots_scored, found.errors) == (6, 2)
    assert found.slot_accuracy == pytest.approx(4 / 6)
    # the first answer may or may not be perfect; the last is not, whatever its error hides
    assert found.perfect_records == pytest.approx(1 / 3)
    only_errors = metrics.numbers([row(None)], GROUP)
    assert only_errors.slot_accuracy is None
    assert only_errors.perfect_records is None
    assert metrics.per_slot([row(None)], GROUP)["a"].pass_rate is None


def test_repaired_answers_are_told_apart_and_count_as_invalid():
    found = metrics.numbers([row(False, valid=False), row(True)], GROUP)
    assert (found.json_validity, found.schema_validity, found.repaired) == (0.5, 0.5, 0.5)


def test_list_items_count_in_the_slot_of_their_list():
    found = metrics.per_slot([row(True, slot="items[0].price"), row(False, slot="items[12].price")], GROUP)
    assert {path: (rate.n, rate.pass_rate) for path, rate in found.items()} == {"items[].price": (2, 0.5)}


def test_rows_of_a_slice_count_there_and_nowhere_else():
    rows = [row(True), row(True, tenant="a"), row(False, tenant="b"), row(False, tenant="a", slice="odd")]
    found = metrics.slices(rows, GROUP)
    assert {name: (part.n, part.slot_accuracy) for name, part in found.items()} == {
        "unseen_families": (3, pytest.approx(2 / 3)),
        "odd": (1, 0.0),
        "task=t": (3, pytest.approx(2 / 3)),
        "tenant=a": (1, 1.0),
        "tenant=b": (1, 0.0),
    }


def test_critical_slots_are_counted_apart_wherever_their_leaves_are():
    spec = {"items[].price": SlotSpec(level="exact", critical=True), "b": SlotSpec(level="exact")}
    rows = [row(True, slot="items[0].price"), row(False, slot="items[3].price"), row(True, slot="b")]
    rows = [found._replace(example=found.example.model_copy(update={"slots": spec})) for found in rows]
    found = metrics.numbers(rows, GROUP)
    assert (found.slot_accuracy, found.critical_slots) == (pytest.approx(2 / 3), 0.5)
    assert {path: rate.critical for path, rate in metrics.per_slot(rows, GROUP).items()} == {
        "items[].price": True,
        "b": False,
    }
    assert metrics.numbers([row(True)], GROUP).critical_slots is None
    # a slot whose leaf is elsewhere, in a list: its verdicts are on price[0], price[1] ...
    elsewhere = {"price": SlotSpec(level="exact", path="items[].price", critical=True)}
    example = rows[0].example.model_copy(update={"slots": elsewhere})
    assert metrics.is_critical(example, "price[]")
    assert not metrics.is_critical(example, "pricetag")
