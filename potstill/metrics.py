"""From predictions and verdicts to numbers: the contract of report.json, and rates with their intervals.

Headline numbers are over the rows that belong to no slice; a row with metadata.slice counts in its slice only.
potstill/measuring.py reads what a run has and makes the Report.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import Field

from potstill import intervals, slicing
from potstill.breakdown import Confusion, Cost, Histogram
from potstill.gate import Gate, Tallies
from potstill.grading import Row
from potstill.intervals import Interval, Method
from potstill.records import Example, Record

BASELINES = {"base": "untuned_base", "null": "always_null"}
UNSEEN = "unseen_families"
# the numbers that have an interval
RATES = ("json_validity", "schema_validity", "slot_accuracy", "critical_slots", "perfect_records")
Share = Annotated[float, Field(ge=0, le=1)]


class Numbers(Record):
    """`slot_accuracy` is passed / scored over all slots; an error is in neither, and is counted in `errors`.

    `critical_slots` is the same over the slots that the workload calls critical; null when it has none.
    `perfect_records` is the share of answers whose every slot passed, among those without an error in doubt.
    `repaired` is the share of answers that became JSON only by repair; no other number counts them as valid.
    `groups` counts the split groups of the rows; `methods` says how each interval in `ci95` was made.
    """

    n: int
    groups: int
    json_validity: Share
    schema_validity: Share
    repaired: Share
    slot_accuracy: Share | None
    slots_scored: int
    critical_slots: Share | None
    perfect_records: Share | None
    errors: int
    ci95: dict[str, list[float]]
    methods: dict[str, Method]


class SlotRate(Record):
    n: int
    pass_rate: Share | None
    ci95: list[float] | None
    method: Method | None
    critical: bool


class JudgeLine(Record):
    """`void` says why the judge cannot be believed, `certificate` what is known of its agreement with people.

    `canaries` counts planted wrong answers it was asked; `spread_max` how far its scores of one question were apart in
    `repeats`. `judged_slots` are the slots with verdicts of its own among the headline rows.
    """

    model: str
    label: str
    prompt_sha256: str
    calls: int
    cached: int
    errors: int
    cost_usd: float
    spread_max: float | None
    canaries: int
    repeats: int
    void: str | None
    certificate: str
    judged_slots: dict[str, int]


class Artifact(Record):
    """`numbers` are null until its answers are judged; `parity` is what package.parity measured."""

    numbers: Numbers | None
    parity: dict[str, Any] | None


class Report(Numbers):
    """reports/<run>/report.json

    `grounded` is the share of the answers' values that stand in their prompts; null where the workload has no
    `grounding`, because its values are said in other words.
    """

    run: str
    workload: str
    snapshot: str
    grounded: Share | None
    per_slot: dict[str, SlotRate]
    latency_ms: dict[Literal["p50", "p95"], float]
    tokens: dict[Literal["prompt_p50", "completion_p50", "total"], float]
    distributions: dict[str, Histogram]
    confusion: dict[str, Confusion]
    cost: Cost | None
    judge: JudgeLine
    gate: Gate
    baselines: dict[str, Numbers]
    slices: dict[str, Numbers]
    artifacts: dict[str, Artifact]
    notes: list[str]


def numbers(rows: list[Row], group: str) -> Numbers:
    """`group` is the metadata key by which rows hang together: the workload's split.group."""
    n, found, groups = len(rows), tallies(rows), groups_of(rows, group)
    ranges = intervals.of_rates({name: _scored(found[name]) for name in RATES}, groups)
    return Numbers(
        n=n,
        groups=len(set(groups)),
        json_validity=sum(row.prediction.valid_json for row in rows) / n,
        schema_validity=sum(row.prediction.valid_schema for row in rows) / n,
        repaired=sum(row.prediction.repaired for row in rows) / n,
        slot_accuracy=_rate(found["slot_accuracy"]),
        slots_scored=sum(scored for _, scored, _ in found["slot_accuracy"]),
        critical_slots=_rate(found["critical_slots"]),
        perfect_records=_rate(found["perfect_records"]),
        errors=sum(errors for _, _, errors in found["slot_accuracy"]),
        ci95={name: _bounds(interval) for name, interval in ranges.items()},
        methods={name: interval.method for name, interval in ranges.items()},
    )


