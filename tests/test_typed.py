"""potstill/typed.py, numerals.py, dates.py and folding.py: written numbers, prices and days, and what is refused."""

import datetime
import json
import os
import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.dates import LANGUAGES, MONTHS, find_dates
from potstill.folding import fold
from potstill.numerals import find_numbers, find_words
from potstill.typed import (
    AMBIGUOUS,
    Price,
    parse_date,
    parse_number,
    parse_price,
    read_number,
    read_price,
    same_currency,
)

DAY = datetime.date(2025, 3, 4)
days = st.dates(min_value=datetime.date(1000, 1, 1))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("12.5", "12.5"),
        ("12,5", "12.5"),
        ("1,299.50", "1299.50"),
        ("1.299,50", "1299.50"),
        ("1 299,50", "1299.50"),
        ("1\u202f299,50", "1299.50"),
        ("1'049.95", "1049.95"),
        ("1’049,95", "1049.95"),
        ("12,34,567", "1234567"),
        ("1.144.000", "1144000"),
        ("0.125", "0.125"),
        ("1234.567", "1234.567"),
        ("-3", "-3"),
        ("−3.5", "-3.5"),
        ("+3", "3"),
        ("1e-5", "0.00001"),
        ("１２．５", "12.5"),
        ("١٢٫٥", "12.5"),
        ("2½", "2.5"),
        ("1 1/2", "1.5"),
        ("&#52;2", "42"),
        ("two point eight", "2.8"),
        ("Twenty-five and a half", "25.5"),
        ("two hundred and six", "206"),
        ("zero point zero five", "0.05"),
        ("1.299", None),
        ("1,299", None),
        ("1.2.3", None),
        ("1,29,99", None),
        ("12.5.", None),
        ("--3", None),
        ("$12", None),
        ("12%", None),
        ("five twenty", None),
        ("twenty eleven", None),
        ("two thousand", None),
        ("point eight", None),
        ("nan", None),
        ("", None),
        ("9" * 65, None),
    ],
)
def test_a_number_is_read_or_refused(text, want):
    assert parse_number(text) == (want and Decimal(want))


def test_the_locale_decides_between_two_readings_and_overrules_none():
    assert parse_number("1.299", "de") == parse_number("1,299", "en-US") == 1299
    assert parse_number("1.299", "en") == parse_number("1,299", "fr") == Decimal("1.299")
    assert parse_number("12,5", "en") == Decimal("12.5")
    # half of the countries that speak Spanish write 1.299 for 1299, the others for 1.299
    assert parse_number("1.299", "es") is None
    assert parse_number("1.299", "es-MX") == Decimal("1.299")
    assert parse_number("1.299", "no such locale") is None


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("$12.50", "12.50", "$"),
        ("1.299,00 €", "1299", "€"),
        ("1.299 €", "1299", "€"),
        ("Rp 221.000", "221000", "Rp"),
        ("OMR 1.299", "1.299", "OMR"),
        ("123,456.789 OMR", "123456.789", "OMR"),
        ("35€ 99", "35.99", "€"),
        ("1.899,-", "1899", None),
        ("3 copies for only 14,85 EUR", "14.85", "EUR"),
        ("From 26 to 50 €", "26", "€"),
        ("-30% now $20", "20", "$"),
        ("$2.00 100 - $2.75", "2", "$"),
        ("-$12.50", "-12.50", "$"),
        ("$-12.50", "-12.50", "$"),
        ("Credit −12,50 €", "-12.50", "€"),
        ("Price - 12.50", "12.50", None),
        ("low-12.50", "12.50", None),
        ("Free!", "0", None),
    ],
)
def test_a_price_is_read_with_its_sign_and_currency(text, amount, currency):
    assert parse_price(text) == (Decimal(amount), currency)


@pytest.mark.parametrize("text", ["", "50%", "gluten-free", "15.08.2017", "03/04/2025", "July, 2004", "€", "1 " * 101])
def test_what_is_no_price_is_refused(text):
    assert parse_price(text) is None


def test_the_currency_may_stand_beside_the_price():
    assert parse_price("45.33", hint="USD") == (Decimal("45.33"), "USD")


@given(st.decimals(0, 10**7, places=2), st.sampled_from(["€", "EUR", "$", "kr", "Rp", "zł", ""]), st.booleans())
def test_a_price_alone_is_read_as_in_a_longer_text(amount, sign, before):
    written = f"{sign} {amount:,}" if before else f"{amount:,} {sign}"
    assert read_price(written.strip()).amount == parse_price(written).amount == amount


