"""An index of MinHash signatures that streams: add a row, find the rows near a signature, in flat arrays.

Locality-sensitive hashing by bands (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4): two
signatures are compared when a whole band of theirs is equal, and near when the share of equal minima says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potstill.minhash import PERMUTATIONS, U64, digest, mix, number_keys, sketch

# of the pairs right at the threshold
MIN_RECALL = 0.995
WIDEST_BAND = 32
# rows looked at behind one key, the newest first: keeps a corpus of one template linear in time
MAX_CHAIN = 64

NO_ROWS = np.zeros(0, dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class Match:
    """A row of the index near a signature. `one_number`: the texts differ in one number only."""

    row: int
    jaccard: float
    one_number: bool


class Index:
    """Signatures by row number (0, 1, ... in the order added), found again by any signature near them.

    Memory for a row: 256 bytes of sketch and 20-24 bytes for each key, of which a row has one for each band and number
    (18 bands at a threshold of 0.85, so about 0.7 KB); `fine` adds 12. `scopes` divides the index: a row is found only
    under a scope it was added with, and every scope costs its own keys.
    """

    def __init__(self, threshold: float, fine: bool = False):
        self.threshold = threshold
        # wide bands find the nearest rows even where a template fills the chains of the narrow ones
        widths = [band_width(threshold), *([16, WIDEST_BAND] if fine else [])]
        self._bands = [(width, PERMUTATIONS // width) for width in widths]
        self._factors = mix(np.arange(1, PERMUTATIONS + 1, dtype=np.uint64)) | np.uint64(1)
        nothing = np.zeros(0, dtype=np.uint64)
        self._last: tuple[bytes, U64, U64] = b"", nothing, nothing
        self._salted: dict[str, tuple[U64, U64]] = {}
        self._count = 0
        self._sketches = np.zeros((1024, PERMUTATIONS), dtype=np.uint16)
        # a chained hash table; node 0 ends a chain
        self._nodes = 1
        self._heads = np.zeros(1 << 14, dtype=np.uint32)
        self._next = np.zeros(1 << 14, dtype=np.uint32)
        self._row = np.zeros(1 << 14, dtype=np.uint32)
        self._key = np.zeros(1 << 14, dtype=np.uint64)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self._sketches, self._heads, self._next, self._row, self._key))

    def add(self, signature: bytes, scopes: Sequence[str] = ("",)) -> int:
        """Adds the next row; returns its number."""
        row = self._count
        if row == len(self._sketches):
            self._sketches.resize((row + row // 2, PERMUTATIONS), refcheck=False)
        self._sketches[row] = sketch(signature)
        self._count += 1
        for scope in scopes:
            self._link(np.concatenate(self._keys(signature, scope)), row)
        return row

    def near(self, signature: bytes, scope: str = "") -> list[Match]:
        """The rows whose Jaccard similarity is at least the threshold or that differ in one number, oldest first."""
        bands, numbers = self._keys(signature, scope)
        one_number = self._rows_at(numbers)
        rows = np.union1d(self._rows_at(bands), one_number)
        if not len(rows):
            return []
        shares = np.mean(self._sketches[rows] == sketch(signature), axis=1)
        numeric = np.isin(rows, one_number)
        found = np.flatnonzero(numeric | (shares >= self.threshold))
        return [Match(int(rows[i]), float(shares[i]), bool(numeric[i])) for i in found]

    def _keys(self, signature: bytes, scope: str) -> tuple[U64, U64]:
        # the same signature is looked up, then added, each under the same scopes
        if signature != self._last[0]:
            self._salted.clear()
            products = sketch(signature).astype(np.uint64) * self._factors
            sums = [products[: width * n].reshape(n, width).sum(axis=1, dtype=np.uint64) for width, n in self._bands]
            bands = np.concatenate(sums)
            # bands differ from each other by their place, numbers from bands by the complement of the salt
            self._last = signature, bands ^ self._factors[: len(bands)], number_keys(signature)
        if scope not in self._salted:
            salt = np.uint64(digest(scope))
            self._salted[scope] = mix(self._last[1] ^ salt), mix(self._last[2] ^ ~salt)
        return self._salted[scope]

    def _rows_at(self, keys: U64) -> NDArray[np.uint32]:
        found = []
        nodes = self._heads[keys & np.uint64(len(self._heads) - 1)]
        for _ in range(MAX_CHAIN):
            live = nodes.nonzero()[0]
            if not len(live):
                break
            nodes, keys = nodes[live], keys[live]
            same = nodes[self._key[nodes] == keys]
            if len(same):
                found.append(self._row[same])
            nodes = self._next[nodes]
        return np.unique(np.concatenate(found)) if found else NO_ROWS

    def _link(self, keys: U64, row: int) -> None:
        first, last = self._nodes, self._nodes + len(keys)
        if last > len(self._key):
            self._grow()
        self._key[first:last] = keys
        self._row[first:last] = row
        for node, slot in enumerate((keys & np.uint64(len(self._heads) - 1)).tolist(), first):
            self._next[node] = self._heads[slot]
            self._heads[slot] = node
        self._nodes = last

    def _grow(self) -> None:
        size = len(self._key) + len(self._key) // 2
        for array in (self._next, self._row, self._key):
            array.resize(size, refcheck=False)
        if size <= len(self._heads):
            return
        self._heads = np.zeros(2 * len(self._heads), dtype=np.uint32)
        slots = self._key[1 : self._nodes] & np.uint64(len(self._heads) - 1)
        order = np.argsort(slots, kind="stable")
        slots, nodes = slots[order], (order + 1).astype(np.uint32)
        older = np.append(np.uint32(0), nodes[:-1])
        same = np.append(False, slots[1:] == slots[:-1])
        self._next[nodes] = np.where(same, older, 0)
        # the last node of a run of one slot is its newest: the head
        self._heads[slots[np.append(~same[1:], True)]] = nodes[np.append(~same[1:], True)]


def band_width(threshold: float) -> int:
    """The widest band that still finds MIN_RECALL of the pairs at the threshold."""
    for width in range(WIDEST_BAND, 1, -1):
        if 1 - (1 - threshold**width) ** (PERMUTATIONS // width) >= MIN_RECALL:
            return width
    return 1
