"""Grounding: where in its prompt every value of an answer stands, and whether the reduction or the teacher is to blame
when it does not.

A value is found "exact" (verbatim), "normalised" (but for case, whitespace, Unicode form, entities, quotes and dashes,
thousands separators, percent-encoding, or a URL's host), or "typed" (the same number, price or day in another form, or
words for an identifier). Words and numbers count whole: "low" is not in "slow", nor 12.5 in 112.55. What has two
readings is not found. Today, the locale and the time zone of the process play no part.
"""

import functools
import itertools
import math
import re
from array import array
from collections.abc import Collection, Iterator
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from potstill.dates import find_dates, parse_date
from potstill.folding import MAX_OCCURRENCES, contains, fold, stands
from potstill.leaves import ABSENT, leaf, place
from potstill.numerals import CURRENCY, find_numbers, find_words, parse_number
from potstill.pages import MAX_PAGE_CHARS, declared_language, page_text
from potstill.records import SlotSpec
from potstill.typed import parse_price

# best to worst; the worst item of a list decides
STATES = ("none", "exact", "normalised", "typed", "missing", "lost", "unfounded")
MAX_VALUES = 1_000
MAX_URL_STEPS = 20
# long values are also found where tags or line breaks cut their text
MIN_SQUEEZED = 12
# and very long ones where the word beside them was glued to them
MIN_GLUED = 40

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]{1,10}:)?//\S+|\.{0,2}/\S*", re.IGNORECASE)
_IN_URL = re.compile(r"[^\s\"'<>()\[\]{}|\\^`]+")
_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]{1,10}:)?//(?:www\.)?", re.IGNORECASE)
_MARKUP = " *|#•·"
_MONEY = re.compile(rf"-?(?:{CURRENCY})? ?-?[0-9][0-9., ']*[,.]?-? ?(?:{CURRENCY})?")


def ground(answer: Any, slots: dict[str, SlotSpec], text: str, *, locale: str | None = None) -> dict[str, str]:
    """Slot path -> "exact", "normalised", "typed", "missing", or "none" where it holds no value to look up.

    Null, true, false, empty and absent are no values. A list or an object is as good as its worst leaf. `locale` is the
    text's language, as in "de" or "en-GB"; it decides only between readings that are possible.
    """
    prompt = Lookup(text, locale)
    return {name: _worst(map(prompt.find, _values(answer, place(name, spec)))) for name, spec in slots.items()}


def classify(
    answer: Any,
    slots: dict[str, SlotSpec],
    raw: str,
    reduced: str,
    skip: Collection[str] = (),
    *,
    locale: str | None = None,
) -> dict[str, str]:
    """`ground` in the reduced prompt; what is missing there is "lost" if the raw page has it, else "unfounded".

    Slots in `skip` are left out. Without a `locale` the page's own lang attribute serves.
    """
    locale = locale or declared_language(raw)
    prompt = Lookup(reduced, locale)
    page = functools.cache(lambda: Lookup(page_text(raw), locale))

    def state(value: Any) -> str:
        found = prompt.find(value)
        if found != "missing":
            return found
        return "unfounded" if page().find(value) == "missing" else "lost"

    looked_up = {name: place(name, spec) for name, spec in slots.items() if name not in skip}
    return {name: _worst(map(state, _values(answer, path))) for name, path in looked_up.items()}


