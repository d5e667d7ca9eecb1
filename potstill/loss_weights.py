"""How much each token of an answer counts in the loss, by what it writes: JSON's structure, a key, or a value.

`loss_weights` of a train config; without it nothing is computed here. The loss is then the weighted mean of the
tokens' losses, divided by the weights of the whole step: of all its batches, and of all processes.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from potstill.runs import LossWeights

Kind = Literal["structure", "keys", "values"]

# a string with its quotes, a number or a word, or one sign of structure
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s\[\]{}:,"]+|.', re.DOTALL)
_COLON = re.compile(r"\s*:")


def kinds(answer: str) -> list[Kind]:
    """What each character of an answer is; an answer that is no JSON is all values.

    A key and a text belong to their quotes: the opening quote already says that it is a text and not null.
    """
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return ["values"] * len(answer)
    found: list[Kind] = []
    for piece in _PIECE.finditer(answer):
        text = piece.group()
        kind: Kind = "values"
        if text in "{}[]:," or text.isspace():
            kind = "structure"
        elif text.startswith('"') and _COLON.match(answer, piece.end()):
            kind = "keys"
        found += [kind] * len(text)
    return found


def token_weights(answer: str, spans: Sequence[tuple[int, int]], weights: LossWeights) -> list[float]:
    """The weight of each token, given the characters of the answer it covers as (start, end).

    A token that covers several kinds has the largest of their weights. One that covers nothing of the answer, as the
    end of the turn, is structure.
    """
    by_kind = weights.model_dump()
    of = [by_kind[kind] for kind in kinds(answer)]
    return [max(of[start:end], default=weights.structure) for start, end in spans]


def of_completion(answer: str, ending: str, tokenizer: Any, weights: LossWeights) -> list[float]:
    """The weights of the tokens of `answer + ending`, in the order of prompt.render's completion_ids."""
    encoded = tokenizer(answer + ending, add_special_tokens=False, return_offsets_mapping=True)
    return token_weights(answer, encoded["offset_mapping"], weights)


def weighting(trainer_class: Any) -> Any:
    """The trainer class for rows with `weights`: the loss is the weighted mean of the tokens' losses.

    It is divided by the weights of the whole step, as the plain loss is by its tokens. Evaluation is not weighted.
    """

    import torch

    class Weighted(torch.nn.Module):
        """The model, whose log-probabilities count by weight: TRL sums them up."""

        def __init__(self, model: Any, weights: Any):
            super().__init__()
            self.model, self.weights = model, weights

        def forward(self, **inputs: Any) -> Any:
            outputs = self.model(**inputs)
            # of the second token on: the first one is not foretold
            outputs.log_probs = outputs.log_probs * self.weights[:, 1:]
            return outputs

    class Weighting(trainer_class):
        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, _ = super().get_batch_samples(*args, **kwargs)
            total = sum(batch["weights"][:, 1:].sum() for batch in batches)
            if batches and self.args.world_size > 1:
                total = self.accelerator.gather(total.to(self.args.device)).sum()
            return batches, total if batches else None

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            weights = inputs.pop("weights", None)
            if weights is None:
                return super().compute_loss(model, inputs, *args, **kwargs)
            return super().compute_loss(Weighted(model, weights), inputs, *args, **kwargs)

    return Weighting
