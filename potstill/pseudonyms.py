"""Type-preserving pseudonyms: an email stays an email, a card number stays Luhn-valid, an IBAN keeps its country.

A pseudonym is a function of the project's key, the kind and the normalised value (HMAC-SHA256, RFC 2104), so a value
written with other spaces, dashes or capitals gets the same one. Emails, cards, IBANs, SSNs, IPv6 addresses, long keys
and URL users carry a keyed stamp in their last characters: a second pass with the same key knows them and keeps them.
Phones and IPv4 addresses have no room for a stamp and get another pseudonym of the same form.
"""

import hmac
import ipaddress
import itertools
import re
import string
import unicodedata
from collections.abc import Iterator, Sequence

from potstill import phones

AT = re.compile(r"@|＠|%40|&#(?:64|x40);|&commat;", re.IGNORECASE)
DOMAINS = ("example.com", "example.org", "example.net")
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
# first digits of a card -> issuer numbers that payment providers publish for tests, of the same brand
TEST_ISSUERS = {"34": "371449", "37": "378282", "35": "356600", "3": "305693", "4": "424242", "5": "555555"}
TEST_ISSUERS |= {"62": "620000", "6": "601111", "1": "180000", "2": "222300"}
# RFC 5737
DOCUMENTATION = ("192.0.2", "198.51.100", "203.0.113")
# what shows the issuer of a key and stays as it is
KEY_PREFIX = re.compile(
    r"sk-(?:[a-z]+\d*-)*|(?:[spr]k|whsec)_(?:live_|test_)?|gh[pousr]_|github_pat_|glpat-|A(?:KIA|SIA|ROA|IDA)|AIza|ya29\."
    r"|xox[abeoprs]-|xapp-|hf_|npm_|pypi-|SG\.|shp(?:at|ca|pa|ss)_|dop_v1_|eyJ"
)
ONSETS = "bcdfghjklmnprstvw"
VOWELS = "aeiou"


def normalise(kind: str, written: str) -> str:
    """What is equal for all ways to write one value."""
    if kind == "phone":
        return phones.parse(written).national
    if kind in ("card", "ssn"):
        return _digits(written)
    if kind == "iban":
        return "".join(c for c in written if c.isalnum()).upper()
    if kind == "ip":
        return str(ipaddress.ip_address(written))
    if kind == "email":
        return unicodedata.normalize("NFKC", AT.sub("@", written)).lower()
    if kind in ("person", "location"):
        return " ".join(written.casefold().split())
    return "".join(written.split()) if kind == "secret" else written


def pseudonym(kind: str, written: str, key: bytes, country: str = "") -> str:
    """The pseudonym of a value, in the form it is written in.

    `country` is the calling code of a phone number that is written without one.
    Only letters, digits and the characters of `written` are used, plus "@", "." and ":": safe inside a JSON string.
    """
    makers = {"email": _email, "card": _card, "iban": _iban, "ip": _ip, "ssn": _ssn, "secret": _secret}
    if kind == "phone":
        return _phone(written, key, country)
    if kind == "url_userinfo":
        return _userinfo(written, key)
    return makers[kind](written, key) if kind in makers else _words(kind, written, key)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = (int(d) for d in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(d * 2 - 9 * (d > 4) for d in doubled)) % 10 == 0


def iban_remainder(iban: str) -> int:
    """ISO 7064 MOD 97-10 over an IBAN without separators; 1 for a valid one."""
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97


def gtin(digits: str) -> bool:
    """GS1 General Specifications, 7.9: check digit of GTIN-8, -12, -13 (EAN, ISBN-13) and -14."""
    weighted = (int(d) * (3 if n % 2 else 1) for n, d in enumerate(reversed(digits)))
    return len(digits) in (8, 12, 13, 14) and sum(weighted) % 10 == 0


def isbn_10(digits: str) -> bool:
    """ISO 2108; without those that end in X."""
    return len(digits) == 10 and sum((10 - n) * int(d) for n, d in enumerate(digits)) % 11 == 0


def _stream(key: bytes, *parts: str) -> Iterator[int]:
    for block in itertools.count():
        # the separator occurs in no normalised value
        message = "\0".join((*parts, str(block))).encode("utf-8", "surrogatepass")
        yield from hmac.digest(key, message, "sha256")


def _stamp(alphabets: Sequence[str], key: bytes, kind: str, head: str) -> str:
    return "".join(a[b % len(a)] for a, b in zip(alphabets, _stream(key, kind, "stamp", head), strict=False))


def _fill(alphabets: Sequence[str], key: bytes, kind: str, value: str, stamp: int) -> str:
    """One character of each alphabet; the last `stamp` of them prove, to who has the key, that they were made here."""
    cut = len(alphabets) - stamp
    source = _stream(key, kind, value)
    head = "".join(a[b % len(a)] for a, b in zip(alphabets[:cut], source, strict=False))
    return head + _stamp(alphabets[cut:], key, kind, head)


def _stamped(text: str, alphabets: Sequence[str], key: bytes, kind: str, stamp: int) -> bool:
    cut = len(text) - stamp
    return len(text) == len(alphabets) and text[cut:] == _stamp(alphabets[cut:], key, kind, text[:cut])


