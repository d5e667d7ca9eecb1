"""Scores one slot: a value of the reference against a value of the candidate, by level, with no model involved.

Rules that hold for every level (docs/slots.md has them with examples):
- null and null pass; null against a value scores 0. A key that is not there is `ABSENT`, which is not null: absent and
  absent pass, absent against anything else scores 0. The option `nulls` makes them one.
- Types are JSON's. A bool is no number, and a number in quotes is text, unless the slot has a `type`; 1 and 1.0 are the
  same number.
- What is wrong with the *reference* (not finite, no number, no date, ambiguous) is `status` "error": no score, out of
  every denominator. What is wrong with the *candidate* is a 0. One exception: a date, number or price that the
  candidate wrote so that it can be read in two ways is an error too, because any score would be a guess.
The levels themselves are in potstill/rules.py.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from potstill import config
from potstill.config import Config
from potstill.files import canonical_json
from potstill.folding import locales
from potstill.leaves import ABSENT
from potstill.records import Example
from potstill.rules import RULES, Options, Score, error, scored
from potstill.stop import DATA, Stop
from potstill.values import STEPS, finite, same, too_deep

__all__ = [
    "LEVELS",
    "RULES",
    "Level",
    "Options",
    "OwnLevel",
    "OwnLevels",
    "Score",
    "error",
    "same",
    "score",
    "score_with",
]

# what a slot's locale starts with when each row has its own
FROM_ROW = "metadata."


class Level(Config):
    pass_threshold: Annotated[float, Field(gt=0, le=1)]


class Levels(Config):
    """configs/judge_slots.yaml"""

    levels: dict[str, Level]


def load_levels(path: Path) -> dict[str, float]:
    """The pass threshold of every level. Raises Stop 2 when one is missing or unknown."""
    found = {name: level.pass_threshold for name, level in config.load(path, Levels).levels.items()}
    known = set(LEVELS)
    if set(found) != known:
        odd = sorted(set(found) ^ known)
        raise Stop(f"{path}: levels: want {', '.join(sorted(known))}; missing or unknown: {', '.join(odd)}")
    return found


def score(
    level: str,
    reference: Any,
    candidate: Any,
    *,
    tolerance: float | None = None,
    relative_tolerance: float | None = None,
    type: Literal["number", "price", "date"] | None = None,
    locale: str | None = None,
    normalise: Sequence[str] = (),
    nulls: Literal["absent", "empty"] | None = None,
    multiplicity: bool = False,
    partial: Literal["f1", "jaccard", "precision", "recall"] | None = None,
    threshold: float = 1.0,
) -> Score:
    """Scores a candidate value. Raises Stop 2 for an unknown level or an impossible option.

    `tolerance` (numeric_tol) is in the slot's own unit and inclusive, in decimal as written: 2.8 and 2.82 are 0.02
    apart; `relative_tolerance` is a share of the reference, and the wider of the two counts. docs/slots.md has the
    other options. `llm_similarity` is scored here only where `by_rule` can; elsewhere it is an error that says so:
    potstill/judge.py asks the model.
    """
    for name, value in (("tolerance", tolerance), ("relative_tolerance", relative_tolerance)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise Stop(f"level {level}: {name} is {value}, want a number from 0")
    unknown = sorted(set(normalise) - {"text", *STEPS})
    if unknown:
        raise Stop(f"level {level}: no step {unknown[0]!r} of normalise.{config.nearest(unknown[0], STEPS)}")
    steps = tuple(normalise)
    options = Options(tolerance, relative_tolerance, type, locale, steps, nulls, multiplicity, partial)
    return score_with(level, reference, candidate, options, threshold)


def score_with(level: str, reference: Any, candidate: Any, options: Options, threshold: float) -> Score:
    """`score` with its options made before, once for many values."""
    if options.nulls:
        reference, candidate = without_blanks(reference, options.nulls), without_blanks(candidate, options.nulls)
    decided = by_rule(level, reference, candidate)
    if decided is None and level == "llm_similarity":
        return error("free text needs the judge: run fab eval.judge")
    if decided is None:
        decided = RULES[level](reference, candidate, options)
    return at_threshold(decided, threshold)


def options_of(example: Example, name: str) -> Options:
    """How a slot compares in one row. Raises Stop 65 for an impossible tolerance or a locale that CLDR does not know.

    A locale of the row's metadata that CLDR does not know, or that is not there, decides nothing.
    """
    spec = example.slots[name]
    if spec.tolerance is not None and not (math.isfinite(spec.tolerance) and spec.tolerance >= 0):
        raise Stop(f"id {example.id!r}: slot {name!r}: tolerance is {spec.tolerance}, want a number from 0", DATA)
    locale = spec.locale
    if locale and locale.startswith(FROM_ROW):
        own = example.metadata.get(locale.removeprefix(FROM_ROW))
        locale = own if isinstance(own, str) else None
    elif locale and not locales(locale):
        raise Stop(
            f"id {example.id!r}: slot {name!r} has the locale {locale!r}, which CLDR does not know. Write a language "
            "or a language and a country, as in de or en-GB, or metadata.<key> for the row's own.",
            DATA,
        )
    return Options(
        spec.tolerance,
        spec.relative_tolerance,
        spec.type,
        locale,
        tuple(spec.normalise),
        spec.nulls,
        spec.multiplicity,
        spec.partial,
    )


def without_blanks(value: Any, nulls: str) -> Any:
    """None for what counts as null: an absent key, and with "empty" a text without a character, [] and {}."""
    if value is ABSENT:
        return None
    empty = not value.strip() if isinstance(value, str) else value == [] or value == {}
    return None if nulls == "empty" and empty else value


def by_own_rule(
    rule: "OwnLevel", reference: Any, candidate: Any, unusable: str | None, prompt: str, threshold: float
) -> Score:
    """Scores by a workload's own level. It must accept its reference: else the reference is the error."""
    itself = rule(reference, reference, prompt=prompt)
    if itself.status == "error" or (itself.score or 0) < threshold:
        return error(f"the reference fails its own level: {itself.reason}")
    if unusable or candidate is ABSENT:
        return scored(0, unusable or "the key is absent")
    return at_threshold(rule(reference, candidate, prompt=prompt), threshold)


