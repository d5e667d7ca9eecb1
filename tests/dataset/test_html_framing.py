"""Where a prompt ends and its page begins: the words around a page stay, nothing of the page escapes its reduction."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import cleaning
from potstill.html import Unreducible, estimate_tokens, page_place
from potstill.reduction.markup import MAX_FRAMING_CHARS
from potstill.workload import Html

PAGE = "<!doctype html><html><body><h1>Small lamp</h1><p>Price: 12.50 €</p></body></html>"
OPEN = "<html><body><h1>Small lamp</h1><p>Price: 12.50 €</p>"
SPAM = "buy it now " * 30_000
BUDGET_TOKENS = 300


def reduced(text):
    return cleaning.reduced(text, Html(budget_tokens=BUDGET_TOKENS))


@pytest.mark.parametrize(
    "left_open",
    ["<!-- ", "<script>", "<style type=text/css>", "<textarea>", "<div>", "<p class='x'>", "</div>", "<br>"],
)
def test_what_a_page_leaves_open_is_reduced_with_it(left_open):
    text = reduced(f"Read this page:\n{OPEN}{left_open}{SPAM}")
    assert text.startswith("Read this page:\n")
    assert "Small lamp" in text
    assert "12.50 €" in text
    assert estimate_tokens(text) <= BUDGET_TOKENS + 20


@pytest.mark.parametrize("left_open", ["<!-- ", "<script>", "<style>"])
def test_a_short_text_in_a_comment_or_script_left_open_is_no_framing(left_open):
    assert "hidden words" not in reduced(f"{OPEN}{left_open} hidden words")


def test_a_comment_without_an_end_hides_all_there_is():
    with pytest.raises(Unreducible, match="no_text"):
        reduced("Page:\n<!-- " + SPAM)


@pytest.mark.parametrize(
    "page", [PAGE, PAGE + "<!-- built in 3 ms -->", PAGE + "<script>if (1 > 0) run()</script>", OPEN]
)
@pytest.mark.parametrize(
    "after", ["Answer with the lamp.", "Keep a price > 0 only.", "A price < 10 is a bargain.", "1 < 2 and 3 > 2"]
)
def test_the_words_around_a_page_stay(page, after):
    text = reduced(f"Page of a shop, 2 < 3:\n{page}\n{after}")
    assert text.startswith("Page of a shop, 2 < 3:\n")
    assert text.endswith(f"\n{after}")
    assert "Small lamp" in text
    assert "built in" not in text
    assert "run()" not in text


def test_text_before_the_first_tag_that_is_too_long_to_frame_a_page_is_reduced_with_it():
    text = reduced(SPAM + PAGE)
    assert estimate_tokens(text) <= BUDGET_TOKENS
    assert "Small lamp" in text


def test_a_page_cut_off_within_a_tag_is_reduced_with_it():
    text = reduced(f'{OPEN}\n<a class="more" href="/lamps?page=2')
    assert "Small lamp" in text
    assert "class" not in text


def test_a_text_in_an_element_left_open_belongs_to_the_page():
    assert reduced("<p>Price: 12.50 €") == "Price: 12.50 €"


@pytest.mark.parametrize("text", ["", "no page at all", "2 < 3 and 4 > 3", "if a <b and c", "<a " * 9])
def test_a_text_without_a_page_has_no_place_for_one(text):
    assert page_place(text) is None


pieces = st.lists(
    st.sampled_from(["<p>", "</p>", "<br>", "<!--", "-->", "<script>", "</script>", "<b a='>'>", ">", "<", "<!doctype"])
    | st.text(max_size=5),
    max_size=30,
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(pieces)
def test_the_place_of_a_page_is_within_the_text_and_starts_with_its_first_tag(text):
    place = page_place(text)
    if place is not None:
        start, end = place
        assert 0 <= start < end <= len(text)
        assert text[start] == "<"
        assert len(text) - end <= MAX_FRAMING_CHARS


@settings(max_examples=100, deadline=None)
@given(st.text("abc .:,\n", max_size=50), st.text("abc .:,\n", max_size=50))
def test_framing_without_brackets_is_kept_whole(before, after):
    text = reduced(f"{before}\n{PAGE}\n{after}")
    assert text.startswith(before.strip())
    assert text.endswith(after.strip())