@pytest.mark.parametrize(
    ("text", "locale", "want"),
    [
        ("1.299,00 €", None, "1299"),
        ("1.299 €", None, "1299"),
        ("1.299", "de", "1299"),
        ("-Rp 759.906", None, "-759906"),
        ("kr.32", None, "32"),
        ("- 12.50", None, "12.50"),
        ("€-12.50", None, "-12.50"),
        ("now only 12,50 €", None, "12.50"),
        ("35€ 99", None, "35.99"),
        ("free", None, "0"),
        ("1.299", None, AMBIGUOUS),
        ("1.299 €", "en", AMBIGUOUS),
        ("$3.459", "en-US", AMBIGUOUS),
        ("10-12 €", None, AMBIGUOUS),
        ("was 20, now 15 EUR", None, AMBIGUOUS),
        ("50%", None, None),
        ("1.2.3 €", None, None),
        ("15.08.2017", None, None),
        ("ask us", None, None),
        ("9" * 500, None, None),
    ],
)
def test_the_only_price_of_a_text_is_read_and_two_are_ambiguous(text, locale, want):
    found = read_price(text, locale)
    assert (found.amount if isinstance(found, Price) else found) == (Decimal(want) if isinstance(want, str) else want)


def test_a_number_with_two_readings_is_told_from_none():
    assert read_number("1.299") is read_number("-1,299") is AMBIGUOUS
    assert read_number("1.299", "de") == 1299
    assert read_number("1.299.000") == 1299000
    assert read_number("heavy") is read_number("9" * 65) is read_number("") is None


def test_two_currencies_can_be_one_or_cannot():
    for a, b in (("$", "AUD"), ("€", "euros"), ("kr", "SEK"), ("kr.", "DKK"), ("US$", "$"), (None, "€"), ("₿", "€")):
        assert same_currency(a, b)
        assert same_currency(b, a)
    for a, b in (("$", "€"), ("EUR", "USD"), ("US$", "A$"), ("zł", "Kč")):
        assert not same_currency(a, b)
        assert not same_currency(b, a)


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-04",
        "2025/3/4",
        "2025-03-04T23:59:00+14:00",
        "2025-03-04 10:30",
        "4 March 2025",
        "4th of March 2025",
        "March 4, 2025",
        "Mar. 4th 2025",
        "Tuesday, March 4, 2025, 10:30 pm",
        "Di., 4. März 2025",
        "4-Mar-2025",
        "4 de marzo de 2025",
        "4 марта 2025",
        "2025. március 4.",
        "2025年3月4日",
        "2025년 3월 4일",
    ],
)
def test_a_day_is_read_in_any_unambiguous_form(text):
    assert parse_date(text) == DAY
    assert find_dates(fold(f"Updated {text}, see below"), 2025) == {DAY}


@pytest.mark.parametrize(
    "text",
    [
        "2025",
        "today",
        "tomorrow",
        "March 2025",
        "4 March",
        "12 products 2025",
        "2025-02-30",
        "31/04/2025",
        "",
        "3 " * 40,
    ],
)
def test_no_full_day_is_none(text):
    assert parse_date(text) is None


def test_a_numeric_date_with_two_readings_needs_a_locale_that_decides():
    assert parse_date("04/03/2025") is AMBIGUOUS
    assert parse_date("04/03/2025", "en") is AMBIGUOUS
    assert parse_date("04/03/2025", "en-GB") == parse_date("04.03.2025", "de") == DAY
    assert parse_date("03/04/2025", "en-US") == DAY
    assert parse_date("13/03/2025") == parse_date("03/13/2025") == datetime.date(2025, 3, 13)
    assert parse_date("03/03/2025") == datetime.date(2025, 3, 3)
    assert parse_date("4.3.25", "de") is AMBIGUOUS
    assert find_dates("on 04/03/2025", 2025) == set()
    assert find_dates("on 04/03/2025", 2025, "fr") == {DAY}


def test_a_month_name_that_two_languages_use_for_two_months_needs_a_locale():
    assert parse_date("3 listopada 2025") is AMBIGUOUS
    assert parse_date("3 listopada 2025", "pl") == datetime.date(2025, 11, 3)
    assert parse_date("3 listopada 2025", "hr") == datetime.date(2025, 10, 3)


@given(days)
def test_every_written_form_of_a_day_is_read_and_found(day):
    month = MONTHS[day.month - 1]
    forms = [f"{day}", f"{day.day} {month} {day.year}", f"{month[:3]} {day.day}, {day.year}"]
    for form in [*forms, f"{day.year}年{day.month}月{day.day}日", f"{day.day}-{month[:3]}-{day.year}"]:
        assert parse_date(form) == day
        assert find_dates(fold(f"until {form}."), day.year) == {day}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(LANGUAGES.split()), days)
