"""Which item of the candidate's list is which item of the reference's: by index, by a key, or by best match.

One list is aligned once for all the slots that look into it with the same `align`, so an item's name and its price come
from the same item. The order of the candidate's items plays no part but for "index": they are put into an order of
their own first. Best match is the assignment with the most passing slots in all (the Hungarian method, exact); among
equals the one with the most alike texts.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from potstill import slots
from potstill.leaves import ABSENT, Match, leaf_at, place, steps
from potstill.records import Align, Example, KeyAlign, SlotSpec
from potstill.slots import OwnLevels
from potstill.stop import DATA, Stop
from potstill.values import alike, member, too_deep

# comparisons of one slot with another that one list may cost: 100 items with 100 items at 10 slots each
MAX_COMPARISONS = 100_000
MAX_TEXT_CHARS = 500

# (0 to 1 by the slot's level, 0 to 1 by its text) for the values that two items have in a slot
Weigh = Callable[[str, Any, Any], tuple[float, float]]
Likeness = Callable[[Any, Any], tuple[float, float]]
Pairs = list[tuple[Any, Any]]


class Looker(NamedTuple):
    """A slot that looks into the items of a list: `rest` is its path from there."""

    slot: str
    rest: tuple[str, ...]


def of_row(example: Example, own: OwnLevels) -> Callable[[str], Match | None]:
    """`matcher` for one row. Two items agree in a slot as far as its level scores them.

    Free text, and what a workload's own level would look at in the prompt, agree as far as the texts are alike.
    """
    options = {name: slots.options_of(example, name) for name in example.slots}

    def weigh(name: str, want: Any, found: Any) -> tuple[float, float]:
        level = example.slots[name].level
        has_rule = level in slots.RULES and level not in own
        score = (
            (slots.score_with(level, want, found, options[name], 1).score or 0.0) if has_rule else float(want is found)
        )
        if score == 1 or any(side is None or side is ABSENT for side in (want, found)):
            return score, score
        texts = text_likeness(slots.text(want), slots.text(found))
        return (score, texts) if has_rule else (texts, 0.0)

    return matcher(example.slots, weigh)


def matcher(specs: dict[str, SlotSpec], weigh: Weigh) -> Callable[[str], Match | None]:
    """slot -> how `leaves.pairs` pairs its lists, for one answer. Raises Stop 65 where `align` does not fit a path."""
    ways = {name: alignments(name, spec) for name, spec in specs.items() if spec.align}
    known: dict[Any, Pairs] = {}

    def of(slot: str) -> Match | None:
        if slot not in ways or all(way == "index" for way in ways[slot]):
            return None

        def match(depth: int, at: str, left: list[Any], right: list[Any]) -> Pairs:
            prefix = _prefix(place(slot, specs[slot]), depth)
            key = (at, prefix, _shown(ways[slot][: depth + 1]))
            if key not in known:
                lookers = [
                    Looker(name, steps(place(name, specs[name]))[len(prefix) :])
                    for name in ways
                    if _prefix(place(name, specs[name]), depth) == prefix and _shown(ways[name][: depth + 1]) == key[2]
                ]
                known[key] = align(left, right, ways[slot][depth], likeness(lookers, weigh), len(lookers))
            return known[key]

        return match

    return of


def alignments(name: str, spec: SlotSpec) -> list[Align]:
    """The `align` of every list in a slot's path."""
    lists = steps(place(name, spec)).count("[]")
    ways = spec.align if isinstance(spec.align, list) else [spec.align or "index"] * lists
    if not lists or len(ways) != lists:
        wanted = f"{lists} values, one for each []" if lists else "a path with a [], as in items[].price"
        raise Stop(f"slot {name!r}: align wants {wanted}. Correct the slot in configs/workloads/ or slot_specs.", DATA)
    return ways


def align(left: list[Any], right: list[Any], how: Align, like: Likeness, looks: int = 1) -> Pairs:
    """(reference item, candidate item) for every item of both, ABSENT where one is alone; the reference's order first.

    `looks` is how many slots one call of `like` compares.
    """
    if how == "index":
        return list(itertools.zip_longest(left, right, fillvalue=ABSENT))
    right = sorted(right, key=_canonical)
    groups = _by_key(left, right, how) if isinstance(how, KeyAlign) else [([*range(len(left))], [*range(len(right))])]
    found: dict[int, int] = {}
    for rows, columns in groups:
        chosen = _best([left[i] for i in rows], [right[j] for j in columns], like, looks)
        found |= {rows[i]: columns[j] for i, j in chosen.items()}
    rest = sorted({*range(len(right))} - {*found.values()})
    pairs = [(item, right[found[i]] if i in found else ABSENT) for i, item in enumerate(left)]
    return pairs + [(ABSENT, right[j]) for j in rest]


