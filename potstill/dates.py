"""Dates as people write them, in the languages of CLDR: full days only, never relative ones. Used through typed.py.

Today, the locale and the time zone of the process play no part. dateparser would read more, but it guesses: it takes
03/04/2025 for March, "listopad" for November although it is October in Croatian, and "2026" for today.
"""

import datetime
import functools
import re

from potstill.folding import fold, locales

MAX_CHARS = 64
# different surroundings of one year in one text
MAX_YEARS = 5_000
MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september"]
MONTHS += ["october", "november", "december"]
# month names are looked up in these; more languages would only make more three-letter names ambiguous
LANGUAGES = "ar bg bs ca cs da de el es et eu fa fi fr gl he hi hr hu id is it ka lt lv mk ms nb nl pl pt ro ru sk sl"
LANGUAGES += " sq sr sv th tr uk"


class Ambiguous:
    """The type of AMBIGUOUS, a date that can be read as two days."""

    def __repr__(self) -> str:
        return "AMBIGUOUS"


AMBIGUOUS = Ambiguous()

_TIME = re.compile(
    r"[t,]? ?(?:at )?[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[ap]m)?"
    r"(?: ?(?:z|utc|gmt|[+-][0-9]{2}:?[0-9]{2}))?$"
)
_WEEKDAY = re.compile(r"^[^\W\d_]{2,14}[.,]{1,2} ")
_YEAR_FIRST = re.compile(r"([0-9]{4})([-/.]|\. )([0-9]{1,2})\2([0-9]{1,2})\.?")
_CJK = re.compile(r"([0-9]{4}) ?[年년] ?([0-9]{1,2}) ?[月월] ?([0-9]{1,2}) ?[日일]")
_YEAR_LAST = re.compile(r"([0-9]{1,2})([-/.]|\. | )([0-9]{1,2})\2([0-9]{4}|[0-9]{2})")
_NAME = r"([^\s\d.,/'-]{2,20})"
_DAY_FIRST = re.compile(
    rf"([0-9]{{1,2}})(?:st|nd|rd|th|er|o|\.)?[ /-](?:de |of |d')?{_NAME}\.?,?[ /-](?:de |of |d')?([0-9]{{4}})"
)
_MONTH_FIRST = re.compile(rf"{_NAME}\.? ([0-9]{{1,2}})(?:st|nd|rd|th)?,? ([0-9]{{4}})")
_NAMED_YEAR_FIRST = re.compile(rf"([0-9]{{4}})[. ]{{1,2}}{_NAME}\.? ([0-9]{{1,2}})\.?")

_BEFORE_YEAR = re.compile(
    r"(?<![0-9])(?<![0-9][-/.])(?:[0-9]{1,2}([-/.]|\. )[0-9]{1,2}\1"
    r"|[0-9]{1,2}(?:st|nd|rd|th|er|o|\.)?[ /-](?:de |of |d')?[^\s\d.,/'-]{2,20}\.?,?[ /-](?:de |of |d')?"
    r"|(?<![^\W\d_])[^\s\d.,/'-]{2,20}\.? [0-9]{1,2}(?:st|nd|rd|th)?,? )$"
)
_FROM_YEAR = re.compile(
    r"[0-9]{4}(?:([-/.]|\. )[0-9]{1,2}\1[0-9]{1,2}| ?[年년] ?[0-9]{1,2} ?[月월] ?[0-9]{1,2} ?[日일]"
    r"|[. ]{1,2}[^\s\d.,/'-]{2,20}\.? [0-9]{1,2})(?![0-9])"
)


def parse_date(text: str, locale: str | None = None) -> datetime.date | Ambiguous | None:
    """The day a text names, with or without a weekday and a time of day (the day as written, whatever the offset).

    None where it names no full day of the calendar. AMBIGUOUS where it can be two days and the locale does not decide:
    03/04/2025 (a bare "en" does not), 3.4.25, and month names that two languages use for two months.
    """
    return _parse(text, locale) if len(text) <= MAX_CHARS else None


