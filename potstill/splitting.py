"""Divides rows into train, val and test so that a whole group is on one side and every task is in all three."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from potstill.stop import DATA, Stop

SPLITS = ("train", "val", "test")
ATTEMPTS = 20
# sound divisions that are tried for one within the drift bound
DRIFT_ATTEMPTS = 10
# steps of the search for a sound division where chance found none
SEARCH_STEPS = 20_000


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Drift:
    """Where a split differs most from the free rows it was taken from: a stratum's share of each."""

    split: str
    stratum: str
    share: float
    free_share: float

    @property
    def size(self) -> float:
        return abs(self.share - self.free_share)


def assign(
    rows: Sequence[Row], val: float, test: float, seed: int, max_drift: float = 1.0
) -> tuple[dict[str, str], int]:
    """group -> split, and the seed that gave the division (the first of `seed`, `seed` + 1, ... that is sound).

    `val` and `test` are fractions of the rows whose group is not pinned. A task that has pinned val or test rows gets
    no others; a task without val rows whose groups are all pinned gets some of those pinned to train. A division is
    sound when every task is in every split. One within `max_drift` is preferred, else the sound one with the least
    drift is taken: groups can be too coarse for any bound. Raises Stop 65 for a group pinned to two splits and when no
    division is sound.
    """
    plan = _Plan(rows, val, test)
    fixed = _cover(rows, plan.pinned, plan.lent)
    best: tuple[float, dict[str, str], int] | None = None
    sound = 0
    for attempt in range(seed, seed + ATTEMPTS) if fixed is not None else ():
        chosen = plan.divide(attempt)
        if not is_sound(rows, chosen):
            continue
        drifted = drift(rows, chosen)
        size = drifted.size if drifted else 0.0
        if best is None or size < best[0]:
            best = size, chosen, attempt
        sound += 1
        if size <= max_drift or sound == DRIFT_ATTEMPTS:
            break
    if best is not None:
        return best[1], best[2]
    # few groups, or a task in few of them: what the search fixed stays, chance divides the rest
    if fixed is not None and is_sound(rows, chosen := {**plan.divide(seed), **fixed}):
        return chosen, seed
    raise Stop(_impossible(rows, plan.pinned), DATA)


def is_sound(rows: Sequence[Row], chosen: Mapping[str, str]) -> bool:
    present = {(row.task, chosen[row.group]) for row in rows if not row.in_slice}
    return all((task, split) in present for task in {row.task for row in rows} for split in SPLITS)


def drift(rows: Sequence[Row], chosen: Mapping[str, str]) -> Drift | None:
    """The largest drift of a stratum in val or test; None where neither has free rows."""
    found: list[Drift] = []
    for split in ("val", "test"):
        free = free_for(rows, split)
        taken = Counter(row.stratum for row in free if chosen[row.group] == split)
        for stratum, count in sorted(Counter(row.stratum for row in free).items()) if taken else ():
            found.append(Drift(split, stratum, taken[stratum] / taken.total(), count / len(free)))
    return max(found, key=lambda d: d.size, default=None)


def free_for(rows: Sequence[Row], split: str) -> list[Row]:
    """The rows that val or test was taken from: in no pinned group, and of a task that has no rows pinned to it."""
    pinned = {row.group for row in rows if row.pin is not None}
    served = _served(rows, split)
    return [row for row in rows if row.group not in pinned and row.task not in served]


class _Plan:
    """What is the same in every attempt: the pins, and which rows val and test may be taken from."""

    def __init__(self, rows: Sequence[Row], val: float, test: float):
        self.val, self.test = val, test
        pinned = _pins(rows)
        free = [row for row in rows if row.group not in pinned]
        has_val, has_test = _served(rows, "val"), _served(rows, "test")
        lent = _lent(rows, pinned, has_val | {row.task for row in free})
        self.pinned = {group: split for group, split in pinned.items() if group not in lent}
        self.for_test = [row for row in free if row.task not in has_test]
        self.for_val = [row for row in rows if row.group not in self.pinned and row.task not in has_val]
        self.lent = lent
        self.groups = list(dict.fromkeys(row.group for row in rows))

    def divide(self, seed: int) -> dict[str, str]:
        chosen = dict(self.pinned)
        _take(chosen, self.for_test, "test", self.test, seed)
        _take(chosen, [row for row in self.for_val if row.group not in chosen], "val", self.val, seed)
        return dict.fromkeys(self.groups, "train") | chosen


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


