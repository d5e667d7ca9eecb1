"""potstill/grounding.py and pages.py: how a value is found in a prompt, and who is to blame when it is not."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.grounding import STATES, classify, ground
from potstill.pages import MAX_PAGE_CHARS, declared_language, page_text
from potstill.records import SlotSpec

SLOT = SlotSpec(level="exact")
PROMPT = """Home > Bags
# The “Explorer’s” Bag — café edition
Price: 1.299,00 € (was 1.450,00 €), you save 10%
In stock: 1 024 pieces. Weight 2.8lb, straps 12.55 cm, seat height fifty-two cm
Ships 4. März 2025, sizes 36,37,38, temperature -5
![bag](/img/bag%20blue.jpg?w=200) see https://www.shop.example/p/12-explorer and ../info/care.html.
sku NIK-D3400KT, grade mid-low, slow shipping & returns
A long description that the page
breaks over **several** lines
"""


def found(value, text=PROMPT, **options):
    return ground({"slot": value}, {"slot": SLOT}, text, **options)["slot"]


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("NIK-D3400KT", "exact"),
        ("nik-d3400kt", "normalised"),
        ("NIK-D3400", "missing"),
        ("slow", "exact"),
        ("low", "exact"),
        ("lo", "missing"),
        ("hipping", "missing"),
        ('The "Explorer\'s" bag - Café edition', "normalised"),
        ("The “Explorer’s” Bag — cafe\u0301 edition", "normalised"),
        ("slow shipping &amp; returns", "normalised"),
        ("a long description that the page breaks over several lines", "normalised"),
        ("A long descriptionthat the pagebreaks over several lines", "normalised"),
        ("page breaks over several lines", "normalised"),
        ("age breaks over several lines", "missing"),
        ("page breaks over several line", "missing"),
        ("mid_low", "typed"),
        ("mid low", "typed"),
        ("mid_high", "missing"),
        (2.8, "exact"),
        (12.55, "exact"),
        (12.5, "missing"),
        (2.55, "missing"),
        (55, "missing"),
        (1024, "normalised"),
        (1299.0, "typed"),
        (1299, "typed"),
        (1.299, "missing"),
        (1450, "typed"),
        (10, "exact"),
        (37, "exact"),
        (52, "typed"),
        (50, "missing"),
        (-5, "exact"),
        (5, "missing"),
        ("1.299,00 €", "exact"),
        ("1299.00 EUR", "typed"),
        ("$1,299", "typed"),
        ("1300 EUR", "missing"),
        ("12.5", "missing"),
        ("2025-03-04", "typed"),
        ("March 4, 2025", "typed"),
        ("2025-03-05", "missing"),
        ("2025-04-03", "missing"),
        ("https://www.shop.example/p/12-explorer", "exact"),
        ("http://shop.example/p/12-explorer/", "normalised"),
        ("https://shop.example/img/bag%20blue.jpg?w=200", "normalised"),
        ("/img/bag blue.jpg", "missing"),
        ("/p/12-explorer", "normalised"),
        ("https://shop.example/en/info/care.html", "normalised"),
        ("https://shop.example/p/12", "missing"),
        ("https://other.example/p/12-explorer", "missing"),
        (float("nan"), "missing"),
        (10**400, "missing"),
        (None, "none"),
        (True, "none"),
        ("", "none"),
        (" \n", "none"),
        ("\u200b", "none"),
        ([], "none"),
        ({}, "none"),
    ],
)
def test_a_value_is_found_as_it_stands_in_the_prompt(value, want):
    assert found(value) == want


def test_a_list_or_an_object_is_as_good_as_its_worst_leaf():
    assert found([2.8, 1024]) == "normalised"
    assert found([2.8, "mid_low", None]) == "typed"
    assert found([2.8, "not there", "mid_low"]) == "missing"
    assert found({"a": [2.8], "b": {"c": None}}) == "exact"
    answer = {"items": [{"price": 1299.0}, {"price": 1450}, {}], "grid": [[36], [37, 38]]}
    slots = {"items[].price": SLOT, "grid[][]": SLOT, "items[].name": SLOT, "no.such.path": SLOT}
    assert ground(answer, slots, PROMPT) == {
        "items[].price": "typed",
        "grid[][]": "exact",
        "items[].name": "none",
        "no.such.path": "none",
    }


def test_what_has_two_readings_is_not_found_unless_the_language_decides():
    text = "Delivery on 04/03/2025, total 1.299"
    assert found("2025-03-04", text) == found("2025-04-03", text) == found(1299, text) == "missing"
    assert found("2025-03-04", text, locale="de") == found(1299, text, locale="de") == "typed"
    assert found("2025-04-03", text, locale="en-US") == "typed"
    # float("1.299 €") is what a careless teacher makes of 1299
    assert found(1.299, "only 1.299 €") == "missing"


def test_scripts_without_spaces_between_words_are_searched_as_they_are():
    assert found("相机", "全新相机出售，价格1299元") == "exact"
    assert found(1299, "全新相机出售，价格1299元") == "exact"


PAGE = """<!doctype html><html lang="de"><head><title>Tasche &amp; Co</title><meta content="SKU-77" name="sku">
<style>.a { width: 4321px }</style><script>var tracking = 8765;</script>
<script type="application/ld+json">{"@type": "Product", "name": "Caf\\u00e9 \\"Blau\\" \\ud83d\\ude00", "price": 1299.5,
"image": "https:\\/\\/shop.example\\/a.jpg"}</script></head>
<body><h1>Gro&szlig;e <b>Tasche</b></h1><p data-weight='2.8'>Ab 04.03.2025</p></body></html>"""


def blame(value, raw=PAGE, reduced="Tasche", **options):
    return classify({"slot": value}, {"slot": SLOT}, raw, reduced, **options)["slot"]


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("Tasche", "exact"),
        ("tasche", "normalised"),
        ("Große Tasche", "lost"),
        ("Tasche & Co", "lost"),
        ("SKU-77", "lost"),
        (2.8, "lost"),
        (1299.5, "lost"),
        ('Café "Blau" 😀', "lost"),
        ("https://shop.example/a.jpg", "lost"),
        ("2025-03-04", "lost"),
        ("2025-04-03", "unfounded"),
        (4321, "unfounded"),
        (8765, "unfounded"),
        ("leather", "unfounded"),
        (None, "none"),
        (["Tasche", None], "exact"),
        (["Tasche", "SKU-77"], "lost"),
        (["SKU-77", "leather", "Tasche"], "unfounded"),
    ],
)
def test_a_value_that_the_prompt_lacks_is_lost_if_the_page_has_it_and_unfounded_if_not(value, want):
    assert blame(value) == want


def test_a_plain_text_is_its_own_page():
    assert blame("2 < 3", raw="we know that 2 < 3", reduced="we know") == "lost"
    assert blame(2.8, raw="about two point eight", reduced="about two point eight") == "typed"
    assert page_text("we know that 2 < 3") == "we know that 2 < 3"


def test_slots_to_skip_are_left_out():
    slots = {"a": SLOT, "b": SLOT}
    assert classify({"a": "x", "b": "Tasche"}, slots, PAGE, "Tasche", ["a"]) == {"b": "exact"}


def test_the_language_of_a_page_is_what_its_html_element_says():
    assert declared_language(PAGE) == "de"
    assert declared_language("<HTML class=x lang=en-GB>") == "en-GB"
    assert declared_language("<p lang=de>") is None


words = st.lists(
    st.text(st.characters(categories=["Ll", "Lu"], max_codepoint=0x24F), min_size=2, max_size=8), max_size=6
)


@given(words, words, st.text("abcdefgh", min_size=3, max_size=12))
def test_a_word_in_a_text_is_found_and_one_that_is_not_is_missing(before, after, word):
    neighbours = [*before, *after]
    text = " ".join([*before, word, *after])
    assert found(word, text) == "exact"
    assert found(word.upper(), text) in ("exact", "normalised")
    if word.casefold() not in {neighbour.casefold() for neighbour in neighbours}:
        assert found(word, " ".join(neighbours)) == "missing"


@given(
    st.decimals(1, 10**6, places=2),
    st.sampled_from(["{}", "{:,}", "${:,}", "{} EUR", "-{}%", "({})", "{:,}.", "size {}cm"]),
)
def test_a_number_in_any_written_form_is_found_and_no_other(amount, form):
    text = form.format(amount)
    assert found(float(amount), text) in ("exact", "normalised", "typed")
    for other in (float(amount) + 0.01, float(amount) * 10, float(f"1{amount}"), float(f"{amount}1")):
        assert found(round(other, 3), text) == "missing" or round(other, 3) == float(amount)


@settings(max_examples=30)
@given(st.permutations([2.8, 1024, "NIK-D3400KT", "mid_low", None]))
def test_the_order_of_items_and_slots_changes_nothing(items):
    assert found(items) == "typed"
    answer = {str(item): item for item in items}
    slots = {key: SLOT for key in answer if key != "2.8"}
    assert ground(answer, slots, PROMPT) == {
        "1024": "normalised",
        "NIK-D3400KT": "exact",
        "mid_low": "typed",
        "None": "none",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(json_values, st.text(max_size=200), st.text(max_size=100))
def test_no_value_and_no_text_breaks_it(value, raw, reduced):
    assert blame(value, raw, reduced) in STATES
    assert (blame(value, raw, reduced) in ("lost", "unfounded")) == (found(value, reduced) == "missing")


def test_hostile_pages_are_read_in_bounded_time():
    answer = {"slot": ["missing value", "a", 12.5, "2025-03-04", "https://x.example/a/b", "one two"]}
    half = 500_000
    for raw in (
        "<" * half,
        "<a " * half,
        "<script>" * (half // 8),
        '<p><script>{"a":' + '\\"' * half,
        '<p content="' * (half // 12),
        "&#" + "9" * half,
        "<p>&#x" + "f" * half,
        "<p>" + "\ufdfa" * half,
        "<p>" + "a" * half,
        "<p>" + "1,1 2025 " * (half // 9),
    ):
        assert classify(answer, {"slot": SLOT}, raw, raw[:1000]) == {"slot": "unfounded"}
    assert len(page_text("x" * (MAX_PAGE_CHARS + 5))) == MAX_PAGE_CHARS


def test_an_answer_is_grounded_alike_whatever_the_machine_is_set_to():
    code = (
        "from potstill.grounding import classify; from potstill.records import SlotSpec;"
        "values = ['2025-03-04', 1299, 'ILIK', '03/04/2025', 12.5];"
        "print([classify({'a': v}, {'a': SlotSpec(level='exact')}, 'x', 'ilik 1,299 am 4 mars 2025, 12.5')['a']"
        " for v in values])"
    )
    outputs = set()
    for zone, locale in (("Pacific/Kiritimati", "C"), ("Etc/GMT+12", "tr_TR.UTF-8")):
        environment = {**os.environ, "TZ": zone, "LC_ALL": locale, "LANG": locale}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        outputs.add(ran.stdout)
    assert outputs == {"['typed', 'normalised', 'normalised', 'unfounded', 'exact']\n"}