@functools.lru_cache(65536)
def _parse(text: str, locale: str | None) -> datetime.date | Ambiguous | None:
    written = _TIME.sub("", fold(text))
    found = _parse_day(written, locale)
    return _parse_day(_WEEKDAY.sub("", written, count=1), locale) if found is None else found


def _parse_day(written: str, locale: str | None) -> datetime.date | Ambiguous | None:
    if match := _YEAR_FIRST.fullmatch(written):
        return _day(match[1], match[3], match[4])
    if match := _CJK.fullmatch(written):
        return _day(match[1], match[2], match[3])
    if match := _YEAR_LAST.fullmatch(written):
        return _numeric(match[1], match[3], match[4], locale)
    if match := _DAY_FIRST.fullmatch(written):
        return _named(match[3], match[2], match[1], locale)
    if match := _MONTH_FIRST.fullmatch(written):
        return _named(match[3], match[1], match[2], locale)
    if match := _NAMED_YEAR_FIRST.fullmatch(written):
        return _named(match[1], match[2], match[3], locale)
    return None


def find_dates(folded: str, year: int, locale: str | None = None) -> set[datetime.date]:
    """Every day of a year that a folded text names in one way only, in linear time: what stands around the year."""
    around: set[tuple[str, str]] = set()
    for match in re.finditer(rf"(?<![0-9]){year:04}(?![0-9])", folded):
        start = match.start()
        around.add((folded[max(0, start - 36) : start], folded[start : start + 36]))
        if len(around) >= MAX_YEARS:
            break
    found = set()
    for before, from_year in around:
        last, first = _BEFORE_YEAR.search(before), _FROM_YEAR.match(from_year)
        for written in (last and last[0] + from_year[:4], first and first[0]):
            day = parse_date(written, locale) if written else None
            found |= {day} if isinstance(day, datetime.date) else set()
    return found


def _day(year: str, month: str | int, day: str) -> datetime.date | None:
    try:
        return datetime.date(int(year), int(month), int(day))
    except ValueError:
        return None


def _numeric(first: str, second: str, year: str, locale: str | None) -> datetime.date | Ambiguous | None:
    if len(year) == 2:
        return AMBIGUOUS
    day_first, month_first = _day(year, second, first), _day(year, first, second)
    if day_first is None or month_first is None or day_first == month_first:
        return day_first or month_first
    order = _order(locale)
    return {"dm": day_first, "md": month_first}.get(order, AMBIGUOUS)


@functools.lru_cache(1024)
def _order(locale: str | None) -> str:
    """ "dm" or "md" as in CLDR's short dates, "" where the locale is unknown or its countries differ, as with "en"."""
    patterns = ["".join(dict.fromkeys(found.date_formats["short"].pattern)) for found in locales(locale)]
    # a country that writes the year first says nothing about dates that end in it
    orders = {re.sub("[^dm]", "", pattern.lower()) for pattern in patterns if not pattern.startswith("y")}
    return orders.pop() if len(orders) == 1 else ""


def _named(year: str, name: str, day: str, locale: str | None) -> datetime.date | Ambiguous | None:
    own = _months(locale).get(name) if locale else None
    months = own or _english().get(name) or _months(None).get(name, frozenset())
    days = {_day(year, month, day) for month in months} - {None}
    return days.pop() if len(days) == 1 else AMBIGUOUS if days else None


@functools.cache
def _english() -> dict[str, frozenset[int]]:
    names = {key: number for number, name in enumerate(MONTHS, 1) for key in (name, name[:3])} | {"sept": 9}
    return {name: frozenset({number}) for name, number in names.items()}


@functools.lru_cache(64)
def _months(locale: str | None) -> dict[str, frozenset[int]]:
    """Folded month names, full and short, of a locale or of all LANGUAGES together, and the months each may mean."""
    found: dict[str, set[int]] = {}
    for known in [own for name in ([locale] if locale else LANGUAGES.split()) for own in locales(name)[:1]]:
        for context in known.months.values():
            for width in ("wide", "abbreviated"):
                for number, name in context.get(width, {}).items():
                    found.setdefault(fold(name).rstrip("."), set()).add(number)
    return {name: frozenset(numbers) for name, numbers in found.items()}
