"""Near-duplicates: which rows dataset.clean drops, and when two rows are one example for dataset.split.

The prompt alone does not say: two products of one shop can have prompts with a Jaccard similarity of 0.94 and other
prices. So a row is dropped only when the answers are equal too; near prompts with other answers are reported.

    seen = near.Deduplicator(threshold)                      # None: exact duplicates only
    reject = seen.check(example, near.signature(example.prompt))
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import iter_unpack, pack
from typing import Any

from potstill import minhash
from potstill.files import canonical_json
from potstill.lsh import Index
from potstill.minhash import jaccard, signature
from potstill.records import Example, Reject

__all__ = ["Conflict", "Conflicts", "Deduplicator", "Slots", "jaccard", "one_example", "signature"]

MAX_CONFLICTS = 1000
# an answer with free keys must not fill the memory with paths, nor the stack with levels
MAX_PATHS = 4096
MAX_LEVELS = 16
EMPTY: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two rows with near prompts and different answers. `jaccard` is estimated; `slots` are the paths that differ."""

    first: str
    second: str
    jaccard: float
    slots: list[str]


@dataclass
class Conflicts:
    """How many conflicts there are, and the first of them."""

    count: int = 0
    pairs: list[Conflict] = field(default_factory=list)

    def add(self, conflict: Conflict) -> None:
        self.count += 1
        if len(self.pairs) < MAX_CONFLICTS:
            self.pairs.append(conflict)


class Slots:
    """Answers as 6 bytes a slot, enough to say in which slots two of them differ. A list is one slot."""

    def __init__(self) -> None:
        self._paths: dict[str, int] = {}

    def pack(self, response: str) -> bytes:
        """(path number, CRC-32 of the value) of every slot that is not empty; a text that is no JSON is one slot."""
        try:
            answer = json.loads(response)
        except ValueError:
            answer = response
        # a CRC of 0 would be an empty slot's
        found = {self._number(path): zlib.crc32(canonical_json(v).encode()) or 1 for path, v in _filled(answer, "")}
        return b"".join(pack("<HI", number, value) for number, value in found.items())

    def differing(self, a: bytes, b: bytes) -> list[str]:
        """The paths in which two packed answers differ, in order."""
        left, right = dict(iter_unpack("<HI", a)), dict(iter_unpack("<HI", b))
        numbers = {n for n in left.keys() | right.keys() if left.get(n) != right.get(n)}
        return sorted(path for path, number in self._paths.items() if number in numbers)

    def _number(self, path: str) -> int:
        return self._paths.setdefault(path, min(len(self._paths), MAX_PATHS))


def one_example(a: bytes, b: bytes, jaccard: float, threshold: float) -> bool:
    """Are two rows with near prompts and these packed answers one example, so that no split may part them?

    They are when the answers agree in most of the slots that either has filled: the same product at another price. An
    answer of one or two slots cannot show that; there, one slot may differ when the prompts are nearer still, at
    halfway from the threshold to equality. The rest of a template's rows are near only in wording.
    """
    left, right = dict(iter_unpack("<HI", a)), dict(iter_unpack("<HI", b))
    filled = left.keys() | right.keys()
    different = sum(left.get(number) != right.get(number) for number in filled)
    if 2 * different < len(filled) or not different:
        return True
    return different == 1 and jaccard >= (1 + threshold) / 2


def _filled(value: Any, path: str, levels: int = MAX_LEVELS) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value and levels:
        for key, child in value.items():
            yield from _filled(child, f"{path}.{key}" if path else str(key), levels - 1)
    elif value not in EMPTY:
        yield path or "response", value


class Deduplicator:
    """Finds rows that were seen before. Rows must come one by one in a fixed order: the first of a pair is kept.

    Memory: about 0.3 KB a row, and with a `threshold` (the Jaccard similarity at which prompts are near) about 1.6 KB.
    `conflicts` has the near prompts with different answers so far.
    """

    def __init__(self, threshold: float | None):
        self.conflicts = Conflicts()
        self._rows: dict[bytes, int] = {}
        self._ids: list[str] = []
        self._answers = bytearray()
        self._packed: list[bytes] = []
        self._slots = Slots()
        self._index = None if threshold is None else Index(threshold)

    def check(self, example: Example, signature: bytes | None) -> Reject | None:
        """Why this row is dropped, or None; a kept row is remembered. `signature` is that of its prompt.

        duplicate: equal task, system text, prompt and answer. conflicting_answer: the same with another answer.
        near_duplicate: equal task, system text and answer, and a prompt at the threshold or above.
        """
        key = _digest(example.task, example.system, example.prompt)
        answer = _digest(example.response)
        first = self._rows.get(key)
        if first is not None:
            if answer == self._answers[16 * first : 16 * first + 16]:
                return _reject(example, "duplicate", f"equal to {self._ids[first]}")
            return _reject(example, "conflicting_answer", f"same prompt as {self._ids[first]}")
        if self._index is not None:
            signature = signature or minhash.signature(example.prompt)
            # under the answer's scope a template's other answers cannot crowd out the row to be found
            prompts = _digest(example.task, example.system).hex()
            alike = f"{prompts} {answer.hex()}"
            near = [m for m in self._index.near(signature, alike) if m.jaccard >= self._index.threshold]
            if near:
                detail = f"near {self._ids[near[0].row]} (Jaccard {near[0].jaccard:.2f}), with an equal answer"
                return _reject(example, "near_duplicate", detail)
            self._report(example, signature, prompts)
            self._index.add(signature, (prompts, alike))
        self._rows[key] = len(self._ids)
        self._ids.append(example.id)
        self._answers += answer
        return None

    def _report(self, example: Example, signature: bytes, scope: str) -> None:
        assert self._index is not None
        packed = self._slots.pack(example.response)
        for match in self._index.near(signature, scope):
            if slots := self._slots.differing(self._packed[match.row], packed):
                self.conflicts.add(Conflict(self._ids[match.row], example.id, round(match.jaccard, 3), slots))
        self._packed.append(packed)


def _digest(*parts: str) -> bytes:
    """16 bytes; parts are kept apart by their lengths."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little") + data)
    return found.digest()


def _reject(example: Example, reason: str, detail: str) -> Reject:
    return Reject(id=example.id, task=example.task, stage="dedupe", reason=reason, detail=detail)
