"""What a raw page says in its attributes, quoted or not: values an answer took from there are founded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill import grounding
from potstill.pages import page_text
from potstill.records import SlotSpec


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("<a href=/goods/mug?page=2&size=xl>", "/goods/mug?page=2&size=xl"),
        ("<img src=/i/mug.jpg alt=Mug>", "/i/mug.jpg"),
        ("<img src=/i/mug.jpg alt=Mug>", "Mug"),
        ("<meta itemprop=price content=12.50>", "12.50"),
        ('<meta content="12.50 €">', "12.50 €"),
        ("<input value='it is 5'>", "it is 5"),
        ("<div data-sku=AB-1 class=x>", "AB-1"),
        ('<a title="">', ""),
    ],
)
def test_the_value_of_an_attribute_is_read_whether_quoted_or_not(tag, value):
    assert value in page_text(f"<p>words</p>{tag}").split("\n")


def test_a_value_without_quotes_is_lost_by_the_reduction_and_not_made_up_by_the_teacher():
    slots = {"image": SlotSpec(level="exact")}
    raw = "<h1>Mug</h1><img src=/i/mug-blue.jpg width=1>"
    assert grounding.classify({"image": "/i/mug-blue.jpg"}, slots, raw, "# Mug", []) == {"image": "lost"}


@given(st.text(st.characters(exclude_characters="\"'<>=` \t\n\r\f", exclude_categories=["Z", "C"]), min_size=1))
def test_any_value_without_quotes_is_read_whole(value):
    assert value in page_text(f"<a href={value} class=b>x</a>").split("\n")