def _served(rows: Sequence[Row], split: str) -> set[str]:
    """The tasks that have rows pinned to the split."""
    return {row.task for row in rows if row.pin == split and not row.in_slice}


def _lent(rows: Sequence[Row], pinned: dict[str, str], served: Collection[str]) -> set[str]:
    """The groups pinned to train of which val may be taken: those of tasks that could have no val otherwise."""
    of_others = {row.group for row in rows if row.task in served}
    return {group for group, split in pinned.items() if split == "train" and group not in of_others}


def _take(chosen: dict[str, str], rows: list[Row], split: str, fraction: float, seed: int) -> None:
    """Assigns about `fraction` of the rows, by whole groups, to `split`."""
    from sklearn.model_selection import StratifiedGroupKFold

    names = sorted({row.group for row in rows})
    folds = min(round(1 / fraction), len(names))
    if folds < 2:
        return
    # numbers take less memory than the names, and sort alike
    number = {name: n for n, name in enumerate(names)}
    groups = [number[row.group] for row in rows]
    # a fold cannot be made of a stratum with fewer rows than folds: the rare ones are stratified together
    counts = Counter(row.stratum for row in rows)
    kinds: dict[str, int] = defaultdict(lambda: len(kinds))
    strata = [kinds[row.stratum if counts[row.stratum] >= folds else "rare"] for row in rows]
    divider = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # it warns of strata smaller than the folds: the rare ones may be that few, and drift is checked afterwards
        warnings.simplefilter("ignore", UserWarning)
        tests = [indices for _, indices in divider.split(strata, strata, groups)]
    # StratifiedGroupKFold can return an empty or lopsided fold: take the one nearest to the size asked for
    best = min(tests, key=lambda indices: abs(len(indices) - fraction * len(rows)))
    for index in best:
        chosen[rows[index].group] = split


def _cover(rows: Sequence[Row], pinned: dict[str, str], lent: set[str]) -> dict[str, str] | None:
    """A split for the groups that make a division sound, found by depth-first search; None when there is none.

    Gives up after SEARCH_STEPS with nothing but the pins.
    """
    sizes = Counter(row.group for row in rows)
    tasks: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if not row.in_slice:
            tasks[row.group].add(row.task)
    holders = {
        task: sorted((g for g in tasks if task in tasks[g]), key=lambda g: (sizes[g], g)) for task in tasks_of(rows)
    }
    # the task with the fewest groups first: it has the least choice
    needs = [(task, split) for task in sorted(holders, key=lambda t: (len(holders[t]), t)) for split in SPLITS]
    steps = 0

    def search(fixed: dict[str, str], at: int) -> dict[str, str] | None:
        nonlocal steps
        steps += 1
        while at < len(needs) and any(fixed.get(g) == needs[at][1] for g in holders[needs[at][0]]):
            at += 1
        if at == len(needs):
            return fixed
        task, split = needs[at]
        for group in holders[task]:
            allowed = group not in fixed and not (split == "test" and group in lent)
            if allowed and steps < SEARCH_STEPS and (found := search({**fixed, group: split}, at + 1)):
                return found
        return None

    found = search(pinned, 0)
    return pinned if found is None and steps >= SEARCH_STEPS else found


def tasks_of(rows: Sequence[Row]) -> list[str]:
    return sorted({row.task for row in rows})


def _impossible(rows: Sequence[Row], pinned: dict[str, str]) -> str:
    free = {row.group for row in rows} - pinned.keys()
    groups = {task: len({r.group for r in rows if r.task == task and r.group in free}) for task in tasks_of(rows)}
    task = min(groups, key=lambda t: groups[t])
    return (
        f"no sound split: {len(free)} groups are free to be divided ({groups[task]} with task {task}), and every task "
        "needs at least one in train, val and test. Give rows finer groups in metadata, set split.group to another "
        "key, or raise near_duplicates.threshold if near-duplicates joined the groups."
    )
