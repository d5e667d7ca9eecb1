"""Which pieces of a vocabulary a set of texts needs, so that joining them gives the same tokens as before.

Byte-pair encoding joins the best adjacent pair until none is left. Take away pieces that are never made while a text
is joined, and every step's best pair is still there and still the best: the text gets the same tokens. What is made
inside a token does not depend on what stands around it, so it is found by joining the token's own text alone.
Hugging Face (lowest merge rank, leftmost) and SentencePiece and llama.cpp (best score, leftmost) may join one text by
different ways: what any of them makes is kept.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any

from potstill.vocab_files import UNUSED_NAME, Tokenizer

# rows of a matrix in multiples of this suit the kernels of llama.cpp (8) and of GPUs (64)
MULTIPLE = 64
BATCH = 256
Rank = Callable[[str, str], float | None]


@dataclass(frozen=True)
class Selection:
    """`ids` of the original vocabulary in order; a token's new id is its position. `used` of them occur in the texts.

    `reserve` counts what was added by frequency, including what fills the vocabulary up to a multiple of 64.
    """

    ids: list[int]
    used: int
    reserve: int


def select(tokenizer: Tokenizer, used: set[int], named: set[int], reserve: int) -> Selection:
    """Control, byte and user-defined pieces, single characters, `used` and `named` ids and their paths, and a reserve.

    The reserve is the likeliest pieces left: a BPE vocabulary lists pieces in the order in which they were learnt, the
    most frequent pair first. A piece that no text can be joined to is never one of them.
    """
    kept = used | named | whole(tokenizer)
    paths = Paths(tokenizer)
    for token in sorted(kept):
        kept |= paths.to(token)
    wanted = len(kept) + reserve
    room = -(-wanted // MULTIPLE) * MULTIPLE - len(kept)
    added = 0
    for token in sorted(paths.joined - kept, key=lambda i: (-tokenizer.scores[i], i)):
        group = paths.to(token) - kept if paths.lead_to(token) else set()
        # a piece whose path does not fit leaves its place to the next
        if len(group) <= room - added:
            kept |= group
            added += len(group)
        if added == room:
            break
    return Selection(sorted(kept), len(used), added)


def whole(tokenizer: Tokenizer) -> set[int]:
    """What is kept for any text: everything that is no joined piece, but for the placeholders named <unusedN>."""
    from sentencepiece import sentencepiece_model_pb2

    normal = vars(sentencepiece_model_pb2)["ModelProto"].SentencePiece.NORMAL
    always = {i for i, p in enumerate(tokenizer.model.pieces) if p.type != normal or len(p.piece) == 1}
    always |= {i for text, i in tokenizer.vocab.items() if len(text) == 1}
    added = {i: text for text, i in tokenizer.added.items()}
    always |= set(added)
    name = {**dict(enumerate(p.piece for p in tokenizer.model.pieces)), **added}
    return {i for i in always if i < tokenizer.rows and not UNUSED_NAME.fullmatch(name.get(i, ""))}


class Paths:
    """The pieces that are made on the way to a piece, by either way of joining. `joined` has every joined piece."""

    def __init__(self, tokenizer: Tokenizer):
        from sentencepiece import sentencepiece_model_pb2

        kinds = vars(sentencepiece_model_pb2)["ModelProto"].SentencePiece
        pieces = list(tokenizer.model.pieces)
        made = (kinds.NORMAL, kinds.USER_DEFINED, kinds.UNUSED)
        self.joined = {i for i, p in enumerate(pieces) if p.type == kinds.NORMAL and len(p.piece) > 1}
        self.fast_ids = tokenizer.vocab
        self.fast_text = {i: text for text, i in tokenizer.vocab.items()}
        self.slow_ids = {p.piece: i for i, p in enumerate(pieces) if p.type in made}
        self.slow_text = {i: text for text, i in self.slow_ids.items()}
        self.scores = tokenizer.scores
        self.ranks = tokenizer.ranks()

    def to(self, token: int) -> set[int]:
        """Ids of the pieces made while the token's own text is joined to it, the token included."""
        fast, slow = self._ways(token)
        return {self.fast_ids[piece] for piece in fast or ()} | {self.slow_ids[piece] for piece in slow or ()}

    def lead_to(self, token: int) -> bool:
        """Whether both ways of joining make the token of its own text."""
        return all(self._ways(token))

    def _ways(self, token: int) -> tuple[list[str] | None, list[str] | None]:
        fast = joins(self.fast_text.get(token, ""), lambda left, right: self.ranks.get((left, right)))
        return fast, joins(self.slow_text.get(token, ""), self._by_score)

    def _by_score(self, left: str, right: str) -> float | None:
        token = self.slow_ids.get(left + right)
        return None if token is None else -self.scores[token]


def joins(text: str, rank: Rank) -> list[str] | None:
    """The pieces made, in order, while the characters of `text` are joined to one; None when more than one is left."""
    symbols, made = list(text), []
    while len(symbols) > 1:
        ranked = ((rank(*pair), i) for i, pair in enumerate(pairwise(symbols)))
        best = min(((value, i) for value, i in ranked if value is not None), default=None)
        if best is None:
            return None
        i = best[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        made.append(symbols[i])
    return made


def encodings(fast: Any, slow: Any, controls: Any, texts: Iterable[str]) -> Iterator[tuple[Any, Any]]:
    """(Hugging Face ids, SentencePiece ids) of the texts as int32 arrays, a batch of texts at a time.

    SentencePiece reads each text as a whole and, as llama.cpp does, the parts between control tokens: `controls` is
    the pattern that finds them, or None.
    """
    import numpy as np

    rest = iter(texts)
    while batch := list(islice(rest, BATCH)):
        ids = fast(batch, add_special_tokens=False)["input_ids"]
        parts = [part for text in batch if controls and controls.search(text) for part in controls.split(text)]
        pieces = slow.encode([*batch, *filter(None, dict.fromkeys(parts))])
        yield np.fromiter(chain.from_iterable(ids), np.int32), np.fromiter(chain.from_iterable(pieces), np.int32)
