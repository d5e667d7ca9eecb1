"""Compares an artifact's next-token distributions with the merged float32 model's, at every place of the same answers.

The answers are the artifact's own, so an engine that shows probabilities only while it answers can take part, and no
token is asked twice. An engine that shows the likeliest tokens alone gives the rest of the vocabulary one common
probability; merging outcomes never raises a Kullback-Leibler divergence (data processing inequality; Cover and Thomas,
Elements of Information Theory, 2nd edition, section 2.8), so what is measured then is a lower bound.
"""

import math
from functools import cached_property
from typing import Any

from potstill import models
from potstill.parity import Forced
from potstill.parity_engines import TOP, Answered

# a probability below it is rounding
LEAST = 1e-9
# 512 MB of float32; at Gemma's whole vocabulary one answer has 20 million values
KEPT_VALUES = 2**27


class Reference:
    """The merged float32 model, loaded when it is first asked. What it expects is kept for the next artifact."""

    def __init__(self, run: str):
        self.run = run
        self.known: dict[tuple[int, ...], Any] = {}
        self.free = KEPT_VALUES

    @cached_property
    def model(self) -> Any:
        import torch

        return models.load_merged(self.run, torch.float32)[0]

    @cached_property
    def decoder(self) -> Any:
        from potstill import gemma3

        return gemma3.Decoder(self.model) if gemma3.supports(self.model) else None

    def expects(self, prompt: list[int], ids: list[int]) -> Any:
        """(places, vocabulary) log probabilities at each place of the answer, and after its last token."""
        key = (len(prompt), *prompt, *ids)
        if key in self.known:
            return self.known[key]
        found = self._read([*prompt, *ids], len(prompt) - 1)
        if found.numel() <= self.free:
            self.known[key] = found
            self.free -= found.numel()
        return found

    def gap(self, prompt: list[int], answer: list[int], at: int, other: int | None) -> float | None:
        """How much likelier the token of `answer` at place `at` is than `other`, as a difference of logarithms."""
        if at >= len(answer) or other is None:
            return None
        odds = self._read([*prompt, *answer[:at]], len(prompt) - 1 + at)[0]
        return float(odds[answer[at]] - odds[other])

    def _read(self, ids: list[int], start: int) -> Any:
        import torch

        tokens = torch.tensor([ids])
        with torch.inference_mode():
            if self.decoder is None:
                logits = self.model(tokens.to(self.model.device)).logits[0, start:].cpu()
            else:
                positions = torch.arange(len(ids))[None]
                hidden = self.decoder.forward(tokens, positions, self.decoder.new_cache(1, len(ids)))
                logits = self.decoder.logits(hidden[0, start:])
        return torch.log_softmax(logits, -1)


def measure(reference: Reference, prompts: list[list[int]], answered: Answered, rows: int) -> Forced | None:
    """Over the first `rows` answers; None when the engine shows no probabilities, or there is nothing to compare."""
    import torch

    agreed, divergences, seen, used = 0, [], 0, 0
    for index in range(min(rows, len(prompts))):
        found, ids = answered.likeliest(index), answered.answers[index].ids
        if found is None or ids is None:
            continue
        expected = reference.expects(prompts[index], ids)
        used += 1
        for place in range(min(len(found), len(expected))):
            if isinstance(found, torch.Tensor):
                tokens, own = torch.arange(found.shape[-1]), found[place]
            else:
                kept = sorted(found[place].items(), key=lambda pair: -pair[1])[:TOP]
                tokens, own = torch.tensor([i for i, _ in kept]), torch.tensor([p for _, p in kept]).double()
            agreed += int(tokens[own.argmax()] == expected[place].argmax())
            divergences.append(divergence(expected[place][tokens].double(), own))
            seen = max(seen, len(tokens))
    if not divergences:
        return None
    count = len(divergences)
    return Forced(
        rows=used,
        places=count,
        top1=agreed / count,
        kl=sum(divergences) / count,
        kl_max=max(divergences),
        tokens_seen=seen,
    )


def divergence(expected: Any, own: Any) -> float:
    """Kullback-Leibler divergence in nats from log probabilities of the same tokens, all others taken together."""
    p, q = expected.exp(), own.exp()
    rest_p, rest_q = max(0.0, 1 - float(p.sum())), max(0.0, 1 - float(q.sum()))
    # a token of probability 0 adds nothing
    total = float((p * (expected - own)).nan_to_num(0.0).sum())
    if rest_p > LEAST:
        total += rest_p * math.log(rest_p / max(rest_q, LEAST))
    return max(0.0, total)
