"""JSON values, as slots compare them: when two are the same, how texts are made alike, what a value is called."""

import functools
import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from string import punctuation
from typing import Any

from potstill.folding import plain

# a value nested deeper than this is a fault of whoever wrote it: answers.py takes none beyond 64
MAX_DEPTH = 100
# Python reads and writes integers of up to 4,300 digits
MAX_BITS = 14_000


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


def member(value: Any) -> Any:
    """A hashable stand-in that is equal exactly when `same` says so."""
    if isinstance(value, list):
        return ("list", *map(member, value))
    if isinstance(value, dict):
        return ("object", frozenset((key, member(item)) for key, item in value.items()))
    return (isinstance(value, bool), value)


def finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(finite, value))
    return all(map(finite, value.values())) if isinstance(value, dict) else True


def too_deep(value: Any) -> bool:
    """Whether lists and objects stand in each other more than MAX_DEPTH deep: recursion would end in a traceback."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for item in level if isinstance(item, list | dict)]
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def is_writable(value: Any) -> bool:
    """Whether a row with the value can be written and read: no deep nesting, half surrogate pair or endless number."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and not item.isascii() and _SURROGATE.search(item):
                return False
            if isinstance(item, int) and item.bit_length() > MAX_BITS:
                return False
        if not below:
            return True
        level = below
    return False


_SURROGATE = re.compile("[\ud800-\udfff]")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", punctuation)
# in this order, whatever the order in which a slot names them; "text" is what `alike` does first
STEPS: dict[str, Callable[[str], str]] = {
    "unicode": plain,
    "lower": str.lower,
    "punctuation": lambda text: text.translate(_PUNCTUATION),
    "articles": lambda text: _ARTICLES.sub(" ", text),
    "space": lambda text: " ".join(text.split()),
    "nospace": lambda text: "".join(text.split()),
}


def alike(value: Any, steps: tuple[str, ...]) -> Any:
    """The value with every text in it put through `steps`; keys of objects stay."""
    if isinstance(value, list):
        return [alike(item, steps) for item in value]
    if isinstance(value, dict):
        return {key: alike(item, steps) for key, item in value.items()}
    if "text" in steps and isinstance(value, int | float):
        value = str(value).lower() if isinstance(value, bool) else _written(value)
    if isinstance(value, str):
        for name, change in STEPS.items():
            if name in steps:
                value = change(value)
    return value


def _written(number: int | float) -> str:
    """A number as text: 5 and 5.0 are the same one."""
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e16:
        return str(int(number))
    try:
        return str(number)
    except ValueError:  # an int of more digits than Python writes
        return hex(number)  # type: ignore[arg-type]


_KINDS = ((str, "text"), (list, "a list"), (dict, "an object"))


def kind(value: Any) -> str:
    """What a value is, in words: "text", "a number", "null" ..."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number" if finite(value) else "not finite"
    return next((name for known, name in _KINDS if isinstance(value, known)), "null")


# typed: 1e23 and the int that equals it are written differently
@functools.lru_cache(65536, typed=True)
def fraction(value: float) -> Fraction:
    """The number as written in decimal: 0.1 is 1/10."""
    return Fraction(value) if isinstance(value, int) else Fraction(Decimal(repr(value)))
