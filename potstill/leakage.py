"""What would leak between splits: equal prompts, near-duplicates and shared groups, found while rows stream by.

overlaps = Overlaps(threshold)                 # None: equal prompts and groups only
for example in ...: overlaps.add(example, group, pin)
overlaps.settle()
overlaps.group(row)                            # the row's group, near-duplicates joined
overlaps.crossing(split_of)                    # the pairs that a division parts
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from potstill import minhash, near
from potstill.lsh import Index
from potstill.records import Example

Kind = Literal["exact", "near_duplicate", "group", "conflict"]
KINDS: tuple[Kind, ...] = ("exact", "near_duplicate", "group", "conflict")
# those that stop a split; a conflict is two prompts alike whose answers are not
BLOCKING: tuple[Kind, ...] = ("exact", "near_duplicate", "group")
# pairs between groups that are remembered for the report, 13 bytes each
MAX_PAIRS = 2_000_000
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows in different splits. `jaccard` is estimated; `slots` are those in which the answers differ."""

    kind: Kind
    first: str
    second: str
    splits: tuple[str, str]
    jaccard: float
    slots: list[str]


@dataclass(frozen=True, slots=True)
class Probe:
    """What is compared of a row: digests of its prompt, its signature and its packed answer."""

    task: str
    prompt: bytes
    signature: bytes
    answer: bytes


