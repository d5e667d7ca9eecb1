"""Phone numbers as written: country and national part, validity by numbering plan, and fictional numbers.

Numbering plans are the metadata of the `phonenumbers` library. A number is handled as its national significant number
without a leading trunk 0, so that "+41 56 590 36 33" and "056 590 36 33" are the same value.
"""

import functools
import re
from typing import NamedTuple

# Regions whose national formats are accepted in a text that names no country.
NATIONAL = "US GB DE FR IT ES CH AT NL BE SE FI IE PT PL CZ GR RO HU TR IL IN JP KR CN AU NZ ZA BR MX AR UA RU EG NG PK"
AREA_CODES = "201 202 212 213 305 312 404 415 503 512 602 617 702 713 718 720 801 816 908 919 413 604 416 514"
# Numbers that regulators keep for fiction, as national prefixes by country code and length: NANPA (555-0100 to 0199),
# Ofcom, ARCEP, Bundesnetzagentur, ACMA, ComReg, PTS.
FICTIONAL: dict[tuple[str, int], list[str]] = {
    ("1", 10): [f"{area}55501" for area in AREA_CODES.split()],
    ("44", 10): ["1632960", "2079460", "7700900", "8081570", "3069990"],
    ("33", 9): ["19900", "26191", "35301", "46571", "53649", "63998"],
    ("49", 10): ["3023125", "6990009", "4066969", "8999998", "2214710", "17139200"],
    ("49", 11): ["176040690"],
    ("61", 9): ["25550", "35550", "75550", "85550", "27010", "37010", "77010", "87010"],
    ("353", 9): ["2091"],
    ("46", 9): ["3139006", "4062804", "8465004"],
}


class Phone(NamedTuple):
    country: str  # calling code, "" when the number is written without one
    national: str  # significant digits without a trunk prefix; always the last digits as written


@functools.lru_cache(maxsize=4096)
def parse(written: str) -> Phone:
    """Splits digits as written. Never raises; the number need not be valid."""
    digits = "".join(c for c in written if c.isdigit())
    abroad = digits if "+" in written else digits[2:] if digits.startswith("00") else ""
    for length in (1, 2, 3):
        if abroad and abroad[:length] in _regions():
            return Phone(abroad[:length], abroad[length:].lstrip("0") or abroad)
    # 1-780-..., and Russia's trunk prefix 8
    if len(digits) == 11 and digits[0] == "1" and digits[1] in "23456789" and digits[4] in "23456789":
        return Phone("1", digits[1:])
    if len(digits) == 11 and digits[0] == "8" and digits[1] in "3489":
        return Phone("", digits[1:])
    return Phone("", digits.lstrip("0") or digits)


@functools.lru_cache(maxsize=4096)
def is_valid(phone: Phone) -> bool:
    """Whether a numbering plan has the number: its country's, or with no country that of any region in NATIONAL."""
    regions = _regions().get(phone.country, ()) if phone.country else NATIONAL.split()
    return any(_in_plan(region, phone.national) for region in regions)


@functools.cache
def is_north_american(national: str) -> bool:
    return _in_plan("US", national) or _in_plan("CA", national)


def fictional_prefix(country: str, national: str, choice: int) -> str:
    """A prefix nobody's number has, of the same kind of line where there is one; "" for countries that keep none."""
    prefixes = FICTIONAL.get((country, len(national)), [])
    alike = [prefix for prefix in prefixes if prefix[0] == national[0]] if country != "1" else prefixes
    fitting = alike or prefixes
    return fitting[choice % len(fitting)] if fitting else ""


@functools.cache
def _regions() -> dict[str, tuple[str, ...]]:
    import phonenumbers

    return {str(code): regions for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()}


@functools.cache
def _plan(region: str) -> tuple[int, list["re.Pattern[str]"]]:
    """The calling code of a region, and the patterns of each type of its numbers."""
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region)
    if metadata is None or metadata.country_code is None:
        return 0, []
    kinds = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "voip", "personal_number", "uan")
    described = [getattr(metadata, kind) for kind in kinds]
    patterns = [re.compile(d.national_number_pattern) for d in described if d and d.national_number_pattern]
    return metadata.country_code, patterns


def _in_plan(region: str, national: str) -> bool:
    if region == "001":  # numbers of no country, such as +800
        return 7 <= len(national) <= 12
    code, patterns = _plan(region)
    # Italian numbers keep their leading 0 abroad
    spellings = (national, "0" + national) if code in (39, 225, 241, 242) else (national,)
    return any(pattern.fullmatch(spelling) for pattern in patterns for spelling in spellings)
