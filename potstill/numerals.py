"""Numbers as people write them: 1,299.50 and 1.299,50, 1 099, 1'049, 2½, ١٢, two point eight. Used through typed.py.

`locale` is what a page says of itself ("de", "en-GB"). It decides only between readings that are possible.
"""

import functools
import itertools
import re
from decimal import Decimal
from typing import NamedTuple

from potstill.folding import fold, in_word, locales

MAX_CHARS = 64
# different numerals of one text: real pages have some thousands
MAX_NUMBERS = 50_000

_GROUPED = re.compile(r"([1-9][0-9]{0,2}(?:([., '])[0-9]{3})(?:\2[0-9]{3})*)(?:(?!\2)[.,]([0-9]+))?")
_LAKHS = re.compile(r"([1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3})(?:\.([0-9]+))?")
_DECIMAL = re.compile(r"([0-9]*)([.,])([0-9]+)(e[+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"[0-9]+(?:e[+-]?[0-9]{1,3})?")
# like _SPACED from the first digit on: a pattern that starts with a set of characters is searched for in C
_FRACTION = re.compile(r"[0-9](?<![0-9/.,][0-9])(?:[0-9]{0,2} [1-7]/|(?<=[1-7])/)[2348](?![0-9/.,])")
_RUN = re.compile(r"[0-9]+(?:[.,'][0-9]+)*(?:e[+-]?[0-9]{1,3}(?![a-z0-9]))?")
_SPACED = re.compile(r"[1-9](?<![0-9.,'][1-9])[0-9]{0,2}(?: [0-9]{3}){1,6}(?:[.,][0-9]{1,4})?(?![0-9]|[.,'][0-9])")
# what can stand before an integer without changing it
_CLEAR = " (/:="
_SEPARATORS = str.maketrans("", "", "., '")

_THREE_DECIMALS = "omr|kwd|bhd|jod|tnd|iqd|lyd"
_NAMES = "euros|euro|eur|usd|gbp|chf|jpy|cny|rmb|inr|aud|cad|nzd|sek|nok|dkk|pln|czk|huf|ron|rub|uah|brl|mxn|krw|try"
_NAMES += "|zar|sgd|hkd|aed|sar|ils|thb|idr|myr|php|vnd|руб|грн|kč|zł|zl|лв|lei|din|ден|kr|kn|ft|rs|rp|rm|tl|р"
_NAME = rf"(?<![^\W\d_])(?:{_THREE_DECIMALS}|{_NAMES})(?![^\W\d_])\.?"
CURRENCY = rf"(?:{_NAME}|(?<![^\W\d_])[a-z]{{0,3}}[$£]|[€¥₹₽₩₪₫₴₦₱฿₺₸₼₾₡₲₵₭៛৳])"
_PRICED_BEFORE = re.compile(rf"{CURRENCY} ?-?$")
_PRICED_AFTER = re.compile(rf" ?{CURRENCY}|[,.]-")
_THREE = re.compile(rf"\b(?:{_THREE_DECIMALS})\b")


class Numeral(NamedTuple):
    """An unsigned numeral of a text with the eight characters before and after it."""

    before: str
    written: str
    after: str


@functools.lru_cache(65536)
def readings(written: str) -> dict[str, Decimal]:
    """The values an unsigned ASCII numeral can have, by the decimal mark that each takes for granted.

    {} for no number; {"": value} where there is one reading; {".": 1.299, ",": 1299} for "1.299".
    """
    if len(written) > MAX_CHARS:
        return {}
    if _WHOLE.fullmatch(written):
        return {"": Decimal(written)}
    grouped = _GROUPED.fullmatch(written) or _LAKHS.fullmatch(written)
    decimal = _DECIMAL.fullmatch(written)
    whole = Decimal(f"{grouped[1].translate(_SEPARATORS)}.{grouped.groups()[-1] or 0}") if grouped else None
    split = Decimal(f"{decimal[1] or 0}.{decimal[3]}{decimal[4] or ''}") if decimal else None
    if whole is not None and decimal and split is not None:
        return {"," if decimal[2] == "." else ".": whole, decimal[2]: split}
    value = split if whole is None else whole
    return {} if value is None else {"": value}


def parse_number(text: str, locale: str | None = None) -> Decimal | None:
    """The number a text is, or None: "1.299" and "1,299" are two numbers unless the locale knows the decimal mark."""
    if len(text) > MAX_CHARS:
        return None
    written = fold(text)
    if _FRACTION.fullmatch(written):
        return _fraction(written)
    unsigned = written[1:] if written[:1] in ("-", "+") else written
    found = readings(unsigned)
    value = found.get("", found.get(decimal_mark(locale)))
    if value is None:
        return parse_words(written)
    return -value if written.startswith("-") else value


def find_numbers(folded: str, locale: str | None = None) -> set[tuple[Decimal, str]]:
    """(value, as written) of every numeral of a folded text, in linear time.

    A part of a longer numeral is none, nor is one glued to the end of a word. Where "1.299" has two readings, the other
    prices of the text decide (12.50, 1.299,00), then a currency beside it (a price has no three decimals, but for the
    dinars and rials that do), then the text's other numbers in money form, then the locale, then English. Groups of
    digits with a space between them count both as one number and as several.
    """
    integers: set[str] = set()
    spots: set[tuple[str, str, str]] = set()
    for match in itertools.chain(_RUN.finditer(folded), _SPACED.finditer(folded)):
        start, end = match.span()
        written = match[0]
        if written.isdigit() and (not start or folded[start - 1] in _CLEAR):
            integers.add(written)
        else:
            spots.add((folded[max(0, start - 8) : start], written, folded[end : end + 8]))
        if len(integers) + len(spots) >= MAX_NUMBERS:
            break
    evidence, hint = _evidence(spots), decimal_mark(locale)
    found = {pair for spot in spots for pair in _values(Numeral(*spot), evidence, hint)}
    found |= {(Decimal(written), written) for written in integers if len(written) <= MAX_CHARS}
    fractions = _FRACTION.findall(folded) if "/" in folded else []
    return found | {(_fraction(written), written) for written in fractions}


@functools.lru_cache(1024)
def decimal_mark(locale: str | None) -> str:
    """The decimal mark in CLDR, "" where the locale is unknown or fewer than 3 in 4 countries of a language agree."""
    marks = [found.number_symbols["latn"]["decimal"] for found in locales(locale) if "latn" in found.number_symbols]
    return next((mark for mark in ".," if marks and marks.count(mark) / len(marks) >= 0.75), "")


def _values(numeral: Numeral, evidence: tuple[str, str], hint: str) -> list[tuple[Decimal, str]]:
    before, written, after = numeral
    last, second = before[-1:], before[-2:-1]
    # "a12" is a name; "rs12" is a price and "3x12" two numbers
    glued = last.isalpha() and in_word(last) and not (last == "x" and not second.isalpha())
    if glued and not _PRICED_BEFORE.search(before):
        return []
    if last == "." and not second.isalnum() and written.isdigit():
        written = f"0.{written}"
    found = readings(written)
    if not found:
        return [(Decimal(part), part) for part in _parts(written)]
    value = found.get("")
    if value is None:
        value = found[evidence[0] or _mark_of_price(numeral) or evidence[1] or hint or "."]
    if "-" in before[-2:] and re.search(r"(?:^|[^\w)-])-[$€£]?$", before):
        # a discount is written -30% and called 30
        return [(-value, f"-{written}"), *([(value, written)] if after[:1] == "%" else [])]
    return [(value, written)]


def _parts(written: str) -> list[str]:
    """36,37,38 is a list and 31.12.2025 has a year; 1.2.3 and 10.0.0.1 hold no numbers."""
    if len(written) > MAX_CHARS:
        return []
    if re.fullmatch(r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}", written):
        return [written[-4:]]
    return [] if "." in written else re.findall("[0-9]+", written)


def _mark_of_price(numeral: Numeral) -> str:
    """The decimal mark under which an ambiguous numeral beside a currency is a price; "" without a currency."""
    before, written, after = numeral
    if not (_PRICED_BEFORE.search(before) or _PRICED_AFTER.match(after)):
        return ""
    separator, other = (",", ".") if "," in written else (".", ",")
    return separator if _THREE.search(before) or _THREE.search(after) else other


def _evidence(spots: set[tuple[str, str, str]]) -> tuple[str, str]:
    """The decimal marks of the text's prices and of all its money forms; "" where there is none or more than one."""
    money = [spot for spot in spots if len(spot[1]) > 3 and spot[1][-3] in ".," and "" in readings(spot[1])]
    priced = [spot for spot in money if _PRICED_BEFORE.search(spot[0]) or _PRICED_AFTER.match(spot[2])]
    marks = [{written[-3] for _, written, _ in found} for found in (priced, money)]
    return tuple(found.pop() if len(found) == 1 else "" for found in marks)  # type: ignore[return-value]


def _fraction(written: str) -> Decimal:
    whole, _, part = written.rpartition(" ")
    above, _, below = part.partition("/")
    return Decimal(whole or 0) + Decimal(above) / Decimal(below)


# --- number words

_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_WORDS = {word: value for value, word in enumerate(f"{_SMALL} seventeen eighteen nineteen".split())}
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_ANY_WORD = "|".join(sorted([*_WORDS, "hundred", "thousand", "million"], key=len, reverse=True))
# without \b in front, which would make the search try every character
_WORD_RUN = re.compile(rf"(?:{_ANY_WORD})\b(?:[ -](?:and[ -])?(?:{_ANY_WORD}|point|a half)\b){{0,200}}+")
MAX_WORDS = 8


def parse_words(written: str) -> Decimal | None:
    """A plain English number below a thousand, in lower case: "two point eight", "twenty-five and a half"."""
    words = re.split("[ -]", written)
    if len(words) > MAX_WORDS:
        return None
    half = words[-3:] == ["and", "a", "half"]
    whole, point, decimals = " ".join(words[:-3] if half else words).partition(" point ")
    total = _whole_words(whole.replace(" hundred and ", " hundred ").split())
    digits = [_WORDS.get(word, 10) for word in decimals.split()]
    if total is None or (half and point) or (point and not digits) or any(digit > 9 for digit in digits):
        return None
    return Decimal(f"{total}.{''.join(map(str, digits)) or 0}") + (Decimal("0.5") if half else 0)


def find_words(folded: str) -> set[Decimal]:
    """The values of the number words of a folded text, the longest reading of each; none from "two thousand"."""
    found = set()
    for begins, run in {(folded[max(0, m.start() - 1) : m.start()], m[0]) for m in _WORD_RUN.finditer(folded)}:
        # the one of "stone two" is no number
        words = run.replace("-", " ").split()[begins.isalnum() :]
        start = len(words) if {"thousand", "million"} & set(words) else 0
        while start < len(words):
            ends = range(min(start + MAX_WORDS, len(words)), start, -1)
            read = ((parse_words(" ".join(words[start:end])), end) for end in ends)
            value, start = next(((v, end) for v, end in read if v is not None), (None, start + 1))
            found |= set() if value is None else {value}
    return found


def _whole_words(words: list[str]) -> int | None:
    """Each word must fit below the one before: twenty five, two hundred six; never five twenty."""
    total, room = 0, 1000
    for word in words:
        if word == "hundred" and 0 < total < 10:
            total, room = total * 100, 100
            continue
        value = _WORDS.get(word, room)
        if value >= room or (value == 0 and total):
            return None
        total, room = total + value, 10 if value >= 20 else 0
    return total if words else None
