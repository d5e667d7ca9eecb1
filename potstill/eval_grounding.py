"""Grounding of answers: how many of the values that a model wrote can be found in the prompt it was given.

A value that is not there was made up, or said in other words; potstill/grounding.py does the looking up. It needs no
reference, so it also measures answers of production.
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from potstill.grounding import Lookup
from potstill.leaves import steps
from potstill.records import Example, Prediction

# values of one answer that are looked up; more are a runaway answer
MAX_VALUES = 1_000


class Grounded(NamedTuple):
    """`found` of `values` texts and numbers of an answer stand in its prompt."""

    found: int
    values: int


def grounding_rate(example: Example, prediction: Prediction, skip: Collection[str] = ()) -> float | None:
    """The share of an answer's values that its prompt holds; None for an answer without a value or without JSON."""
    found, values = grounded(example, prediction, skip)
    return found / values if values else None


def grounded(example: Example, prediction: Prediction, skip: Collection[str] = ()) -> Grounded:
    """Counts the texts and numbers of an answer. Null, true, false and empty texts are no values.

    `skip` holds paths whose values are said in other words (the workload's `grounding.skip`); what is below them is
    left out. The row's `metadata.language` decides between readings of a number or a date. Answers that are no valid
    JSON have no values; the schema plays no part.
    """
    if not prediction.valid_json:
        return Grounded(0, 0)
    language = example.metadata.get("language")
    prompt = Lookup(example.prompt, language if isinstance(language, str) else None)
    skipped = {steps(path) for path in skip}
    states = [prompt.find(value) for value in _values(prediction.parsed, skipped)]
    return Grounded(sum(state not in ("missing", "none") for state in states), len(states) - states.count("none"))


def _values(answer: Any, skipped: set[tuple[str, ...]]) -> Iterator[str | int | float]:
    """The first MAX_VALUES texts and numbers below no skipped path, in the order written."""
    todo: list[tuple[tuple[str, ...], Any]] = [((), answer)]
    count = 0
    while todo and count < MAX_VALUES:
        at, value = todo.pop()
        if skipped and at in skipped:
            continue
        if isinstance(value, dict):
            todo += [((*at, key), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            todo += [((*at, "[]"), item) for item in reversed(value)]
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            count += 1
            yield value
