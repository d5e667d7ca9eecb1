"""Divides rows into train, val and test so that a whole group is on one side."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.stop import DATA, Stop

ATTEMPTS = 50


@dataclass(frozen=True)
class Row:
    """What a split needs to know of an example. `pin` names the split its group must be in, if any.

    A row of a slice is reported apart, so it does not stand for its task in the split it is pinned to.
    """

    id: str
    task: str
    group: str
    stratum: str
    pin: str | None
    in_slice: bool = False


def assign(rows: Sequence[Row], val: float, test: float, seed: int) -> tuple[dict[str, str], int]:
    """group -> split, and the seed that gave a sound division (the first of `seed`, `seed` + 1, ...).

    `val` and `test` are fractions of the rows whose group is not pinned. A task that has pinned val or test rows gets
    no others. Raises Stop 65 for a group pinned to two splits and for too few groups.
    """
    pinned = _pins(rows)
    free = [row for row in rows if row.group not in pinned]
    has_val = {row.task for row in rows if row.pin == "val" and not row.in_slice}
    has_test = {row.task for row in rows if row.pin == "test" and not row.in_slice}
    for attempt in range(seed, seed + ATTEMPTS):
        chosen = dict(pinned)
        _take(chosen, [r for r in free if r.task not in has_test], "test", test, attempt)
        _take(chosen, [r for r in free if r.group not in chosen and r.task not in has_val], "val", val, attempt)
        for row in free:
            chosen.setdefault(row.group, "train")
        if _sound(rows, chosen):
            return chosen, attempt
    groups = len({row.group for row in free})
    raise Stop(
        f"no sound split in {ATTEMPTS} tries: {groups} groups are free to be divided and every task needs at least one "
        "in train, val and test. Give rows finer groups in metadata, or set split.group to another key.",
        DATA,
    )


def _pins(rows: Sequence[Row]) -> dict[str, str]:
    pinned: dict[str, str] = {}
    for row in rows:
        if row.pin is not None and pinned.setdefault(row.group, row.pin) != row.pin:
            raise Stop(
                f"group {row.group!r} is pinned to {pinned[row.group]} and, by row {row.id}, to {row.pin}: "
                "a group belongs to one split. Correct metadata.split or metadata.group.",
                DATA,
            )
    return pinned


def _take(chosen: dict[str, str], rows: list[Row], split: str, fraction: float, seed: int) -> None:
    """Assigns about `fraction` of the rows, by whole groups, to `split`."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [row.group for row in rows]
    folds = min(round(1 / fraction), len(set(groups)))
    if folds < 2:
        return
    strata = [row.stratum for row in rows]
    # a fold cannot be made of a stratum with fewer rows than folds: the rare ones are stratified together
    counts: dict[str, int] = defaultdict(int)
    for stratum in strata:
        counts[stratum] += 1
    strata = [s if counts[s] >= folds else "rare" for s in strata]
    divider = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    tests = [indices for _, indices in divider.split(strata, strata, groups)]
    # StratifiedGroupKFold can return an empty or lopsided fold: take the one nearest to the size asked for
    best = min(tests, key=lambda indices: abs(len(indices) - fraction * len(rows)))
    for index in best:
        chosen[groups[index]] = split


def _sound(rows: Sequence[Row], chosen: dict[str, str]) -> bool:
    present = {(row.task, chosen[row.group]) for row in rows if not row.in_slice}
    return all((task, split) in present for task in {row.task for row in rows} for split in ("train", "val", "test"))
