"""Typed values of written texts: `parse_number`, `parse_date` and `parse_price`.

Pure: today's date, the locale and the time zone of the process play no part, and what has two readings is refused, not
guessed. `locale` arguments are what a page says of itself ("de", "en-GB").
"""

import re
from decimal import Decimal
from typing import NamedTuple

from potstill.dates import AMBIGUOUS, Ambiguous, parse_date
from potstill.folding import plain
from potstill.numerals import CURRENCY, parse_number, readings

__all__ = ["AMBIGUOUS", "Ambiguous", "Price", "parse_date", "parse_number", "parse_price"]
MAX_PRICE_CHARS = 200
_FREE = re.compile(r"\W*free\W*", re.IGNORECASE)
_NUMBER = r"-?[.]?[0-9][0-9., ']*"
_RANGE = rf"(?<![0-9.,])(?:{_NUMBER} ?(?:-|to|bis|do|až|à) ?)?{_NUMBER}(?<=[0-9.,])"
_PRICED = re.compile(rf"-?(?:{CURRENCY} ?{_NUMBER}|{_RANGE} ?{CURRENCY})", re.IGNORECASE)
_THREE_DECIMALS = {"OMR", "KWD", "BHD", "JOD", "TND", "IQD", "LYD"}


class Price(NamedTuple):
    """`currency` is the sign, name or code as written, or None."""

    amount: Decimal
    currency: str | None


def parse_price(text: str, hint: str | None = None) -> Price | None:
    """The first price of a short text; `hint` is a text beside it that may hold the currency. None: there is none.

    A price has no three decimals, so "1.299 €" is 1299, but for the currencies that do (OMR 1.299). Reading the
    amount and the currency is price-parser's work; the sign, dates and "gluten-free" are what it gets wrong.
    """
    import price_parser

    written = plain(text[: MAX_PRICE_CHARS + 1])
    # "July 2004" is no price either
    if len(text) > MAX_PRICE_CHARS or any(parse_date(day + written) is not None for day in ("", "1 ")):
        return None
    if not (re.search("[0-9]", written) or _FREE.fullmatch(written)):
        return None
    # "from 3 items 14.85 EUR" begins with a number that is no price
    priced = _PRICED.search(written)
    begin = priced.start() if priced else 0
    found = price_parser.Price.fromstring(written[begin:], (hint or "")[:MAX_PRICE_CHARS] or None)
    if found.amount is None or found.amount_text is None:
        return None
    values = readings(found.amount_text) or readings(_joined(found.amount_text))
    three = (found.currency or "").upper() in _THREE_DECIMALS
    amount = values.get("", values.get("." if three else "", found.amount if values else None))
    if amount is None:
        return None
    return Price(-amount if _is_negative(written, begin, found.amount_text) else amount, found.currency)


def _joined(amount_text: str) -> str:
    """35€ 99 and 8. 94 are one number, and of "2.00 100" only the first is the price."""
    if re.fullmatch("[0-9.,]+(?:€ ?|[.,] )[0-9]{2}", amount_text):
        return re.sub("€ ?|[.,] ", ".", amount_text)
    return amount_text.split(" ")[0].rstrip(".,")


def _is_negative(written: str, begin: int, amount_text: str) -> bool:
    """A minus counts where it touches the number, or the currency sign before it; after a word it is a hyphen."""
    start = written.find(amount_text[:1], begin)
    return start > 0 and re.search(r"(?<![\w.)])-[^\w\s]?$", written[:start]) is not None
