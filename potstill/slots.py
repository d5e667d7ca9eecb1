"""Scores one slot: a value of the reference against a value of the candidate, by level, with no model involved.

Rules that hold for every level:
- null and null pass; null against a value scores 0. A key that is not there is `ABSENT`, which is not null: absent and
  absent pass, absent against anything else scores 0.
- Types are JSON's. A bool is no number, and a number in quotes is text; 1 and 1.0 are the same number.
- What is wrong with the *reference* (not finite, no number, no date, ambiguous) is `status` "error": no score, out of
  every denominator. What is wrong with the *candidate* is a 0. One exception: a date the candidate wrote so that it can
  be read in two ways is an error too, because any score would be a guess.
"""

import datetime
import functools
import math
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from potstill import config
from potstill.config import Config
from potstill.files import canonical_json
from potstill.leaves import ABSENT
from potstill.stop import Stop
from potstill.typed import AMBIGUOUS, parse_date


class Score(NamedTuple):
    """`score` is 0 to 1; it and `passed` are None when `status` is "error"."""

    score: float | None
    passed: bool | None
    status: Literal["scored", "error"]
    reason: str


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
    threshold: float = 1.0,
    multiplicity: bool = False,
) -> Score:
    """Scores a candidate value. Raises Stop 2 for an unknown level or an impossible option.

    `tolerance` (numeric_tol) is in the slot's own unit and inclusive, in decimal as written: 2.8 and 2.82 are 0.02
    apart. `multiplicity` (set_match) makes duplicates count. `llm_similarity` is scored here only where `by_rule` can;
    elsewhere it is an error that says so: potstill/judge.py asks the model.
    """
    decided = by_rule(level, reference, candidate)
    if decided is None and level == "llm_similarity":
        return error("free text needs the judge: run fab eval.judge")
    if decided is None:
        if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
            raise Stop(f"level {level}: tolerance is {tolerance}, want a number from 0")
        decided = RULES[level](reference, candidate, tolerance or 0, multiplicity)
    return at_threshold(decided, threshold)


def by_own_rule(
    rule: "OwnLevel", reference: Any, candidate: Any, unusable: str | None, prompt: str, threshold: float
) -> Score:
    """Scores by a workload's own level. It must accept its reference: else the reference is the error."""
    itself = rule(reference, reference, prompt=prompt)
    if itself.status == "error" or (itself.score or 0) < threshold:
        return error(f"the reference fails its own level: {itself.reason}")
    if unusable or candidate is ABSENT:
        return _scored(0, unusable or "the key is absent")
    return at_threshold(rule(reference, candidate, prompt=prompt), threshold)


def by_rule(level: str, reference: Any, candidate: Any) -> Score | None:
    """What is decided before any level looks at the values, or None. Equal free texts need no judge."""
    if level not in LEVELS:
        raise Stop(f"no scoring level {level!r}.{config.nearest(level, LEVELS)} Known: {', '.join(LEVELS)}.")
    if reference is ABSENT or candidate is ABSENT:
        if reference is candidate:
            return _scored(1, "both absent")
        return _scored(0, "the key is absent" if candidate is ABSENT else "the reference has no such key")
    if reference is None or candidate is None:
        if reference is candidate:
            return _scored(1, "both null")
        return _scored(0, "null, want a value" if candidate is None else "a value, want null")
    if not _finite(reference):
        return error("the reference is not finite")
    if level == "llm_similarity" and text(reference).strip() == text(candidate).strip():
        return _scored(1, "equal")
    return None


def at_threshold(given: Score, threshold: float) -> Score:
    """The same score, passed from `threshold` on."""
    if not 0 < threshold <= 1:
        raise Stop(f"threshold is {threshold}, want more than 0 and at most 1")
    return given if given.score is None else given._replace(passed=given.score >= threshold)


def error(reason: str) -> Score:
    return Score(None, None, "error", reason)


def text(value: Any) -> str:
    """What a judge reads: a string as it is, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    return canonical_json(value) if _finite(value) else repr(value)


def same(a: Any, b: Any) -> bool:
    """Equality of two JSON values. Objects have no key order; true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