def test_a_day_in_a_language_is_read_as_that_day_or_called_ambiguous(language, day):
    from babel.dates import get_month_names

    name = get_month_names("wide", locale=language)[day.month]
    text = f"{day.day} {name} {day.year}"
    assert parse_date(text) in (day, AMBIGUOUS)
    if parse_date(text) is AMBIGUOUS:
        assert parse_date(text, language) == day


@settings(max_examples=30, deadline=None)
@given(
    st.dates(min_value=datetime.date(1900, 1, 1)),
    st.sampled_from(["en", "de", "fr", "es", "it", "nl", "pl", "sv", "ru"]),
)
def test_dateparser_reads_the_same_days_in_its_strict_mode(day, language):
    import dateparser
    from babel.dates import format_date

    text = format_date(day, "d MMMM y", locale=language)
    theirs = dateparser.parse(text, languages=[language], settings={"STRICT_PARSING": True})
    assert parse_date(text, language) == theirs.date() == day


@given(st.decimals(0, 10**7, places=2))
def test_every_written_form_of_an_amount_is_found_and_no_part_of_it(amount):
    english, german = f"{amount:,}", f"{amount:,}".translate(str.maketrans(",.", ".,"))
    for form in (str(amount), english, german, german.replace(".", " "), german.replace(".", "'")):
        found = {value for value, _ in find_numbers(fold(f"Now {form} EUR, 7 left"))}
        assert amount in found
        assert parse_number(form) == amount
        assert Decimal(f"{amount}"[1:]) not in found - {amount, Decimal(7)} or " " in form


def numbers(text, locale=None):
    return sorted(value for value, _ in find_numbers(fold(text), locale))


def test_a_part_of_a_longer_number_or_of_a_name_is_no_number():
    assert numbers("112.55 a12 v2.1 1.2.3 10.0.0.1") == [Decimal("112.55")]
    assert numbers("2.8lb 3x12 rs15 约18元") == [Decimal("2.8"), 3, 12, 15, 18]
    assert numbers("36,37,38 on 31.12.2025") == [36, 37, 38, 2025]
    assert numbers("10-12 -5 save -30%") == [-30, -5, 10, 12, 30]
    assert numbers("from $.75") == [Decimal("0.75")]
    assert numbers("19⁹⁹ m² 10²") == [2, 10, 19, 99]


def test_two_readings_of_a_numeral_are_decided_by_the_text_around_it():
    assert numbers("1.299") == [Decimal("1.299")]
    assert numbers("1,299") == [1299]
    assert numbers("1.299 €") == [1299]
    assert numbers("OMR 1.299") == [Decimal("1.299")]
    assert numbers("$3.459 a gallon, $12.50 a wash") == [Decimal("3.459"), Decimal("12.50")]
    assert numbers("1.299 und 12,50 €") == [Decimal("12.50"), 1299]
    assert numbers("1.299", "de") == [1299]
    assert numbers("1 299") == [1, 299, 1299]


def test_number_words_count_whole():
    assert find_words("about two point eight, or twenty-one and a half") == {Decimal("2.8"), Decimal("21.5")}
    assert find_words("one two three") == {1, 2, 3}
    assert find_words("a stone, someone, two thousand and six, twosome") == set()
    assert find_words("stone two") == {2}


def test_hostile_texts_are_read_in_bounded_time():
    for text in (
        "1," * 200_000,
        "1 111 " * 80_000,
        "one " * 100_000,
        "9" * 500_000,
        "&#" + "9" * 100_000,
        "2025 " * 90_000,
    ):
        folded = fold(text)
        find_numbers(folded)
        find_words(folded)
        assert find_dates(folded, 2025) == set()


def test_values_do_not_depend_on_the_time_zone_the_locale_or_the_day():
    code = (
        "import datetime, json, sys; from potstill.typed import *; from potstill.dates import find_dates;"
        "texts = json.loads(sys.stdin.read());"
        "print([(parse_number(t), parse_date(t), parse_date(t, 'de'), parse_price(t), sorted(find_dates(t, 2025)))"
        " for t in texts])"
    )
    texts = [
        "2025-03-04t23:30:00-11:00",
        "04.03.2025",
        "4 mai 2025",
        "today",
        "2025",
        "12,5",
        "1.299",
        "$1.50",
        "3 mar 2025",
    ]
    outputs = []
    for zone, locale in (("Pacific/Kiritimati", "C"), ("Etc/GMT+12", "de_DE.UTF-8"), ("UTC", "tr_TR.UTF-8")):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(texts),
            env={**os.environ, "TZ": zone, "LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(ran.stdout)
    assert "datetime.date(2025, 3, 4)" in outputs[0]
    assert outputs[0] == outputs[1] == outputs[2]
