"""Examples as training rows: token ids with the loss on the completion only, and a reason for every refused row."""

import hashlib
from collections.abc import Iterable
from typing import Any

from potstill import prompt
from potstill.records import Example, Reject

# what PyTorch's cross entropy leaves out
IGNORED = -100


def training_rows(
    examples: Iterable[Example], tokenizer: Any, max_length: int
) -> tuple[list[dict[str, list[int]]], list[Reject]]:
    """[{"input_ids", "labels"}] and what was refused. A row that does not fit is refused, never cut.

    Cutting takes the end, which is the answer: such a row would train on half an answer or on nothing.
    """
    rows, refused = [], []
    for example in examples:
        rendered = prompt.render(example, tokenizer)
        ids = [*rendered.prompt_ids, *rendered.completion_ids]
        if len(ids) > max_length:
            refused.append(_reject(example, "too_long", f"{len(ids)} tokens, max_length is {max_length}"))
        else:
            rows.append({"input_ids": ids, "labels": [IGNORED] * len(rendered.prompt_ids) + rendered.completion_ids})
    return rows, refused


def weighted(examples: Iterable[Example], seed: int) -> list[Example]:
    """Repeats or leaves out examples so that each counts about `metadata.weight` times (1 when it has none).

    Which rows of a weight like 0.3 stay follows from the seed and the id alone.
    """
    out: list[Example] = []
    for example in examples:
        weight = float(example.metadata.get("weight", 1))
        draw = int.from_bytes(hashlib.sha256(f"{seed}:{example.id}".encode()).digest()[:8], "big") / 2**64
        out.extend([example] * (int(weight) + (draw < weight % 1)))
    return out


def _reject(example: Example, reason: str, detail: str) -> Reject:
    return Reject(id=example.id, task=example.task, stage="train", reason=reason, detail=detail)
