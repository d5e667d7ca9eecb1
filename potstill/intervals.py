"""Interval and order statistics that reports, comparisons and gates share.

Rows of one split group rise and fall together, so whole groups are drawn with replacement: the cluster bootstrap of
Field and Welsh (2007, JRSS B 69:369), percentiles of 10,000 seeded draws. Where that has too little to draw from, the
interval is Wilson's over rows: with fewer than FEW_GROUPS groups, or when all but fewer than FEW_MIXED groups pass
everything (or fail everything), so that the draws have no tail to speak of.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

Z95 = 1.959963984540054
DRAWS, SEED = 10_000, 17
# with fewer groups than this, the interval of a bootstrap is too narrow
FEW_GROUPS = 20
FEW_MIXED = 5
# draws that are in memory together
CHUNK = 250
Method = Literal["bootstrap", "wilson"]


class Interval(NamedTuple):
    """A 95% interval of a rate, in shares, and how it was made."""

    low: float
    high: float
    method: Method


def wilson(rate: float, n: int) -> tuple[float, float]:
    """The 95% score interval of a share of n (Wilson 1927, JASA 22:209). `rate * n` need not be whole."""
    centre = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def quantile(values: list[float], q: float) -> float:
    """Linear between the two nearest values, as numpy's default."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def resample(sums: Any, draws: int = DRAWS, seed: int = SEED) -> Iterator[Any]:
    """Yields the sums of drawn groups: `sums` is an array (groups, ...), what comes is (up to CHUNK draws, ...)."""
    import numpy as np

    random = np.random.default_rng(seed)
    groups = len(sums)
    for start in range(0, draws, CHUNK):
        picked = random.integers(groups, size=(min(CHUNK, draws - start), groups))
        weights = np.stack([np.bincount(row, minlength=groups) for row in picked])
        yield np.tensordot(weights, sums, axes=1)


def middle95(values: Any) -> tuple[float, float] | None:
    """The 2.5 and 97.5 percentiles of the numbers in an array, those that are no number left out."""
    import numpy as np

    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def of_rates(
    tallies: dict[str, list[tuple[int, int]]], groups: list[str], draws: int = DRAWS, seed: int = SEED
) -> dict[str, Interval]:
    """The 95% interval of every rate that has anything scored.

    `tallies` are name -> (passed, scored) of each row, `groups` the split group of each row.
    """
    import numpy as np

    # in the order of their names, as in a comparison: the same data are drawn there and here
    number = {group: n for n, group in enumerate(sorted(set(groups)))}
    sums = {name: np.zeros((len(number), 2)) for name in tallies}
    for name, rows in tallies.items():
        for group, tally in zip(groups, rows, strict=True):
            sums[name][number[group]] += tally
    found: dict[str, Interval] = {}
    drawn = [name for name in tallies if _drawable(sums[name])]
    if drawn:
        together = np.stack([sums[name] for name in drawn], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            rates = np.concatenate([s[..., 0] / s[..., 1] for s in resample(together, draws, seed)])
        for column, name in enumerate(drawn):
            bounds = middle95(rates[:, column])
            assert bounds is not None
            found[name] = Interval(*bounds, "bootstrap")
    for name, rows in tallies.items():
        passed, scored = (sum(column) for column in zip(*rows, strict=True)) if rows else (0, 0)
        if scored and name not in found:
            # the slots of one answer rise and fall together, so the interval is that of answers, not of slots
            found[name] = Interval(*wilson(passed / scored, sum(n > 0 for _, n in rows)), "wilson")
    return found


def _drawable(sums: Any) -> bool:
    scored = sums[sums[:, 1] > 0]
    failing, passing = (scored[:, 0] < scored[:, 1]).sum(), (scored[:, 0] > 0).sum()
    return bool(len(scored) >= FEW_GROUPS and min(failing, passing) >= FEW_MIXED)


def rows_needed(value: float, low: float, high: float, limit: float, n: int, method: Method) -> int | None:
    """How many rows like these n would move the interval off the limit; None when the value is on it.

    A bootstrap interval narrows with the root of n; Wilson's is recomputed. Both take the value to stay as it is.
    """
    if math.isclose(value, limit, abs_tol=1e-12):
        return None
    above = value > limit
    if method == "bootstrap":
        half = value - low if above else high - value
        return math.ceil(n * (half / abs(value - limit)) ** 2) if half > 0 else n
    if not 0 < limit < 1:
        return None

    def decided(rows: int) -> bool:
        bottom, top = wilson(value, rows)
        return bottom >= limit if above else top < limit

    most = n
    while not decided(most):
        most *= 2
        if most > 10**12:
            return None
    least = max(1, most // 2)
    while least < most:
        half_way = (least + most) // 2
        least, most = (least, half_way) if decided(half_way) else (half_way + 1, most)
    return most