def tallies(rows: list[Row]) -> Tallies:
    """What each row adds to every number: passed, scored, errors. `slot <path>` is there for critical slots."""
    found: Tallies = {name: [] for name in RATES}
    critical = {path for row in rows for path in critical_paths(row)}
    found |= {f"slot {path}": [] for path in sorted(critical)}
    for row in rows:
        known = is_perfect(row)
        found["json_validity"].append((int(row.prediction.valid_json), 1, 0))
        found["schema_validity"].append((int(row.prediction.valid_schema), 1, 0))
        found["perfect_records"].append((0, 0, 1) if known is None else (int(known), 1, 0))
        by_path: dict[str, list[bool | None]] = defaultdict(list)
        for verdict in row.verdicts:
            by_path[slot_path(verdict.slot)].append(verdict.passed)
        own = critical_paths(row)
        found["slot_accuracy"].append(_tally(chain.from_iterable(by_path.values())))
        found["critical_slots"].append(_tally(chain.from_iterable(by_path[path] for path in by_path if path in own)))
        for path in critical:
            found[f"slot {path}"].append(_tally(by_path.get(path, [])))
    return found


def critical_paths(row: Row) -> set[str]:
    """The paths of the row's verdicts whose slots the workload calls critical."""
    return {path for v in row.verdicts if is_critical(row.example, path := slot_path(v.slot))}


def is_critical(example: Example, path: str) -> bool:
    name = slot_name(example, path)
    return name is not None and example.slots[name].critical


def slot_name(example: Example, path: str) -> str | None:
    """The slot of a verdict's path: one with a `path` of its own through a list has verdicts on <slot>[]..."""
    owners = [name for name in example.slots if path == name or path.startswith(f"{name}[")]
    return max(owners, key=len, default=None)


def is_perfect(row: Row) -> bool | None:
    """Whether every slot passed; None when only an error stands between the answer and perfection."""
    if not row.prediction.valid_schema or any(verdict.passed is False for verdict in row.verdicts):
        return False
    return None if any(verdict.status == "error" for verdict in row.verdicts) else True


def per_slot(rows: list[Row], group: str) -> dict[str, SlotRate]:
    """By slot path, list indexes left out: items[0].price counts in items[].price."""
    by_row: list[Counter[str]] = []
    passed_by_row: list[Counter[str]] = []
    critical: dict[str, bool] = {}
    for row in rows:
        scored, passed = Counter[str](), Counter[str]()
        for verdict in row.verdicts:
            path = slot_path(verdict.slot)
            critical[path] = critical.get(path, False) or is_critical(row.example, path)
            scored[path] += verdict.status == "scored"
            passed[path] += verdict.passed is True
        by_row.append(scored)
        passed_by_row.append(passed)
    found = {path: [(p[path], n[path]) for p, n in zip(passed_by_row, by_row, strict=True)] for path in critical}
    ranges = intervals.of_rates(found, groups_of(rows, group))
    rates = {}
    for path, pairs in found.items():
        passed_in_all, n = (sum(column) for column in zip(*pairs, strict=True))
        rate, interval = passed_in_all / n if n else None, ranges.get(path)
        ci95, method = (_bounds(interval), interval.method) if interval else (None, None)
        rates[path] = SlotRate(n=n, pass_rate=rate, ci95=ci95, method=method, critical=critical[path])
    return rates


def slot_path(slot: str) -> str:
    return re.sub(r"\[\d+\]", "[]", slot)


def slices(rows: list[Row], group: str) -> dict[str, Numbers]:
    """Headline rows as a whole, every slice of its own, and headline rows by task, tenant, domain and language."""
    headline = [row for row in rows if not slice_of(row)]
    own: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if name := slice_of(row):
            own[name].append(row)
    found = ({UNSEEN: headline} if headline else {}) | dict(sorted(own.items())) | slicing.slices_of(headline)
    return {name: numbers(part, group) for name, part in found.items()}


def groups_of(rows: list[Row], group: str) -> list[str]:
    return [cluster_of(row, group) for row in rows]


def cluster_of(row: Row, group: str) -> str:
    """The split group of a row, as dataset.split reads it: a row of no group is one of its own."""
    keys: dict[str, Any] = {"task": row.example.task, **row.example.metadata}
    return str(keys.get(group) or row.example.id)


def slice_of(row: Row) -> str | None:
    own = row.example.metadata.get("slice")
    return str(own) if own else None


def _tally(marked: Iterable[bool | None]) -> tuple[int, int, int]:
    marks = list(marked)
    errors = sum(mark is None for mark in marks)
    return sum(mark is True for mark in marks), len(marks) - errors, errors


def _scored(rows: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return [(passed, scored) for passed, scored, _ in rows]


def _rate(rows: list[tuple[int, int, int]]) -> float | None:
    scored = sum(n for _, n, _ in rows)
    return sum(passed for passed, _, _ in rows) / scored if scored else None


def _bounds(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
