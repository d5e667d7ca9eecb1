"""The forms in which texts are compared: entities decoded, one kind of digit, quote, dash and space, no case."""

import functools
import html
import re
import unicodedata
from typing import Any

_SIGNS = {"\u2044": "/", "\u066b": ".", "\u066c": ","} | dict.fromkeys("‘’‚‛′´ʼʻ", "'")
_SIGNS |= dict.fromkeys("“”„‟″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-")
# soft hyphens, zero-width characters and direction marks
_SIGNS |= dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", "")
_SIGN = re.compile(f"[{''.join(_SIGNS)}]")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
# NFKC would glue 10² to 102, 19⁹⁹ to 1999 and 2½ to 21/2
_RAISED = re.compile("(?<=[0-9])(?=[²³¹⁰-⁹₀-₉¼-¾⅐-⅞])")
# characters that NFKC writes as five to eighteen: a page made of them would take seconds
_SPELT_OUT = re.compile("[\u3300-\u3357\ufdfa\ufdfb]")
_LONG_REFERENCE = re.compile("&#(?=[xX]?[0-9a-fA-F]{9})")
_JOINED_BEFORE = re.compile(r".?[0-9]|[0-9][.,']")
_JOINED_AFTER = re.compile(r"[0-9]|[.,'][0-9]")
# an occurrence inside a word is passed over; a text made of nothing else is given up
MAX_OCCURRENCES = 1_000
# scripts that put no space between words: Thai to Tibetan, Burmese, Khmer, and all from CJK on
_UNSPACED = ((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x10FFFF))


def plain(text: str) -> str:
    """The text in NFKC with entities decoded, ASCII digits, quotes and dashes, and single spaces."""
    if "&" in text:
        # html.unescape hands the digits to int(), which raises beyond 4,300 of them
        text = html.unescape(_LONG_REFERENCE.sub(" ", text))
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _RAISED.sub(" ", _SPELT_OUT.sub(" ", text)))
        text = _SIGN.sub(lambda match: _SIGNS[match[0]], text)
        text = _OTHER_DIGIT.sub(lambda match: str(unicodedata.digit(match[0], 0)), text)
    return " ".join(text.split())


def fold(text: str) -> str:
    """`plain` without case."""
    return plain(text).casefold()


def in_word(char: str) -> bool:
    """Whether a letter or digit goes on with the word beside it; "" and unspaced scripts do not."""
    return char.isalnum() and (char.isascii() or not any(low <= ord(char) <= high for low, high in _UNSPACED))


def contains(text: str, value: str) -> bool:
    """Whether a value stands in a text as whole words and whole numbers. "" stands nowhere."""
    position = text.find(value) if value else -1
    for _ in range(MAX_OCCURRENCES):
        if position < 0 or stands(text, position, position + len(value)):
            return position >= 0
        position = text.find(value, position + 1)
    return False


def stands(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is no part of a longer word or number: 2.8 is in "2.8lb", not in 12.8, 2.85 or -2.8."""
    first, last, before, after = text[start], text[end - 1], text[max(0, start - 2) : start], text[end : end + 2]
    number = not any(map(str.isalpha, text[start:end]))
    if first.isdigit() and _JOINED_BEFORE.fullmatch(before):
        return False
    if last.isdigit() and _JOINED_AFTER.match(after):
        return False
    # 5 is not in -5, nor -5 in 10-5, nor .75 in 1.75
    if number and before[-1:] == "-" and not before[:-1].isalnum() and first.isdigit():
        return False
    if first in ".,-" and before[-1:].isdigit() and text[start + 1 : start + 2].isdigit():
        return False
    goes_on = in_word(first) and in_word(before[-1:])
    return not goes_on and not (in_word(last) and in_word(after[:1]) and not (number and after[0].isalpha()))


@functools.lru_cache(1024)
def locales(name: str | None) -> list[Any]:
    """The CLDR locales (babel.Locale) of "de-CH", or all those of the bare language "de"; [] for an unknown name."""
    from babel import Locale, localedata

    wanted = (name or "").replace("-", "_").lower()
    if not re.fullmatch(r"[a-z]{2,3}(_[a-z0-9]{2,8}){0,3}", wanted):
        return []
    known = {identifier.lower(): identifier for identifier in localedata.locale_identifiers()}
    names = [wanted] if "_" in wanted else [n for n in known if n == wanted or n.startswith(f"{wanted}_")]
    return [Locale.parse(known[n]) for n in sorted(names) if n in known]