def likeness(lookers: list[Looker], weigh: Weigh) -> Likeness:
    """The sums over some slots of how well two items agree."""

    def like(a: Any, b: Any) -> tuple[float, float]:
        scores = [
            (_overlap(leaf_at(a, rest), leaf_at(b, rest)), 0.0)
            if "[]" in rest
            else weigh(slot, leaf_at(a, rest), leaf_at(b, rest))
            for slot, rest in lookers
        ]
        return sum(score for score, _ in scores), sum(text for _, text in scores)

    return like


def text_likeness(a: str, b: str) -> float:
    """0 to 1: the share of characters in common and in order, of the first 500 of each."""
    from rapidfuzz import fuzz

    return fuzz.ratio(a[:MAX_TEXT_CHARS], b[:MAX_TEXT_CHARS]) / 100


def _best(left: list[Any], right: list[Any], like: Likeness, looks: int) -> dict[int, int]:
    """Index -> index of the assignment with the largest sum of likeness.

    Of lists too long for that, equal items are each other's first, and of the others the first ones are compared.
    """
    if len(left) * len(right) * looks <= MAX_COMPARISONS:
        return _assign(left, right, like, looks)
    chosen = _equal(left, right)
    rows = [i for i in range(len(left)) if i not in chosen]
    taken = set(chosen.values())
    room = MAX_COMPARISONS // looks
    rows = rows[: int(room**0.5)]
    columns = [j for j in range(len(right)) if j not in taken][: room // max(1, len(rows))]
    rest = _assign([left[i] for i in rows], [right[j] for j in columns], like, looks)
    return chosen | {rows[i]: columns[j] for i, j in rest.items()}


def _assign(left: list[Any], right: list[Any], like: Likeness, looks: int) -> dict[int, int]:
    if not left or not right:
        return {}
    if len(left) == len(right) == 1:
        return {0: 0}
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    scores = np.array([[like(a, b) for b in right] for a in left])
    # all the texts together weigh less than one slot that passes
    small = 0.5 / (min(len(left), len(right)) * looks)
    rows, columns = linear_sum_assignment(scores[:, :, 0] + small * scores[:, :, 1], maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def _equal(left: list[Any], right: list[Any]) -> dict[int, int]:
    places: dict[Any, list[int]] = {}
    for j in reversed(range(len(right))):
        places.setdefault(_hashable(right[j]), []).append(j)
    found = {}
    for i, item in enumerate(left):
        if same := places.get(_hashable(item)):
            found[i] = same.pop()
    return found


def _by_key(left: list[Any], right: list[Any], how: KeyAlign) -> list[tuple[list[int], list[int]]]:
    """The indexes of the items of each key on both sides. Items with null there, or without the key, are one group."""
    groups: dict[Any, tuple[list[int], list[int]]] = {}
    for side, items in enumerate((left, right)):
        for index, item in enumerate(items):
            value = leaf_at(item, steps(how.key))
            key = None if value is ABSENT or value is None else _hashable(alike(value, tuple(how.normalise)))
            groups.setdefault(key, ([], []))[side].append(index)
    return [group for group in groups.values() if all(group)]


def _overlap(a: Any, b: Any) -> float:
    """How much two lists of leaves have in common, in any order: 0 to 1."""
    if too_deep(a) or too_deep(b):
        return 0.0
    left, right = (Counter(_flat(side)) for side in (a, b))
    return (left & right).total() / (max(left.total(), right.total()) or 1)


def _flat(value: Any) -> list[Any]:
    return [part for item in value for part in _flat(item)] if isinstance(value, list) else [_hashable(value)]


def _hashable(value: Any) -> Any:
    return "too deep" if too_deep(value) else member(value)


def _canonical(item: Any) -> str:
    """The same text for the same JSON value; only the order of these matters."""
    try:
        return json.dumps(item, sort_keys=True)
    except (ValueError, RecursionError):  # an int of more digits than Python writes, or nesting
        return ""


def _prefix(path: str, depth: int) -> tuple[str, ...]:
    """The steps of a path up to its list number `depth`; () where it has no such list."""
    names = steps(path)
    ends = [number + 1 for number, step in enumerate(names) if step == "[]"]
    return names[: ends[depth]] if depth < len(ends) else ()


def _shown(ways: list[Align]) -> tuple[str, ...]:
    return tuple(str(way) for way in ways)
