"""From documents to supervised tokens: rows of ids, padded batches, the logits that count, and scores."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from potstill.nano import tokenizer
from potstill.nano.material import Document

IGNORED = -100  # torch's cross-entropy skips these labels
WIDTH = 32  # rows are padded to a multiple of it: little waste, few shapes


class Row(NamedTuple):
    """Token ids, of which those from `start` on are supervised."""

    ids: list[int]
    start: int


def encode_row(document: Document, encode: Any) -> Row:
    """The row of a document: all of a plain text is supervised, and the answer of a prompt with its end of turn."""
    if document.prompt is None:
        return Row([*encode(document.answer)["input_ids"], tokenizer.EOS], 1)
    messages = [{"role": "user", "content": document.prompt}]
    if document.system:
        messages.insert(0, {"role": "system", "content": document.system})
    text = encode.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt = encode(text, add_special_tokens=False)["input_ids"]
    answer = encode(document.answer, add_special_tokens=False)["input_ids"]
    return Row([*prompt, *answer, tokenizer.END_OF_TURN], len(prompt))


def batches(rows: list[Row]) -> Iterator[tuple[Any, Any]]:
    """Right-padded ids and labels, each [rows, width], one pair for each width."""
    import torch

    widths: dict[int, list[Row]] = {}
    for row in rows:
        widths.setdefault(-(-len(row.ids) // WIDTH) * WIDTH, []).append(row)
    for width, group in sorted(widths.items()):
        ids = torch.full((len(group), width), tokenizer.PAD)
        labels = torch.full((len(group), width), IGNORED)
        for index, row in enumerate(group):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
            labels[index, row.start : len(row.ids)] = torch.tensor(row.ids[row.start :])
        yield ids, labels


def supervised_logits(model: Any, ids: Any, labels: Any) -> tuple[Any, Any]:
    """Logits [n, vocabulary] and targets [n] of the supervised tokens. Causal attention needs no mask for padding."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    chosen = targets != IGNORED
    return model.lm_head(hidden[chosen]).float(), targets[chosen]


def score_row(model: Any, row: Row) -> tuple[list[float], bool]:
    """The loss of each supervised token, and whether greedy decoding would give all of them."""
    import torch

    [(ids, labels)] = batches([row])
    with torch.no_grad():
        logits, targets = supervised_logits(model, ids, labels)
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return losses.tolist(), bool((logits.argmax(-1) == targets).all())