class Overlaps:
    """Rows of all splits, by number in the order added. Memory: 0.4 KB a row, with a `threshold` about 1.6 KB.

    With a threshold, rows with equal prompts and rows that are one example (near.one_example) are joined to one group,
    unless their groups are pinned to different splits: then the pair is left to `crossing`.
    """

    def __init__(self, threshold: float | None):
        self.threshold = threshold
        self._index = None if threshold is None else Index(threshold, fine=True)
        self._slots = near.Slots()
        self._ids: list[str] = []
        self._answers: list[bytes] = []
        self._prompts: dict[bytes, int] = {}
        self._groups: dict[str, int] = {}
        self._names: list[str] = []
        self._pins: list[str | None] = []
        self._group_of = array("I")
        self._forest = Forest()
        # the pairs between groups: both rows, the similarity, the kind
        self._pairs = (array("I"), array("I"), array("f"), array("B"))
        self.unlisted = 0

    def add(self, example: Example, group: str, pin: str | None) -> None:
        """The next row, with its metadata group and the split it is pinned to, if any."""
        row = len(self._ids)
        number = self._groups.setdefault(group, len(self._names))
        if number == len(self._names):
            self._names.append(group)
            self._pins.append(None)
            self._forest.add()
        self._pins[number] = self._pins[number] or pin
        self._ids.append(example.id)
        self._group_of.append(number)
        probe = self._probe(example)
        for other, jaccard, kind in self._alike(probe):
            if self._group_of[other] != number:
                self._remember(other, row, jaccard, kind)
        self._prompts.setdefault(probe.prompt, row)
        if self._index is not None:
            self._answers.append(probe.answer)
            self._index.add(probe.signature, (probe.task,))

    def settle(self) -> None:
        """Joins the groups, once every pin is known. A group keeps the pin of any that was joined to it."""
        self._forest = Forest(len(self._names))
        pins = list(self._pins)
        if self.threshold is None:
            return
        for first, second, _, kind in zip(*self._pairs, strict=True):
            roots = [self._forest.root(self._group_of[row]) for row in (first, second)]
            pinned = {pins[root] for root in roots} - {None}
            if KINDS[kind] != "conflict" and len(pinned) < 2:
                pins[self._forest.join(*roots)] = next(iter(pinned), None)

    def group(self, row: int) -> str:
        """The row's group: the first of those joined."""
        return self._names[self._forest.root(self._group_of[row])]

    def crossing(self, split_of: Callable[[int], str]) -> Iterator[Pair]:
        """The pairs whose rows are in different splits, and every group with rows in two."""
        for first, second, jaccard, kind in zip(*self._pairs, strict=True):
            if split_of(first) != split_of(second):
                yield self._pair(KINDS[kind], first, second, jaccard, split_of)
        seen: dict[int, int] = {}
        for row, number in enumerate(self._group_of):
            first = seen.setdefault(number, row)
            if split_of(first) != split_of(row):
                yield self._pair("group", first, row, 0.0, split_of)

    def held_out_twin(self, example: Example, split_of: Callable[[int], str]) -> bool:
        """Is a row of val or test this one, or nearly? Asked of rows that were made of train rows."""
        found = self._alike(self._probe(example))
        return any(kind in BLOCKING and split_of(row) != "train" for row, _, kind in found)

    def joined(self) -> list[int]:
        """The sizes, in rows, of the groups that near-duplicates joined; the largest first."""
        groups = Counter(self._forest.root(number) for number in range(len(self._names)))
        rows = Counter(self._forest.root(number) for number in self._group_of)
        return sorted((rows[root] for root, size in groups.items() if size > 1), reverse=True)

    def _probe(self, example: Example) -> Probe:
        plain = minhash.normalise(example.prompt).encode("utf-8", "surrogatepass")
        prompt = hashlib.blake2b(plain, digest_size=16).digest()
        if self._index is None:
            return Probe(example.task, prompt, b"", b"")
        return Probe(example.task, prompt, minhash.signature(example.prompt), self._slots.pack(example.response))

    def _alike(self, probe: Probe) -> Iterator[tuple[int, float, Kind]]:
        equal = self._prompts.get(probe.prompt)
        if equal is not None:
            yield equal, 1.0, "exact"
        if self._index is None or self.threshold is None:
            return
        for match in self._index.near(probe.signature, probe.task):
            if match.row != equal:
                one = near.one_example(self._answers[match.row], probe.answer, match.jaccard, self.threshold)
                yield match.row, match.jaccard, "near_duplicate" if one else "conflict"

    def _remember(self, first: int, second: int, jaccard: float, kind: Kind) -> None:
        roots = [self._forest.root(self._group_of[row]) for row in (first, second)]
        # a pair that joins two groups for the first time is needed, however many there are
        joins = kind != "conflict" and roots[0] != roots[1]
        if joins:
            self._forest.join(*roots)
        elif len(self._pairs[0]) >= MAX_PAIRS:
            self.unlisted += 1
            return
        firsts, seconds, similarities, kinds = self._pairs
        firsts.append(first)
        seconds.append(second)
        similarities.append(jaccard)
        kinds.append(KINDS.index(kind))

    def _pair(self, kind: Kind, first: int, second: int, jaccard: float, split_of: Callable[[int], str]) -> Pair:
        slots: list[str] = []
        if self._answers:
            slots = self._slots.differing(self._answers[first], self._answers[second])
        splits = split_of(first), split_of(second)
        return Pair(kind, self._ids[first], self._ids[second], splits, round(jaccard, 3), slots)


class Forest:
    """Union-find over the numbers 0, 1, ...; the root of a set is its smallest number."""

    def __init__(self, size: int = 0):
        self._parent = array("I", range(size))

    def add(self) -> None:
        self._parent.append(len(self._parent))

    def root(self, number: int) -> int:
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(self, a: int, b: int) -> int:
        """Joins the sets of two roots; returns the root of the union."""
        first, second = min(a, b), max(a, b)
        self._parent[second] = first
        return first


def summary(pairs: Iterable[Pair]) -> dict[str, Any]:
    """{"counts": kind -> pairs in different splits, "pairs": kind -> the first 100 of them}."""
    counts = dict.fromkeys(KINDS, 0)
    shown: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for pair in pairs:
        counts[pair.kind] += 1
        if len(shown[pair.kind]) < SHOWN:
            shown[pair.kind].append(asdict(pair))
    return {"counts": counts, "pairs": shown}
