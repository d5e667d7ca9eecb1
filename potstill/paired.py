"""Statistics of paired answers: differences of rates with bootstrap intervals, and McNemar's exact test.

Whole split groups are drawn with replacement, each with both sides' answers: the cluster bootstrap of
potstill/intervals.py, with the same draws. Swapping the sides changes signs only.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from potstill.intervals import DRAWS, FEW_GROUPS, FEW_MIXED, SEED, Z95, Method, middle95, resample, wilson
from potstill.records import Record

# the standard normal quantile of 80%
Z_POWER = 0.8416212335729143
# passed and scored, of a and of b
Tally = tuple[int, int, int, int]


class Difference(Record):
    """Rates of both sides over what was scored (`n_a`, `n_b`), and a - b with its 95% interval, in shares."""

    a: float | None
    b: float | None
    n_a: int
    n_b: int
    difference: float | None
    ci95: list[float] | None


class McNemar(Record):
    """Perfect records that only one side has, and the exact two-sided p-value (McNemar 1947, Psychometrika 12:153)."""

    only_a: int
    only_b: int
    p_value: Annotated[float, Field(ge=0, le=1)]


class Guarded(NamedTuple):
    """A difference with an interval that a gate may act on; bounds are -1 and 1 where nothing was scored."""

    difference: float | None
    low: float
    high: float
    method: Method


def differences(
    tallies: dict[str, dict[str, Tally]], clusters: dict[str, str], draws: int = DRAWS, seed: int = SEED
) -> dict[str, Difference]:
    """Every number's difference; `tallies` are name -> row id -> Tally, `clusters` row id -> group."""
    import numpy as np

    names = sorted(tallies)
    # in the order of their names, so that the same rows are drawn whichever side comes first
    number = {cluster: n for n, cluster in enumerate(sorted(set(clusters.values())))}
    sums = np.zeros((len(number), len(names), 4))
    for column, name in enumerate(names):
        for id, tally in tallies[name].items():
            sums[number[clusters[id]], column] += tally
    every = np.concatenate([_rates(drawn) for drawn in resample(sums, draws, seed)])
    found = {}
    for column, name in enumerate(names):
        passed_a, n_a, passed_b, n_b = (int(x) for x in sums[:, column].sum(axis=0))
        bounds = middle95(every[:, column])
        both = bool(n_a and n_b)
        found[name] = Difference(
            a=passed_a / n_a if n_a else None,
            b=passed_b / n_b if n_b else None,
            n_a=n_a,
            n_b=n_b,
            difference=passed_a / n_a - passed_b / n_b if both else None,
            ci95=list(bounds) if both and bounds else None,
        )
    return found


def detectable(found: Difference) -> float | None:
    """The minimum detectable effect: the true difference that a two-sided 5% test of rows like these shows with 80%.

    From the width of the bootstrap interval, taken for a normal one: 2.8 standard errors (1.96 + 0.84).
    """
    if found.ci95 is None:
        return None
    low, high = found.ci95
    return (Z95 + Z_POWER) * (high - low) / (2 * Z95)


def guarded(found: Difference, tallies: dict[str, Tally], clusters: dict[str, str]) -> Guarded:
    """The bootstrap interval, or a wider one by rows where too few groups, or too few that differ, were drawn from.

    When no row of few differs, every draw is 0: that shows less than it seems. Then the share of rows on which a is
    worse may be as high as Wilson's bound says, each losing the whole of its row, and likewise for the better ones.
    """
    if found.difference is None or found.ci95 is None:
        return Guarded(None, -1.0, 1.0, "wilson")
    # a row's own difference, without division: the sign of pa / na - pb / nb
    signs = {id: (pa * nb > pb * na) - (pa * nb < pb * na) for id, (pa, na, pb, nb) in tallies.items()}
    scored = {clusters[id] for id in tallies}
    differing = {clusters[id] for id, sign in signs.items() if sign}
    if len(scored) >= FEW_GROUPS and len(differing) >= FEW_MIXED:
        low, high = found.ci95
        return Guarded(found.difference, low, high, "bootstrap")
    n = len(signs)
    worse, better = (sum(sign == which for sign in signs.values()) / n for which in (-1, 1))
    lost, won = (wilson(share, n)[1] - share for share in (worse, better))
    return Guarded(found.difference, found.difference - lost, found.difference + won, "wilson")


def _rates(sums: Any) -> Any:
    """(draws, numbers, 4) sums -> (draws, numbers) differences; not a number where a draw scored nothing."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]


def mcnemar(perfect: Iterable[Tally]) -> McNemar:
    """The exact binomial test of the discordant pairs. It takes rows for independent; the interval does not."""
    signs = Counter(int(a) - int(b) for a, _, b, _ in perfect)
    n, fewer = signs[1] + signs[-1], min(signs[1], signs[-1])
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    # as integers: 2 ** n is beyond a float long before n is beyond a test set
    return McNemar(only_a=signs[1], only_b=signs[-1], p_value=min(1.0, 2 * tail / 2**n) if n else 1.0)
