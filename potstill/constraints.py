"""Answers that cannot leave their JSON Schema: each token is one of those that may come next, which llguidance knows.

Only compact JSON is allowed: under a grammar that takes blanks between values, Gemma can write blanks for ever. Strings
and lists of open length are bounded, so that an answer that repeats itself ends; a schema's own bounds win.
"""

import json
from typing import Any

import numpy as np

from potstill.stop import USAGE, Stop

COMPACT: Any = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
MAX_CHARS, MAX_ITEMS = 300, 40


def grammar_of(tokenizer: Any, stops: set[int]) -> "Grammar":
    """The tokenizer's own, made once: taking 262,144 tokens apart takes a second."""
    if not hasattr(tokenizer, "potstill_grammar"):
        tokenizer.potstill_grammar = Grammar(tokenizer, stops)
    grammar: Grammar = tokenizer.potstill_grammar
    return grammar


class Grammar:
    """A tokenizer with the grammars of schemas; `matcher` begins an answer, or raises Stop 2 for an odd schema."""

    def __init__(self, tokenizer: Any, stops: set[int]):
        import llguidance.hf

        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, eos_token=sorted(stops))
        self._grammars: dict[str, str] = {}

    def matcher(self, schema: dict[str, Any]) -> "Matcher":
        from llguidance import LLMatcher

        text = json.dumps(schema)
        if text not in self._grammars:
            self._grammars[text] = LLMatcher.grammar_from_json_schema(json.dumps(bounded(schema)), overrides=COMPACT)
        found = LLMatcher(self._tokenizer, self._grammars[text])
        if found.is_error():
            raise Stop(f"the schema cannot constrain answers: {found.get_error()}. Leave --constrained out.", USAGE)
        return Matcher(found)


class Matcher:
    """One answer under its grammar."""

    def __init__(self, matcher: Any):
        self._matcher = matcher

    def forced(self) -> list[int]:
        """The tokens that must come next, such as a key's."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def allowed(self, vocabulary: int) -> np.ndarray:
        """Which tokens may come next: (vocabulary,) booleans."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        found = np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
        # a model's matrix may have rows beyond the tokenizer's last piece
        return np.pad(found, (0, vocabulary - len(found)))

    def take(self, tokens: list[int]) -> None:
        if tokens and not self._matcher.consume_tokens(tokens):
            raise ValueError(f"tokens {tokens} are against the grammar: {self._matcher.get_error()}")


def processor(matchers: list[Matcher | None], width: int, stops: set[int]) -> Any:
    """A logits processor for transformers: rows with a matcher keep to it. `width` is that of the padded prompts."""
    import torch

    def process(ids: Any, scores: Any) -> Any:
        for number, matcher in enumerate(matchers):
            said = ids[number, width:].tolist()
            if matcher is None or stops & set(said):
                continue
            matcher.take(said[-1:])
            hidden = ~torch.from_numpy(matcher.allowed(scores.shape[1])).to(scores.device)
            scores[number].masked_fill_(hidden, -torch.inf)
        return scores

    return process


def bounded(schema: Any) -> Any:
    """The schema with a longest string and a longest list wherever it names none."""
    if isinstance(schema, list):
        return [bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: bounded(value) for key, value in schema.items()}
    if schema.get("type") == "string" and not {"enum", "const", "pattern", "format"} & schema.keys():
        found.setdefault("maxLength", MAX_CHARS)
    if schema.get("type") == "array":
        found.setdefault("maxItems", MAX_ITEMS)
    return found
