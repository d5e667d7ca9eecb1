"""The five levels that rules decide: whether two JSON values are the same, by equality, number, set or day.

Every rule looks at the reference first: one that it cannot read is an error, whatever the candidate says. Used through
potstill/slots.py, which decides about null and absent values before.
"""

import datetime
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from potstill.typed import AMBIGUOUS, Ambiguous, Price, parse_date, read_number, read_price, same_currency
from potstill.values import alike, finite, fraction, kind, member, same


class Score(NamedTuple):
    """`score` is 0 to 1; it and `passed` are None when `status` is "error"."""

    score: float | None
    passed: bool | None
    status: Literal["scored", "error"]
    reason: str


class Options(NamedTuple):
    """How a level compares, as `SlotSpec` says it; `locale` is that of the row."""

    tolerance: float | None = None
    relative_tolerance: float | None = None
    type: str | None = None
    locale: str | None = None
    normalise: tuple[str, ...] = ()
    nulls: str | None = None
    multiplicity: bool = False
    partial: str | None = None


def error(reason: str) -> Score:
    return Score(None, None, "error", reason)


def scored(value: float, reason: str) -> Score:
    return Score(float(value), value >= 1, "scored", reason)


def _exact(reference: Any, candidate: Any, options: Options) -> Score:
    if options.normalise:
        reference, candidate = alike(reference, options.normalise), alike(candidate, options.normalise)
    return scored(1, "equal") if same(reference, candidate) else scored(0, "not equal")


def _substring(reference: Any, candidate: Any, options: Options) -> Score:
    if options.normalise:
        reference, candidate = alike(reference, options.normalise), alike(candidate, options.normalise)
    if not isinstance(reference, str):
        return error(f"the reference is {kind(reference)}, want text")
    if not isinstance(candidate, str):
        return scored(0, f"{kind(candidate)}, want text")
    # every text contains "": an empty reference asks for an empty candidate
    if candidate if not reference else reference not in candidate:
        return scored(0, "does not contain the reference")
    return scored(1, "contains the reference")


def _numeric_tol(reference: Any, candidate: Any, options: Options) -> Score:
    want, found = _amount(reference, options), _amount(candidate, options)
    if not isinstance(want, Amount):
        return error(f"the reference is {_no_amount(reference, want)}")
    if isinstance(found, Ambiguous):
        return error(f"the candidate is {_no_amount(candidate, found)}")
    if found is None:
        return scored(0, _no_amount(candidate, found))
    if not same_currency(want.currency, found.currency):
        return scored(0, "another currency")
    # binary floats would put 2.82 - 2.8 just above 0.02
    allowed = fraction(options.tolerance or 0)
    if options.relative_tolerance:
        allowed = max(allowed, fraction(options.relative_tolerance) * abs(want.value))
    if abs(want.value - found.value) <= allowed:
        return scored(1, "within tolerance")
    return scored(0, "off by more than the tolerance")


def _set_match(reference: Any, candidate: Any, options: Options) -> Score:
    if not isinstance(reference, list):
        return error(f"the reference is {kind(reference)}, want a list")
    if not isinstance(candidate, list):
        return scored(0, f"{kind(candidate)}, want a list")
    sides = []
    for side, values in (("reference", reference), ("candidate", candidate)):
        read = [_typed_member(value, options) for value in values]
        if AMBIGUOUS in read or (options.type and None in read and side == "reference"):
            return error(
                f"the {side} has a member that is {'ambiguous' if AMBIGUOUS in read else f'no {options.type}'}"
            )
        # what a candidate wrote and nobody can read is a member that the reference does not have
        sides.append([("unread", index) if value is None else value for index, value in enumerate(read)])
    want, found = map(Counter, sides)
    if not options.multiplicity:
        want, found = Counter(set(want)), Counter(set(found))
    if want == found:
        return scored(1, "the same members")
    told = f"{(want - found).total()} missing, {(found - want).total()} too many"
    return scored(_share(want, found, options.partial) if options.partial else 0, told)


def _share(want: Counter[Any], found: Counter[Any], partial: str) -> float:
    """The members in both, as a share of: one side, both, or the two together."""
    both = (want & found).total()
    below = {"precision": found.total(), "recall": want.total(), "jaccard": (want | found).total()}
    return 2 * both / (want.total() + found.total()) if partial == "f1" else both / (below[partial] or 1)


def _date_norm(reference: Any, candidate: Any, options: Options) -> Score:
    want, found = _day(reference, options.locale), _day(candidate, options.locale)
    if not isinstance(want, datetime.date):
        return error(f"the reference is {_no_date(reference, want)}")
    if isinstance(found, Ambiguous):
        return error("the candidate is an ambiguous date")
    if not isinstance(found, datetime.date):
        return scored(0, _no_date(candidate, found))
    return scored(1, "the same day") if want == found else scored(0, "another day")


Rule = Callable[[Any, Any, Options], Score]
RULES: dict[str, Rule] = {
    "exact": _exact,
    "substring": _substring,
    "numeric_tol": _numeric_tol,
    "set_match": _set_match,
    "date_norm": _date_norm,
}


# --- typed values


class Amount(NamedTuple):
    value: Fraction
    currency: str | None


def _amount(value: Any, options: Options) -> Amount | Ambiguous | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Amount(fraction(value), None) if finite(value) else None
    if not isinstance(value, str) or options.type not in ("number", "price"):
        return None
    found = read_price(value, options.locale) if options.type == "price" else read_number(value, options.locale)
    if found is None or isinstance(found, Ambiguous):
        return found
    return Amount(Fraction(found.amount), found.currency) if isinstance(found, Price) else Amount(Fraction(found), None)


def _day(value: Any, locale: str | None) -> datetime.date | Ambiguous | None:
    return parse_date(value, locale) if isinstance(value, str) else None


def _typed_member(value: Any, options: Options) -> Any:
    """What stands for a member of a set: hashable, AMBIGUOUS, or None where the type cannot be read."""
    if options.type == "date":
        return _day(value, options.locale)
    if options.type:
        found = _amount(value, options)
        return found.value if isinstance(found, Amount) else found
    return member(alike(value, options.normalise) if options.normalise else value)


def _no_amount(value: Any, found: Ambiguous | Amount | None) -> str:
    if isinstance(found, Ambiguous):
        return "an ambiguous number: it can be read as two, or names more than one"
    return f"{kind(value)}, want a number"


def _no_date(value: Any, found: Any) -> str:
    if not isinstance(value, str):
        return f"{kind(value)}, want a date"
    return "an ambiguous date" if isinstance(found, Ambiguous) else "no full day of the calendar"
