"""Typed values of written texts: `parse_number`, `parse_date`, `parse_price`; `read_number`, `read_price` for grading.

Pure: today's date, the locale and the time zone of the process play no part, and what has two readings is refused, not
guessed. `locale` arguments are what a page says of itself ("de", "en-GB").
"""

import re
from decimal import Decimal
from typing import NamedTuple

from potstill.dates import AMBIGUOUS, Ambiguous, parse_date
from potstill.folding import fold, plain
from potstill.numerals import CURRENCY, decimal_mark, parse_number, readings
from potstill.numerals import MAX_CHARS as MAX_NUMBER_CHARS

__all__ = ["AMBIGUOUS", "Ambiguous", "Price", "parse_date", "parse_number", "parse_price", "read_number", "read_price"]
MAX_PRICE_CHARS = 200
_FREE = re.compile(r"\W*free\W*", re.IGNORECASE)
_NUMBER = r"-?[.]?[0-9][0-9., ']*"
_RANGE = rf"(?<![0-9.,])(?:{_NUMBER} ?(?:-|to|bis|do|až|à) ?)?{_NUMBER}(?<=[0-9.,])"
_PRICED = re.compile(rf"-?(?:{CURRENCY} ?{_NUMBER}|{_RANGE} ?{CURRENCY})", re.IGNORECASE)
_NUMERALS = re.compile(r"[0-9](?:[0-9., ']*[0-9])?")
_EURO_CENTS = re.compile(r"[0-9]+€ ?[0-9]{2}")
_PRICE_ALONE = re.compile(rf"(?:-?({CURRENCY}) ?)?-?([0-9][0-9., ']*[0-9]|[0-9]) ?({CURRENCY})?", re.IGNORECASE)
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


# --- for grading: what can be read in two ways is AMBIGUOUS, so that it can be told from what is no number at all


def read_number(text: str, locale: str | None = None) -> Decimal | Ambiguous | None:
    """`parse_number`, and AMBIGUOUS where a text is two numbers and the locale does not decide."""
    value = parse_number(text, locale)
    if value is None and len(text) <= MAX_NUMBER_CHARS and len(readings(fold(text).lstrip("+-"))) > 1:
        return AMBIGUOUS
    return value


def read_price(text: str, locale: str | None = None) -> Price | Ambiguous | None:
    """The only price of a text, where `parse_price` takes the first of several.

    AMBIGUOUS: "10-12 €" and "3 for 14.85 EUR", which name two numbers; "1.299" without a currency or a locale; and
    "1.299 €" on an English page, which is 1299 by the rule that a price has no three decimals, and 1.299 by the locale.
    """
    written = plain(text[: MAX_PRICE_CHARS + 1])
    # the common case, without the search for a price in a longer text
    if (simple := _PRICE_ALONE.fullmatch(written)) and len(values := readings(simple[2])) == 1:
        amount = next(iter(values.values()))
        return Price(-amount if "-" in simple[0] else amount, simple[1] or simple[3])
    price = parse_price(text)
    if price is None:
        return None
    if simple and "-" in simple[0]:
        price = price._replace(amount=-abs(price.amount))
    split = _EURO_CENTS.search(written)
    numerals = _NUMERALS.findall(written)
    if split or not numerals:
        return price
    if len(numerals) > 1:
        return AMBIGUOUS
    values, mark = readings(numerals[0]), decimal_mark(locale)
    if not values:
        return None
    unknown = len(values) > 1 and not mark and price.currency is None
    return AMBIGUOUS if unknown or values.get(mark, abs(price.amount)) != abs(price.amount) else price


def same_currency(a: str | None, b: str | None) -> bool:
    """Whether two currencies as written can be one: "$" and "AUD" can, "€" and "USD" cannot; None can be any."""
    if a is None or b is None:
        return True
    codes = [_codes(fold(name).strip(".")) for name in (a, b)]
    return bool(codes[0] & codes[1]) or not (codes[0] and codes[1])


def _codes(name: str) -> frozenset[str]:
    """The ISO 4217 codes that a folded sign, name or code can mean; empty where it is not known."""
    return _CURRENCIES.get(name, frozenset())


_SIGNS = "€ eur, euro eur, euros eur, £ gbp egp lbp, ¥ jpy cny, rmb cny, ₽ rub, руб rub, ₹ inr, rs inr pkr lkr npr mur"
_SIGNS += ", ₩ krw, ₺ try, tl try, ₴ uah, ₪ ils, ₫ vnd, ฿ thb, zł pln, zl pln, kč czk, ft huf, lei ron mdl, лв bgn"
_SIGNS += ", kr sek nok dkk isk, rp idr, rm myr, us$ usd, c$ cad, ca$ cad, a$ aud, au$ aud, nz$ nzd, hk$ hkd, s$ sgd"
_SIGNS += ", r$ brl, $ usd cad aud nzd hkd sgd twd mxn ars clp cop uyu"
_ISO = "eur usd gbp jpy cny inr aud cad nzd chf sek nok dkk isk pln czk huf ron bgn rsd try rub uah ils zar brl mxn ars"
_ISO += " clp cop krw thb idr myr php vnd sgd hkd twd aed sar qar kwd bhd omr jod tnd egp lbp pkr lkr npr mur mdl uyu"
_CURRENCIES = {code: frozenset({code}) for code in _ISO.split()}
_CURRENCIES |= {sign.split()[0]: frozenset(sign.split()[1:]) for sign in _SIGNS.split(", ")}