def _exact(reference: Any, candidate: Any, tolerance: float, multiplicity: bool) -> Score:
    return _scored(1, "equal") if same(reference, candidate) else _scored(0, "not equal")


def _substring(reference: Any, candidate: Any, tolerance: float, multiplicity: bool) -> Score:
    if not isinstance(reference, str):
        return error(f"the reference is {_kind(reference)}, want text")
    if not isinstance(candidate, str):
        return _scored(0, f"{_kind(candidate)}, want text")
    # every text contains "": an empty reference asks for an empty candidate
    if candidate if not reference else reference not in candidate:
        return _scored(0, "does not contain the reference")
    return _scored(1, "contains the reference")


def _numeric_tol(reference: Any, candidate: Any, tolerance: float, multiplicity: bool) -> Score:
    if not _is_number(reference):
        return error(f"the reference is {_kind(reference)}, want a number")
    if not _is_number(candidate) or not _finite(candidate):
        return _scored(0, f"{_kind(candidate)}, want a number")
    # binary floats would put 2.82 - 2.8 just above 0.02
    difference = abs(_fraction(reference) - _fraction(candidate))
    if difference <= _fraction(tolerance):
        return _scored(1, "within tolerance")
    return _scored(0, "off by more than the tolerance")


def _set_match(reference: Any, candidate: Any, tolerance: float, multiplicity: bool) -> Score:
    if not isinstance(reference, list):
        return error(f"the reference is {_kind(reference)}, want a list")
    if not isinstance(candidate, list):
        return _scored(0, f"{_kind(candidate)}, want a list")
    want, found = Counter(map(_member, reference)), Counter(map(_member, candidate))
    if not multiplicity:
        want, found = Counter(set(want)), Counter(set(found))
    if want == found:
        return _scored(1, "the same members")
    return _scored(0, f"{(want - found).total()} missing, {(found - want).total()} too many")


def _date_norm(reference: Any, candidate: Any, tolerance: float, multiplicity: bool) -> Score:
    want, found = (parse_date(value) if isinstance(value, str) else None for value in (reference, candidate))
    if not isinstance(want, datetime.date):
        return error(f"the reference is {_no_date(reference)}")
    if found is AMBIGUOUS:
        return error("the candidate is an ambiguous date")
    if not isinstance(found, datetime.date):
        return _scored(0, _no_date(candidate))
    return _scored(1, "the same day") if want == found else _scored(0, "another day")


# a workload's LEVELS: name -> level(reference, candidate, *, prompt) -> Score, a pure function
OwnLevel = Callable[..., Score]
OwnLevels = dict[str, OwnLevel]
Rule = Callable[[Any, Any, float, bool], Score]
_KINDS = ((str, "text"), (list, "a list"), (dict, "an object"))
RULES: dict[str, Rule] = {
    "exact": _exact,
    "substring": _substring,
    "numeric_tol": _numeric_tol,
    "set_match": _set_match,
    "date_norm": _date_norm,
}
# every level that any workload can name
LEVELS = (*RULES, "llm_similarity")


def _no_date(value: Any) -> str:
    if not isinstance(value, str):
        return f"{_kind(value)}, want a date"
    return "an ambiguous date" if parse_date(value) is AMBIGUOUS else "no full day of the calendar"


def _scored(value: float, reason: str) -> Score:
    return Score(float(value), value >= 1, "scored", reason)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_finite, value))
    return all(map(_finite, value.values())) if isinstance(value, dict) else True


@functools.lru_cache(65536)
def _fraction(value: float) -> Fraction:
    return Fraction(value) if isinstance(value, int) else Fraction(Decimal(repr(value)))


def _member(value: Any) -> Any:
    """A hashable stand-in that is equal exactly when `same` says so."""
    if isinstance(value, list):
        return ("list", *map(_member, value))
    if isinstance(value, dict):
        return ("object", frozenset((key, _member(item)) for key, item in value.items()))
    return (isinstance(value, bool), value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number" if _finite(value) else "not finite"
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")
