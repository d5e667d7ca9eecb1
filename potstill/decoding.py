"""Greedy decoding of Gemma 3 text models on a CPU, many prompts at once.

`model.generate` spends most of a small model's time between the operations: every module is a Python call, and a
batch goes on until its longest answer ends. Here a step is a few dozen tensor operations on a key/value cache of fixed
size, a row that has ended leaves the batch, and while the batch is small, tokens that followed the same words before
are tried ahead (prompt lookup). A guess only saves the steps that would have found it: answers are those of greedy
decoding.

Prompt lookup: Saxena (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from potstill.constraints import Matcher
from potstill.gemma3 import Decoder

# so many rows times tried tokens cost a step little more than one row with one token
TRIED = 48
MOST_TRIED = 8
# tokens that have to be the same before what followed them is tried
MATCHED = 2
# ended rows leave the cache, which is a copy, when so few are left
KEPT = 0.8
MOST_WORKERS = 4


class Row:
    """One prompt and the answer so far; `followers` has where each run of MATCHED tokens was last seen."""

    def __init__(self, index: int, prompt: list[int], most: int, matcher: Matcher | None):
        self.index, self.tokens, self.most, self.start = index, list(prompt), most, len(prompt)
        self.matcher = matcher
        self.followers: dict[tuple[int, ...], int] = {}
        self.indexed = 0
        self.ended = most == 0

    def guess(self, count: int) -> list[int]:
        """Up to `count` tokens to try: those a grammar forces, or those that followed the last MATCHED ones before."""
        if self.matcher is not None:
            return self.matcher.forced()[:count]
        tokens = self.tokens
        for end in range(max(self.indexed, MATCHED), len(tokens)):
            self.followers[tuple(tokens[end - MATCHED : end])] = end
        self.indexed = len(tokens)
        found = self.followers.get(tuple(tokens[-MATCHED:]))
        return [] if found is None else tokens[found : found + count]

    def take(self, tried: list[int], logits: Tensor, stops: set[int]) -> None:
        """Adds the confirmed of the `tried` tokens and the next one; `logits[i]` are of what follows i of them."""
        if self.matcher is None:
            found = logits[: len(tried) + 1].argmax(-1).tolist()
        else:
            # a forced token needs no confirmation
            self.matcher.take(tried)
            last = logits[len(tried)]
            hidden = ~torch.from_numpy(self.matcher.allowed(len(last)))
            found = [*tried, int(last.masked_fill(hidden, -torch.inf).argmax())]
        for number, token in enumerate(found):
            self.tokens.append(token)
            self.ended = token in stops or len(self.tokens) - self.start == self.most
            if self.ended or number == len(tried) or tried[number] != token:
                break
        if self.matcher is not None and not self.ended:
            self.matcher.take(found[-1:])

    @property
    def answer(self) -> list[int]:
        return self.tokens[self.start :]


def workers() -> int:
    """Threads that answer a batch each: small operations gain more from that than from more cores each."""
    return min(MOST_WORKERS, torch.get_num_threads())


def answer(
    model: Any, prompts: list[list[int]], most: int, stops: set[int], matchers: list[Matcher | None]
) -> list[list[int]]:
    """Greedy answers of at most `most` tokens, in the order of the prompts; a stop token is an answer's last.

    An answer with a matcher keeps to its grammar.
    """
    if not hasattr(model, "potstill_decoder"):
        model.potstill_decoder = Decoder(model)
    decoder, count, threads = model.potstill_decoder, min(workers(), len(prompts)), torch.get_num_threads()
    if count == 1:
        return generate(decoder, prompts, most, stops, matchers)
    torch.set_num_threads(max(1, threads // count))
    try:
        with ThreadPoolExecutor(count) as pool:
            # every thread takes each `count`th: prompts come sorted by length, so the threads end together
            jobs = [
                pool.submit(generate, decoder, prompts[first::count], most, stops, matchers[first::count])
                for first in range(count)
            ]
            parts = [iter(job.result()) for job in jobs]
    finally:
        torch.set_num_threads(threads)
    return [next(parts[number % count]) for number in range(len(prompts))]


def stream(model: Any, prompt: list[int], most: int, stops: set[int]) -> Iterator[list[int]]:
    """One greedy answer, yielded as it grows: each time the tokens so far, stop token included."""
    if not hasattr(model, "potstill_decoder"):
        model.potstill_decoder = Decoder(model)
    row = Row(0, prompt, most, None)
    for _ in steps(model.potstill_decoder, [row], stops):
        yield row.answer


def generate(
    decoder: Decoder, prompts: list[list[int]], most: int, stops: set[int], matchers: list[Matcher | None]
) -> list[list[int]]:
    """As `answer`, all prompts in one batch."""
    rows = [Row(*row) for row in zip(range(len(prompts)), prompts, [most] * len(prompts), matchers, strict=True)]
    for _ in steps(decoder, rows, stops):
        pass
    return [row.answer for row in rows]


@torch.inference_mode()
def steps(decoder: Decoder, rows: list[Row], stops: set[int]) -> Iterator[None]:
    """Lets the answers grow until all have ended; yields after each step."""
    longest = max(row.start + row.most for row in rows)
    cache = decoder.new_cache(len(rows), longest + MOST_TRIED)
    read(decoder, rows, cache, stops)
    yield
    alive = rows
    while left := [number for number, row in enumerate(alive) if not row.ended]:
        if len(left) <= KEPT * len(alive):
            alive, cache = [alive[number] for number in left], cache[:, :, left]
        count = min(MOST_TRIED, TRIED // len(alive) - 1)
        guesses = [row.guess(count) if count > 0 and not row.ended else [] for row in alive]
        width = 1 + max(map(len, guesses))
        ids = torch.zeros((len(alive), width), dtype=torch.long)
        for number, (row, guess) in enumerate(zip(alive, guesses, strict=True)):
            ids[number, : 1 + len(guess)] = torch.tensor([row.tokens[-1], *guess])
        positions = torch.tensor([len(row.tokens) - 1 for row in alive])[:, None] + torch.arange(width)
        logits = decoder.logits(decoder.forward(ids, positions, cache))
        for row, guess, own in zip(alive, guesses, logits, strict=True):
            if not row.ended:
                row.take(guess, own, stops)
        yield


def read(decoder: Decoder, rows: list[Row], cache: Tensor, stops: set[int]) -> None:
    """Fills the cache with the prompts and takes each answer's first token."""
    width = max(row.start for row in rows)
    ids = torch.tensor([row.tokens + [0] * (width - row.start) for row in rows])
    hidden = decoder.forward(ids, torch.arange(width).expand(len(rows), -1), cache)
    last = hidden[torch.arange(len(rows)), torch.tensor([row.start - 1 for row in rows])]
    for row, logits in zip(rows, decoder.logits(last), strict=True):
        if not row.ended:
            row.take([], logits[None], stops)
