"""Precision, recall and F1 of verdicts, as benchmarks of extraction count them; docs/slots.md says which is which."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from potstill.leaves import leaf_paths
from potstill.records import Verdict

# reasons of verdicts about a key that the reference does not have: a verdict row writes null for it
NOT_IN_REFERENCE = ("the reference has no such key", "both absent")
_STEP = re.compile(r"\.|\[")


class Counts(NamedTuple):
    """Leaves by what the two sides have there. Errors are in none of them.

    right: a value on both sides, and it passed. wrong: a value on both sides, and it did not. missing: only the
    reference has one. extra: only the candidate has one. empty: neither has one.
    """

    right: int = 0
    wrong: int = 0
    missing: int = 0
    extra: int = 0
    empty: int = 0

    @property
    def precision(self) -> float | None:
        """right of all values that the candidate wrote."""
        return _ratio(self.right, self.right + self.wrong + self.extra)

    @property
    def recall(self) -> float | None:
        """right of all values that the reference has."""
        return _ratio(self.right, self.right + self.wrong + self.missing)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall; a wrong value counts against both."""
        return _ratio(2 * self.right, 2 * self.right + 2 * self.wrong + self.missing + self.extra)


def counts(verdicts: Iterable[Verdict]) -> Counts:
    """Of the verdicts of one slot, one answer or many answers: the counts of many make the micro average."""
    found = Counter(map(_kind, _leaves(verdicts)))
    return Counts(**{name: found[name] for name in Counts._fields})


def leaf_accuracy(verdicts: Iterable[Verdict]) -> float | None:
    """Passed leaves as a share of those that the reference has, null ones too; what is too many is not counted."""
    own = [v for v in _leaves(verdicts) if leaf_paths(v.reference) and v.reason not in NOT_IN_REFERENCE]
    return _ratio(sum(verdict.passed is True for verdict in own), len(own))


def _leaves(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Those with a score, less the lists and objects of the reference whose own leaves are slots beside them."""
    scored = [verdict for verdict in verdicts if verdict.status == "scored"]
    holders = {(v.id, v.slot[: mark.start()]) for v in scored for mark in _STEP.finditer(v.slot)}
    return [v for v in scored if not (isinstance(v.reference, list | dict) and (v.id, v.slot) in holders)]


def _kind(verdict: Verdict) -> str:
    if not _has_value(verdict.reference):
        return "extra" if _has_value(verdict.candidate) else "empty"
    if not _has_value(verdict.candidate):
        return "missing"
    return "right" if verdict.passed else "wrong"


def _has_value(value: Any) -> bool:
    """Null is no value, nor is a list or an object with nothing in it."""
    return value is not None and bool(leaf_paths(value))


def _ratio(above: int, below: int) -> float | None:
    return above / below if below else None
