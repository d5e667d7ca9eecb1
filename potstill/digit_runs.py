"""Decides whether a run of digits is a card, a Social Security number or a phone, or something that must stay.

Prices, SKUs, GTINs, ISBNs, dates, coordinates and order numbers are digits too. A checksum or a numbering plan alone
lets one in ten of them through, so the form a number is written in and the words before it decide as well.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from potstill import phones
from potstill.pseudonyms import gtin, isbn_10, luhn

# from the first digit, because a pattern that starts with a set of characters is searched for in C
RUN = re.compile(r"[0-9](?<![A-Za-z0-9_.,][0-9])(?:[ \u00a0\u2009\u202f./()\u2010-\u2015-]{0,3}[0-9]){6,35}+")
PIECE = re.compile(r"[^ \u00a0\u2009\u202f]+")
MOST_PIECES = 8  # of a number written with spaces

CONTEXT = 48  # characters before a number in which a word can name it
PHONE_WORDS = (
    r"(?:(?<![^\W_])(?:tel|tele?ph|tél|teléf|tele[fp]h?on[eo]?|téléphone|teléfono|phone|fone?|mobile?|móvil|cell|cellphone"
    r"|handy|(?:tele)?fax|call(?:ing)?|ring|dial|text (?:me|us)|sms|whatsapp|hotline|helpline|callback|reach|answering"
    r"|(?:my|your|his|her) number|puhelin|portable|ph|voicemail|contact|contacto|contatto|kontakt|телефон|тел|моб)"
    r"(?:numbers?|nummer|num|no|nr)?(?![^\W\d_])|(?<![^\W_])(?:t|p|m|f|tf|tlf)(?=[.:] ?\Z)"
    r"|(?-i:(?<=[a-z]{2})(?:Phone|Tel|Mobile|Fax)(?:Number|No)?(?![a-z]))|电话|電話|手机|手機|전화)"
)
CARD_WORDS = (
    r"(?:(?<![^\W_])(?:cards?|cc|ccn|visa|mastercard|maestro|amex|diners|discover|jcb|karte|kreditkarte|tarjeta|carta)"
    r"(?![^\W_]))"
)
SSN_WORDS = r"(?:(?<![^\W_])ssns?(?![^\W_])|social[ _-]?sec)"
# the kind of a number that is nobody's
OTHER_WORDS = (
    r"(?:(?<![^\W_])(?:orders?|order(?:id|no|nr|number)|skus?|items?|model|mpn|parts?|ref|refs|reference|isbn|issn|ean|ean13"
    r"|gtin|gtin\d+|upc|asin|barcode|invoice|receipt|tracking|parcel|articles?|artikel|art|products?|productid|code|ids?|serial"
    r"|imei|zip|plz|postcode|vat|tax|price|total|subtotal|amount|lot|batch|patent|version|qty|quantity|stock|weight|rating"
    r"|ratings|reviews|lat|lng|lon|latitude|longitude|coordinates|width|height|size|date|time|timestamp|updated|bestellnr"
    r"|bestellnummer|commande|pedido|référence|référ|s/n)(?![^\W_]))"
)
WORDS = re.compile(
    f"(?P<phone>{PHONE_WORDS})|(?P<card>{CARD_WORDS})|(?P<ssn>{SSN_WORDS})|(?P<other>{OTHER_WORDS})", re.IGNORECASE
)
# what may stand between a word and the number it names
FILLER = re.compile(
    r"(?:[\W_]|(?:numbers?|num|no|nr|nummer|numéro|número|is|was|at|us|me|on|to|the|my|our|home|work|office|value|content"
    r"|class|span|div|strong|href|itemprop|data|td|th|dd|dt|li|b|p|a|\d|s|e|es|f)(?![^\W\d_]))*",
    re.IGNORECASE,
)
DIGITS = re.compile(r"[0-9]+")
NOT_DIGITS = re.compile(r"[^0-9]+")
SIGNS = re.compile(r"[+(/-]|\A00|[0-9]{9}")
LETTER = re.compile(r"[^\W\d_]")
MONEY = r"[$€£¥₹₽₩]|USD|EUR|GBP|CHF|kr\b|zł|руб|Kč"
MONEY_BEFORE = re.compile(rf"(?:{MONEY})\s?\Z")
MONEY_AFTER = re.compile(rf"\s?(?:{MONEY}|%)")
# letters of other scripts may stand beside a number without a space
GOES_ON = re.compile(r"[A-Za-z0-9_]|[.,][0-9]")
EXTENSION = re.compile(r"(?:x|ext)\.?\s?[0-9]", re.IGNORECASE)
DATE = re.compile(
    r"(?<![0-9])(?:(?:19|20)[0-9]{2}([-/.])(?:0?[1-9]|1[0-2])\1[0-3]?[0-9]|[0-3]?[0-9]([-/.])[0-3]?[0-9]\2(?:19|20)[0-9]{2})(?![0-9])"
)
# decimals, alone or between spaces, and lists of values
NO_PHONE = re.compile(
    r"\A[0-9]+\.[0-9]+\Z| [0-9]+\.[0-9]|[0-9]\.[0-9]+ [0-9]|[ -]\.[0-9]| / [0-9]+ / "
    # copyright years, and the corners of a picture
    r"|\A(?:19|20)[0-9]{2} ?[-\u2013] ?(?:19|20)[0-9]{2}\Z|\A0 0"
)
LABEL_ENDS = tuple(":=\"'#>")
GTIN_FORMS = {(8,), (4, 4), (12,), (1, 5, 5, 1), (13,), (1, 6, 6), (14,), (1, 2, 5, 5, 1)}
# issuer ranges by length, from ISO/IEC 7812 registrations as the card schemes publish them
BRANDS = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|(?:5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720))[0-9]+(?<=\A[0-9]{16})"
    r"|3[47][0-9]{13}|3(?:0[0-59]|[689])[0-9]+(?<=\A[0-9]{14})|3(?:0[0-59]|[689])[0-9]+(?<=\A[0-9]{16})|35[0-9]{14}"
    r"|(?:1800|2131)[0-9]{11}|220[0-4][0-9]{12}|6[0-9]{11,18}|5[06-8][0-9]{10,17}"
)
# of these, the lengths that a number without a word beside it may have
COMMON = re.compile(r"4(?:[0-9]{12}|[0-9]{15})|[2356][0-9]{15}|3[47][0-9]{13}|3[0689][0-9]{12}|(?:1800|2131)[0-9]{11}")
SPECIMEN_SSNS = frozenset(("123456789", "987654320", "078051120"))


class Number(NamedTuple):
    """A stretch of text that may be one number. `alone`: nothing else belongs to its run."""

    text: str
    start: int
    end: int
    alone: bool
    written: str
    groups: list[str]
    digits: str
    form: tuple[int, ...]

    @property
    def label(self) -> tuple[str, bool]:
        """The kind that the nearest word before the number names, and whether it stands directly before it."""
        return _label(self.text[max(0, self.start - CONTEXT) : self.start])

    @property
    def in_a_name(self) -> bool:
        """Whether the digits are part of a path, a file name, an attribute or an address."""
        after = self.text[self.end : self.end + 2]
        return (self.start > 0 and self.text[self.start - 1] in "/=_&?%-.@~") or (
            len(after) == 2 and after[0] in "._-/" and after[1].isalnum()
        )


def runs(text: str) -> Iterator[list[tuple[int, int]]]:
    """Yields stretches of seven or more digits, each as its pieces between spaces."""
    for match in RUN.finditer(text):
        pieces = [piece.span() for piece in PIECE.finditer(text, *match.span())]
        start = pieces[0][0]
        for sign in ("(", "+", "("):
            # U+0102 and 1+1 are no calling codes
            if start and text[start - 1] == sign and not (sign == "+" and text[start - 2 : start - 1].isalnum()):
                start -= 1
        pieces[0] = (start, pieces[0][1])
        yield pieces


def decide(text: str, pieces: list[tuple[int, int]], known: Mapping[str, str]) -> list[tuple[int, int, str]]:
    """The numbers of one run, longest first from the left. `known`: values found elsewhere -> their kind."""
    found, first = [], 0
    counts = [len(NOT_DIGITS.sub("", text[start:end])) for start, end in pieces]
    while first < len(pieces):
        for last in range(min(len(pieces), first + MOST_PIECES), first, -1):
            # single digits between spaces are a table's, not a number's
            fewest = max(7, 2 * (last - first) - 1)
            if not (counts[first] and counts[last - 1] and fewest <= sum(counts[first:last]) <= 19):
                continue
            number = _number(text, pieces[first][0], pieces[last - 1][1], last - first == len(pieces))
            if kind := _kind(number, known):
                found.append((number.start, number.end, kind))
                first = last - 1
                break
        first += 1
    return found


def _number(text: str, start: int, end: int, alone: bool) -> Number:
    written = text[start:end]
    groups = DIGITS.findall(written)
    return Number(text, start, end, alone, written, groups, "".join(groups), tuple(map(len, groups)))


# the windows of a run share their beginnings
@lru_cache(maxsize=64)
def _label(before: str) -> tuple[str, bool]:
    last = None
    if LETTER.search(before):
        for last in WORDS.finditer(before):  # noqa: B007
            pass
    if last is None or last.lastgroup is None:
        return "", False
    return last.lastgroup, FILLER.fullmatch(before, last.end()) is not None


def _kind(number: Number, known: Mapping[str, str]) -> str | None:
    after = number.text[number.end : number.end + 6]
    if GOES_ON.match(after):
        if not EXTENSION.match(after):
            return None
    elif MONEY_AFTER.match(after):
        return None
    if MONEY_BEFORE.search(number.text, max(0, number.start - 4), number.start):
        return None
    digits = number.digits
    if known and (kind := _known(number, known)):
        return kind
    if len(digits) >= 12 and _is_card(number):
        return "card"
    # a stretch of a table: only a word or a sign before it could make it a phone
    if not number.alone and not number.label[0] and not SIGNS.search(number.written):
        return None
    if len(digits) == 9 and _is_ssn(number):
        return "ssn"
    return "phone" if len(digits) <= 15 and _is_phone(number) else None


def _known(number: Number, known: Mapping[str, str]) -> str | None:
    kind = known.get(number.digits)
    if kind is None and (kind := known.get(phones.parse(number.written).national)) == "ssn":
        # with a calling code it has more digits than a Social Security number can
        return "phone"
    return kind


def _is_card(number: Number) -> bool:
    digits, form = number.digits, number.form
    if not (BRANDS.fullmatch(digits) and luhn(digits)) or "+" in number.written:
        return False
    kind, near = number.label
    if kind == "card":
        return True
    if len(form) > 1:
        return form[0] == 4 and 3 <= len(form) <= 5 and all(length >= 3 for length in form[:-1])
    if (kind == "other" and near) or number.in_a_name or not COMMON.fullmatch(digits):
        return False
    # an EAN may look like an old Visa number of 13 digits, a GTIN-14 like a Diners Club number
    return not gtin(digits)


def _is_ssn(number: Number) -> bool:
    digits, form = number.digits, number.form
    separators = set(re.sub(r"[0-9]", "", number.written))
    if len(separators) > 1 or separators - set(" .-") or number.written[0] in "+(":
        return False
    if digits[:3] in ("000", "666") or digits[3:5] == "00" or digits[5:] == "0000" or len(set(digits)) == 1:
        return False
    kind, near = number.label
    if kind == "ssn":
        return True
    if form != (3, 2, 4) or digits in SPECIMEN_SSNS or (kind == "other" and near) or number.in_a_name:
        return False
    return "-" in separators or (number.alone and kind != "phone")


def _is_phone(number: Number) -> bool:
    written, digits, form = number.written, number.digits, number.form
    if DATE.search(written) or NO_PHONE.search(written) or _is_sequence(number.groups):
        return False
    if number.start and number.text[number.start - 1] in "-_/+":
        return False
    # the words before a number are looked at last, because that takes longest
    if "+" in written and phones.is_valid(phones.parse(written)):
        return True
    kind, near = number.label
    named = kind == "phone"
    if "+" in written:
        return digits[0] != "0" and (named or (kind != "other" and len(form) > 1))
    if kind not in ("", "phone") and (near or kind == "other"):
        return False
    if form in GTIN_FORMS and gtin(digits):
        # an EAN can follow "mobile phone"; after "phone:" it cannot
        return named and near and number.text[max(0, number.start - 4) : number.start].rstrip(" (")[-1:] in LABEL_ENDS
    if named and near:
        return True
    if number.in_a_name:
        return False
    if len(form) == 1:
        # no count, price or code of ours starts with a 0; an ISBN-10 may
        zero = digits[0] == "0" != digits[1] and len(digits) in (10, 11)
        return zero and kind == "" and phones.is_valid(phones.parse(written)) and not isbn_10(digits)
    if named and not _is_thousands(written, form):
        return digits[0] == "0" or phones.is_valid(phones.parse(written))
    return _is_national(number)


def _is_national(number: Number) -> bool:
    """Whether the form alone says phone: a trunk 0, an area code in parentheses, or North America's 3-3-4."""
    written, digits, form = number.written, number.digits, number.form
    phone = phones.parse(written)
    if form in ((3, 3, 4), (1, 3, 3, 4)) and phones.is_north_american(phone.national):
        return number.alone or " " not in written
    if re.match(r"(?:8 ?)?\(0?[0-9]{1,4}\)", written):
        return len(digits) >= 8 and phones.is_valid(phone)
    if form == (3, 2, 2, 2) and number.alone:
        return phones.is_valid(phone)
    if digits[:2] == "00":
        return len(form) > 2 and phone.country != "" and phones.is_valid(phone)
    if digits[0] != "0" or form[0] < 2 or not 9 <= len(digits) <= 12 or not number.alone:
        return False
    # two groups with a dot or a hyphen are part numbers and decimals as often as phones
    return (len(form) > 2 or not set(written) & set(".-")) and phones.is_valid(phone)


def _is_thousands(written: str, form: tuple[int, ...]) -> bool:
    return len(form) > 1 and form[0] <= 3 and all(length == 3 for length in form[1:]) and not set(written) & set("-/()")


def _is_sequence(groups: list[str]) -> bool:
    """Page numbers and sizes: 01 02 03 04, 36 38 40 42."""
    values = [int(group) for group in groups]
    return len(values) > 3 and {b - a for a, b in itertools.pairwise(values)} in ({1}, {2}, {5}, {10})
