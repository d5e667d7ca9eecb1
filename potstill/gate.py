"""The rule that says promote, reject or inconclusive, from configs/gate.yaml. docs/gate.md explains it."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from potstill import config, intervals, project
from potstill.breakdown import Prices
from potstill.config import Config
from potstill.intervals import Method, wilson
from potstill.paired import Guarded
from potstill.records import Record

Outcome = Literal["promote", "reject", "inconclusive"]
Share = Annotated[float, Field(ge=0, le=1)]
# number -> passed, scored and errors of each row
Tallies = dict[str, list[tuple[int, int, int]]]


class Check(Record):
    """One number against one limit. `value` is null when errors leave it open; `more_rows` when rows cannot tell.

    A check with `only_reject` says no where its whole interval is below the limit, and nothing otherwise.
    """

    name: str
    value: float | None
    ci95: list[float]
    limit: float
    verdict: Outcome
    method: Method
    more_rows: int | None
    only_reject: bool


class Regression(Record):
    """A slot that is shown to be worse than the baseline: a - b and its 95% interval, in shares."""

    slot: str
    critical: bool
    difference: float
    ci95: list[float]


class Gate(Record):
    """`more_rows` is how many more rows like these would decide, when that is all an inconclusive verdict lacks."""

    verdict: Outcome
    reasons: list[str]
    checks: Annotated[list[Check], Field(default_factory=list)]
    more_rows: int | None = None
    baseline: str | None = None
    regressions: Annotated[list[Regression], Field(default_factory=list)]


class Against(NamedTuple):
    """Paired differences, tuned minus the other: `critical_slots`, `other_slots` and every `slot <path>`."""

    name: str
    n: int
    differences: dict[str, Guarded]
    critical: frozenset[str]


class Limits(Config):
    """configs/gate.yaml"""

    min_json_validity: Share
    min_slot_accuracy: Share
    # of the slots that the workload calls critical, together; and none of them may be shown to be below it
    min_critical_accuracy: Share | None = None
    # the name of the strong model's own answers to the test rows: reports/<run>/predictions.<name>.jsonl, judged
    strong_model: str | None = None
    # how much worse than the strong model the critical slots, and the others, may be
    max_critical_drop: Share = 0.0
    max_drop: Share = 0.05
    # with fewer split groups among the test rows nothing is promoted
    min_groups: Annotated[int, Field(ge=0)] = 0
    # whether free text judged by a model counts only under a certificate of fab eval.calibrate
    require_certificate: bool = False
    # of the lower end of its 95% interval
    min_kappa: Annotated[float, Field(ge=-1, le=1)] = 0.6
    allow_own_family: bool = False
    prices: Prices | None = None


def load_limits() -> Limits:
    return config.load(project.CONFIGS / "gate.yaml", Limits)


def decide(
    tallies: Tallies,
    groups: list[str],
    limits: Limits,
    strong: Against | None = None,
    baseline: Against | None = None,
    doubts: list[str] | None = None,
) -> Gate:
    """Promote when every 95% interval lies above its limit, reject when one lies below, else inconclusive.

    A slot that could not be scored might have passed or failed: the interval spans both. `doubts` are reasons why
    numbers that look good enough cannot be believed: with one, nothing is promoted.
    """
    checks = [*_fixed(tallies, groups, limits), *(_paired(strong, limits) if strong else [])]
    regressions = _regressions(baseline) if baseline else []
    too_far = [r for r in regressions if r.ci95[1] < -_allowed(r.critical, limits)]
    doubts = [*(doubts or []), *_few_groups(len(set(groups)), limits)]
    verdicts = {check.verdict for check in checks}
    final: Outcome = "promote"
    if "reject" in verdicts or too_far:
        final = "reject"
    elif "inconclusive" in verdicts or doubts:
        final = "inconclusive"
    reasons = [_told(check) for check in checks if not check.only_reject or check.verdict == "reject"]
    reasons += [_regressed(r, baseline.name) for r in regressions] if baseline else []
    reasons += doubts
    if errors := sum(row[2] for row in tallies["slot_accuracy"]):
        reasons.append(f"{errors} slots could not be scored")
    wanting = [check.more_rows for check in checks if check.verdict == "inconclusive"]
    more = [rows for rows in wanting if rows is not None]
    decidable = final == "inconclusive" and not doubts and len(more) == len(wanting)
    return Gate(
        verdict=final,
        reasons=reasons,
        checks=checks,
        more_rows=max(more) if decidable else None,
        baseline=baseline.name if baseline else None,
        regressions=regressions,
    )


def _fixed(tallies: Tallies, groups: list[str], limits: Limits) -> list[Check]:
    wanted = {"json_validity": limits.min_json_validity, "slot_accuracy": limits.min_slot_accuracy}
    if limits.min_critical_accuracy is not None and any(n + e for _, n, e in tallies["critical_slots"]):
        names = ["critical_slots", *(name for name in tallies if name.startswith("slot "))]
        wanted |= dict.fromkeys(names, limits.min_critical_accuracy)
    worst = {name: [(p, n + e) for p, n, e in tallies[name]] for name in wanted}
    best = {name: [(p + e, n + e) for p, n, e in tallies[name]] for name in wanted}
    low = intervals.of_rates(worst, groups)
    high = intervals.of_rates(best, groups) if worst != best else low
    checks = []
    for name, limit in wanted.items():
        rows = len(tallies[name])
        if name not in low:
            checks.append(_undecided(name, limit, rows))
            continue
        every = sum(n for _, n in worst[name])
        ends = sum(p for p, _ in worst[name]) / every, sum(p for p, _ in best[name]) / every
        found = low[name].low, high[name].high
        checks.append(_check(name, ends, found, limit, rows, low[name].method, name.startswith("slot ")))
    return checks


def _undecided(name: str, limit: float, rows: int) -> Check:
    """Of a number of which nothing was scored."""
    bounds = [wilson(0.0, rows)[0], wilson(1.0, rows)[1]] if rows else [0.0, 1.0]
    return Check(
        name=name, value=None, ci95=bounds, limit=limit, verdict="inconclusive", method="wilson", more_rows=None,
        only_reject=False,
    )  # fmt: skip


def _check(
    name: str,
    ends: tuple[float, float],
    bounds: tuple[float, float],
    limit: float,
    rows: int,
    method: Method,
    only_reject: bool,
) -> Check:
    verdict: Outcome = "promote" if bounds[0] >= limit else "reject" if bounds[1] < limit else "inconclusive"
    known = ends[0] == ends[1]
    more = None
    if verdict == "inconclusive" and known:
        needed = intervals.rows_needed(ends[0], *bounds, limit, rows, method)
        more = max(1, needed - rows) if needed is not None else None
    return Check(
        name=name,
        value=ends[0] if known else None,
        ci95=list(bounds),
        limit=limit,
        verdict="promote" if only_reject and verdict != "reject" else verdict,
        method=method,
        more_rows=more,
        only_reject=only_reject,
    )


def _paired(strong: Against, limits: Limits) -> list[Check]:
    """Tuned minus strong: both kinds of slots together, and each slot alone where it is shown to be too far below."""
    checks = []
    for name, found in strong.differences.items():
        is_slot = name.startswith("slot ")
        critical = name == "critical_slots" or name.removeprefix("slot ") in strong.critical
        title = f"{name} minus {strong.name}"
        # what no slot of is critical, or what no row has on both sides, is no number
        if found.difference is None:
            continue
        bounds = (found.low, found.high)
        ends = (found.difference, found.difference)
        # 0.0 - x: minus nothing is nothing, not -0.0
        checks.append(_check(title, ends, bounds, 0.0 - _allowed(critical, limits), strong.n, found.method, is_slot))
    return checks


def _allowed(critical: bool, limits: Limits) -> float:
    return limits.max_critical_drop if critical else limits.max_drop


def _regressions(baseline: Against) -> list[Regression]:
    """Slots whose whole interval is below zero, the largest loss first."""
    found = []
    for name, change in baseline.differences.items():
        slot = name.removeprefix("slot ")
        if name.startswith("slot ") and change.difference is not None and change.high < 0:
            critical = slot in baseline.critical
            bounds = [change.low, change.high]
            found.append(Regression(slot=slot, critical=critical, difference=change.difference, ci95=bounds))
    return sorted(found, key=lambda regression: regression.difference)


def _few_groups(groups: int, limits: Limits) -> list[str]:
    if groups >= limits.min_groups:
        return []
    return [f"the test rows are of {groups} groups, min_groups asks for {limits.min_groups}"]


def _told(check: Check) -> str:
    where = {"promote": "above", "reject": "below", "inconclusive": "around"}[check.verdict]
    value = "open" if check.value is None else f"{check.value:.3f}"
    bounds = f"95% interval {check.ci95[0]:.3f} to {check.ci95[1]:.3f} ({check.method})"
    more = ""
    if check.verdict == "inconclusive" and check.more_rows is not None:
        more = f"; about {check.more_rows:,} more rows like these would decide"
    return f"{check.name} {value}, {bounds}, is {where} the limit {check.limit:g}{more}"


def _regressed(found: Regression, baseline: str) -> str:
    kind = "critical slot" if found.critical else "slot"
    low, high = (100 * bound for bound in found.ci95)
    interval = f"95% interval {low:+.1f} to {high:+.1f}"
    return f"{kind} {found.slot} is worse than in {baseline}: {100 * found.difference:+.1f} points, {interval}"