def by_rule(level: str, reference: Any, candidate: Any) -> Score | None:
    """What is decided before any level looks at the values, or None. Equal free texts need no judge."""
    if level not in LEVELS:
        raise Stop(f"no scoring level {level!r}.{config.nearest(level, LEVELS)} Known: {', '.join(LEVELS)}.")
    if reference is ABSENT or candidate is ABSENT:
        if reference is candidate:
            return scored(1, "both absent")
        return scored(0, "the key is absent" if candidate is ABSENT else "the reference has no such key")
    if reference is None or candidate is None:
        if reference is candidate:
            return scored(1, "both null")
        return scored(0, "null, want a value" if candidate is None else "a value, want null")
    if isinstance(reference, list | dict) and too_deep(reference):
        return error("the reference is nested too deep")
    if isinstance(candidate, list | dict) and too_deep(candidate):
        return scored(0, "nested too deep")
    if not finite(reference):
        return error("the reference is not finite")
    if level == "llm_similarity" and text(reference).strip() == text(candidate).strip():
        return scored(1, "equal")
    return None


def at_threshold(given: Score, threshold: float) -> Score:
    """The same score, passed from `threshold` on."""
    if not 0 < threshold <= 1:
        raise Stop(f"threshold is {threshold}, want more than 0 and at most 1")
    return given if given.score is None else given._replace(passed=given.score >= threshold)


def text(value: Any) -> str:
    """What a judge reads: a string as it is, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    try:
        return canonical_json(value) if finite(value) else repr(value)
    except ValueError:  # an int of more digits than Python writes
        return "a value too long to write"


# a workload's LEVELS: name -> level(reference, candidate, *, prompt) -> Score, a pure function
OwnLevel = Callable[..., Score]
OwnLevels = dict[str, OwnLevel]
# every level that any workload can name
LEVELS = (*RULES, "llm_similarity")