class Lookup:
    """One text, indexed once and only as far as the values looked up in it ask for; its first 2 million characters."""

    def __init__(self, text: str, locale: str | None = None):
        self.text = text[:MAX_PAGE_CHARS]
        self.locale = locale

    def find(self, value: Any) -> str:
        """How a text or number stands in the text: "exact", "normalised", "typed", "missing"; "none" if it is empty."""
        return self._find_text(value.strip()) if isinstance(value, str) else self._find_number(value)

    @functools.cached_property
    def folded(self) -> str:
        return fold(self.text)

    @functools.cached_property
    def squeezed(self) -> str:
        return _squeeze(self.folded)

    @functools.cached_property
    def kept(self) -> "array[int]":
        """Where in `folded` each character of `squeezed` stands."""
        return array("I", (place for place, char in enumerate(self.folded) if char not in _MARKUP))

    @functools.cached_property
    def parted(self) -> str:
        return _part(self.folded)

    @functools.cached_property
    def numbers(self) -> dict[Decimal, set[str]]:
        found: dict[Decimal, set[str]] = {}
        for value, written in find_numbers(self.folded, self.locale):
            found.setdefault(value, set()).add(written)
        return found

    @functools.cached_property
    def number_words(self) -> set[Decimal]:
        return find_words(self.folded)

    @functools.cached_property
    def urls(self) -> set[str]:
        return {found.rstrip(".,;:!") for found in _IN_URL.findall(self.text) if "/" in found}

    @functools.cached_property
    def addresses(self) -> tuple[set[str], set[str]]:
        """(absolute without scheme and www, relative without leading dots and slashes), normalised."""
        absolute = {_address(url) for url in self.urls if _SCHEME.match(url)}
        return absolute, {_address(url) for url in self.urls if not _SCHEME.match(url)}

    def _find_number(self, value: int | float) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            return "missing"
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        written = self.numbers.get(number)
        if written is None:
            return "typed" if number in self.number_words else "missing"
        own = {str(value), str(value).removesuffix(".0"), f"{number:f}"}
        if own & written:
            return "exact"
        return "normalised" if any(re.sub("[ ,']", "", form) in own for form in written) else "typed"

    def _find_text(self, value: str) -> str:
        if _URL.fullmatch(value):
            return self._find_url(value)
        if contains(self.text, value):
            return "exact"
        folded = fold(value)
        if not folded:
            return "none"
        if contains(self.folded, folded) or self._has_squeezed(folded):
            return "normalised"
        return "typed" if self._has_typed(value, folded) else "missing"

    def _has_squeezed(self, folded: str) -> bool:
        squeezed, position = _squeeze(folded), -1
        if len(squeezed) < MIN_SQUEEZED:
            return False
        for _ in range(MAX_OCCURRENCES):
            position = self.squeezed.find(squeezed, position + 1)
            if position < 0:
                return False
            start, end = self.kept[position], self.kept[position + len(squeezed) - 1] + 1
            if stands(self.folded, start, end) or (len(squeezed) >= MIN_GLUED and not _has_digit_edge(squeezed)):
                return True
        return False

    def _has_typed(self, value: str, folded: str) -> bool:
        if any(map(str.isalpha, folded)) and contains(self.parted, _part(folded)):
            return True
        day = parse_date(value, self.locale)
        if isinstance(day, date):
            return day in find_dates(self.folded, day.year, self.locale)
        number = parse_number(value, self.locale)
        if number is None and _MONEY.fullmatch(folded):
            price = parse_price(value)
            number = price and price.amount
        return number is not None and (number in self.numbers or number in self.number_words)

    def _find_url(self, value: str) -> str:
        if value in self.urls:
            return "exact"
        absolute, relative = self.addresses
        own = _address(value)
        if not _SCHEME.match(value):
            known = own in relative or (bool(own) and any(url.endswith(f"/{own}") for url in absolute))
            return "normalised" if known else "missing"
        # a page may leave out the host, and the folders that it is in itself
        steps = own.split("/", MAX_URL_STEPS)
        paths = ("/".join(steps[start:]) for start in range(1, len(steps)))
        return "normalised" if own in absolute or any(path and path in relative for path in paths) else "missing"


def _has_digit_edge(text: str) -> bool:
    return text[0].isdigit() or text[-1].isdigit()


def _squeeze(folded: str) -> str:
    for mark in _MARKUP:
        folded = folded.replace(mark, "")
    return folded


def _part(folded: str) -> str:
    return " ".join(folded.replace("_", " ").replace("-", " ").split())


def _address(url: str) -> str:
    bare = fold(unquote(_SCHEME.sub("", url, count=1))).partition("#")[0]
    return re.sub(r"^[./]+", "", bare).rstrip("/")


def _values(answer: Any, path: str) -> Iterator[Any]:
    """The scalars below a slot's path; the first MAX_VALUES of them."""
    return itertools.islice(_scalars(leaf(answer, path)), MAX_VALUES)


def _scalars(value: Any) -> Iterator[Any]:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += reversed(item)
        elif isinstance(item, dict):
            todo += reversed(item.values())
        elif not (item is None or item is ABSENT or isinstance(item, bool)):
            yield item


def _worst(states: Iterator[str]) -> str:
    worst = "none"
    for state in states:
        worst = max(worst, state, key=STATES.index)
        if worst in ("missing", "unfounded"):
            break
    return worst
