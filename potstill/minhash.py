"""MinHash signatures of texts: 256 bytes that estimate how much two texts share.

Text is compared by its sets of 5 consecutive characters, in lower case and with spaces evened out, which needs no word
boundaries and so no language. Two signatures estimate the Jaccard similarity J of two sets with a standard error of
sqrt(J * (1 - J) / 128), 0.03 at 0.85 (Broder 1997; the sketches are rensa's R-MinHash, algorithm version 2). Nothing
depends on the process, the machine or PYTHONHASHSEED.
"""

import hashlib
import itertools
import re

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

PERMUTATIONS = 128
SEED = 17
SHINGLE = 5
# a text with fewer different shingles is near only what it equals
MIN_SHINGLES = 16
# a signature of a longer text is that of its beginning, so that no text takes more than 0.1 s or 100 MB
MAX_CHARACTERS = 1_000_000
# texts in which one number more or less is a large share of the shingles
SHORT_CHARACTERS = 2_000
MAX_NUMBERS = 16
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

U64 = NDArray[np.uint64]
# the high half of a word is its well-mixed half
HIGH_16 = np.uint64(48)


def normalise(text: str) -> str:
    """Case and spacing make no new prompt."""
    return " ".join(text.lower().split())


def signature(text: str) -> bytes:
    """256 bytes of MinHash (128 x uint16), then 8 bytes for every number of a short text.

    Two short texts share such an 8-byte key when they differ in one number only, wherever it is repeated: 24.50 for
    19.99 changes 9 shingles, which is too much for the Jaccard similarity of a short text.
    """
    plain = normalise(text[:MAX_CHARACTERS])
    tokens = _shingles(plain)
    if len(tokens) < MIN_SHINGLES or (len(plain) <= SHORT_CHARACTERS and len(np.unique(tokens)) < MIN_SHINGLES):
        tokens = np.array([digest(plain)], dtype=np.uint64)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(tokens, [0, len(tokens)], PERMUTATIONS, SEED).to_rows()
    minima = mix(np.array(rows[0], dtype=np.uint64)) >> HIGH_16
    return minima.astype("<u2").tobytes() + np.array(_one_number_keys(plain), dtype="<u8").tobytes()


def jaccard(a: bytes, b: bytes) -> float:
    """The estimated Jaccard similarity of two texts, from their signatures."""
    return float(np.mean(sketch(a) == sketch(b)))


def sketch(signature: bytes) -> NDArray[np.uint16]:
    return np.frombuffer(signature, dtype="<u2", count=PERMUTATIONS)


def number_keys(signature: bytes) -> U64:
    return np.frombuffer(signature, dtype="<u8", offset=2 * PERMUTATIONS)


def mix(values: U64) -> U64:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def digest(text: str) -> int:
    """The same 64 bits for the same text, everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _shingles(plain: str) -> U64:
    points = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    count = max(len(points) - SHINGLE + 1, 0)
    tokens = np.zeros(count, dtype=np.uint64)
    for offset in range(SHINGLE):
        tokens = tokens * np.uint64(0x9E3779B97F4A7C15) + points[offset : offset + count]
    return mix(tokens)


def _one_number_keys(plain: str) -> list[int]:
    """For every number of a short text, the digest of the text without it; none where little else is said."""
    if len(plain) > SHORT_CHARACTERS or sum(map(str.isalpha, plain)) < MIN_SHINGLES:
        return []
    parts, found = NUMBER.split(plain), NUMBER.findall(plain)
    numbers = dict.fromkeys(found)
    if len(numbers) > MAX_NUMBERS:
        return []
    return [digest(_joined(parts, ["\0" if other == number else other for other in found])) for number in numbers]


def _joined(parts: list[str], numbers: list[str]) -> str:
    return "".join(itertools.chain(*zip(parts, numbers, strict=False), parts[-1:]))
