"""Statistics of paired answers: differences of rates with bootstrap intervals, and McNemar's exact test.

Rows of one split group rise and fall together, so whole groups are drawn with replacement, each with both sides'
answers: the cluster bootstrap of Field and Welsh (2007, JRSS B 69:369). Swapping the sides changes signs only.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from potstill.records import Record

DRAWS, SEED = 10_000, 17
# draws that are in memory together
CHUNK = 250
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


def differences(
    tallies: dict[str, dict[str, Tally]], clusters: dict[str, str], draws: int, seed: int
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
    random = np.random.default_rng(seed)
    drawn = []
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        picked = random.integers(len(number), size=(size, len(number)))
        weights = np.stack([np.bincount(row, minlength=len(number)) for row in picked])
        drawn.append(_rates(np.tensordot(weights, sums, axes=1)))
    every = np.concatenate(drawn)
    found = {}
    for column, name in enumerate(names):
        passed_a, n_a, passed_b, n_b = (int(x) for x in sums[:, column].sum(axis=0))
        known = every[:, column][~np.isnan(every[:, column])]
        both = bool(n_a and n_b)
        found[name] = Difference(
            a=passed_a / n_a if n_a else None,
            b=passed_b / n_b if n_b else None,
            n_a=n_a,
            n_b=n_b,
            difference=passed_a / n_a - passed_b / n_b if both else None,
            ci95=[float(q) for q in np.quantile(known, [0.025, 0.975])] if both and len(known) else None,
        )
    return found


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