def _email(written: str, key: bytes) -> str:
    value = normalise("email", written)
    local, _, domain = value.partition("@")
    if domain in DOMAINS and _stamped(local, [BASE32] * 12, key, "email", 5):
        return written
    at = AT.search(written)
    made = _fill([BASE32] * 12, key, "email", value, 5)
    return f"{made}{at[0] if at else '@'}{DOMAINS[next(_stream(key, 'domain', value)) % 3]}"


def _card(written: str, key: bytes) -> str:
    value = _digits(written)
    issuer = TEST_ISSUERS.get(value[:2]) or TEST_ISSUERS.get(value[0], "424242")
    alphabets = [string.digits] * (len(value) - 7)
    if value[:6] == issuer and _stamped(value[6:-1], alphabets, key, "card", 3):
        return written
    body = issuer + _fill(alphabets, key, "card", value, 3)
    return _in_form(written, next(body + d for d in string.digits if luhn(body + d)))


def _ssn(written: str, key: bytes) -> str:
    """Area 9xx with a group of 01 to 49 is neither a Social Security number nor an ITIN."""
    value = _digits(written)
    alphabets = ["9", string.digits, string.digits, "1234", "123456789", "123456789", *[string.digits] * 3]
    if _stamped(value, alphabets, key, "ssn", 2):
        return written
    return _in_form(written, _fill(alphabets, key, "ssn", value, 2))


def _iban(written: str, key: bytes) -> str:
    value = normalise("iban", written)
    alphabets = [string.digits if c.isdigit() else string.ascii_uppercase for c in value[4:]]
    if _stamped(value[4:], alphabets, key, "iban", 5):
        return written
    account = _fill(alphabets, key, "iban", value, 5)
    check = 98 - iban_remainder(f"{value[:2]}00{account}")
    made = _in_form(written, f"{value[:2]}{check:02d}{account}")
    return made.lower() if written.islower() else made


def _ip(written: str, key: bytes) -> str:
    value = normalise("ip", written)
    if ":" not in value:
        source = _stream(key, "ip", value)
        tries = (f"{DOCUMENTATION[next(source) % 3]}.{next(source) % 254 + 1}" for _ in itertools.count())
        return next(made for made in tries if made != value)
    alphabets = [string.hexdigits[:16]] * 24
    nibbles = ipaddress.ip_address(value).exploded.replace(":", "")
    if nibbles.startswith("20010db8") and _stamped(nibbles[8:], alphabets, key, "ip", 6):
        return written
    made = "20010db8" + _fill(alphabets, key, "ip", value, 6)
    return str(ipaddress.ip_address(":".join(made[n : n + 4] for n in range(0, 32, 4))))


def _phone(written: str, key: bytes, country: str) -> str:
    digits, phone = _digits(written), phones.parse(written)
    value = phone.national
    source = _stream(key, "phone", value)
    # a national number of ten digits in North America's form, when nothing says otherwise
    guess = phone.country or country or ("1" if len(digits) == 10 and phones.is_north_american(value) else "")
    for _ in range(9):
        prefix = phones.fictional_prefix(guess, value, next(source)) or value[: 2 if len(value) > 7 else 1]
        made = prefix + "".join(str(next(source) % 10) for _ in range(len(value) - len(prefix)))
        if made != value:
            break
    return _in_form(written, digits[: len(digits) - len(value)] + made)


def _secret(written: str, key: bytes) -> str:
    """Keeps the prefix, the length, the punctuation and, for a private key, the line breaks."""
    prefix = KEY_PREFIX.match(written)
    start = prefix.end() if prefix else 0
    body = "".join(c for c in written[start:] if c.isalnum())
    letters = "abcdef" if all(c in string.hexdigits for c in body) else string.ascii_lowercase
    allowed = letters if any(c.islower() for c in body) else ""
    allowed += letters.upper() if any(c.isupper() for c in body) else ""
    allowed += string.digits if any(c.isdigit() for c in body) else ""
    alphabets, stamp = [allowed or letters] * len(body), 6 if len(body) >= 14 else 0
    if stamp and _stamped(body, alphabets, key, "secret", stamp):
        return written
    return written[:start] + _in_form(
        written[start:], _fill(alphabets, key, "secret", normalise("secret", written), stamp)
    )


def _userinfo(written: str, key: bytes) -> str:
    user, colon, password = written.partition(":")
    if _stamped(user, [BASE32] * 10, key, "url_userinfo", 4):
        return written
    letters = string.ascii_letters + string.digits
    made = _fill([BASE32] * 10, key, "url_userinfo", user, 4)
    return made + colon + _fill([letters] * len(password), key, "password", written, 0)


def _words(kind: str, written: str, key: bytes) -> str:
    """Made-up names, word by word, so that "Anna Weber" and "Weber" still share a name."""

    def name(match: "re.Match[str]") -> str:
        source = _stream(key, kind, match[0].casefold())
        made = "".join(ONSETS[next(source) % len(ONSETS)] + VOWELS[next(source) % len(VOWELS)] for _ in range(3)) + "n"
        return (
            made.upper() if match[0].isupper() and len(match[0]) > 1 else made.title() if match[0].istitle() else made
        )

    return re.sub(r"[^\W\d_]+", name, written)


def _digits(written: str) -> str:
    return "".join(c for c in written if c.isdigit())


def _in_form(written: str, made: str) -> str:
    """Puts the characters of `made` in place of the letters and digits of `written`."""
    source = iter(made)
    return "".join(next(source) if c.isalnum() else c for c in written)
