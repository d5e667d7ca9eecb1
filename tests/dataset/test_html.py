"""What the HTML reduction keeps and leaves out, on small pages of several kinds of template."""

import importlib.util
import re
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from potstill.html import Unreducible, count_pieces, estimate_tokens, reduce_html
from projects import REPO

MENU = "".join(f'<li><a href="/c{n}">Menu entry {n}</a></li>' for n in range(12))
RELATED = "".join(
    f'<li class="product"><a href="/p/{n}"><h3>Other shoe {n}</h3></a> <span>${n}0.00</span></li>' for n in range(1, 9)
)
WOO = f"""<!doctype html><html lang="en"><head><title>Trail Shoe 5 | Peak Outfitters</title>
<meta property="og:type" content="product"><meta property="product:price:amount" content="89.90">
<style>.price{{color:red}}</style><script>track("secret-tracker")</script></head><body class="woocommerce no-sidebar">
<div id="cookie-notice" class="cookie-notice">We use cookies to improve your experience. Accept all</div>
<header class="site-header"><nav><ul>{MENU}</ul></nav></header>
<main><nav class="woocommerce-breadcrumb"><a href="/">Home</a> / <a href="/shoes">Shoes</a> / Trail Shoe 5</nav>
<div class="product"><img src="/img/shoe.jpg" alt="Trail Shoe 5 in red" width="600">
<div class="summary"><h1 class="product_title">Trail Shoe 5</h1>
<p class="price"><del><span class="amount"><bdi><span>$</span>109.90</bdi></span></del>
<ins><span class="amount"><bdi><span>$</span>89.90</bdi></span></ins></p>
<span style="display:none" class="price">$1.23</span><div hidden>$4.56</div><div class="stock">12 in stock</div>
<label for="size">Size</label><select id="size"><option>40</option><option>41</option><option>42</option></select>
<div class="product_meta"><span>SKU: <span class="sku">TS-5-RED</span></span></div></div>
<div class="tabs"><ul role="tablist"><li><a href="#tab-info">Additional information</a></li></ul>
<div id="tab-info" style="display: none"><table><tr><th>Weight</th><td>310 g</td></tr>
<tr><th>Drop</th><td>6 mm</td></tr></table></div></div></div>
<section class="related products"><h2>Related products</h2><ul>{RELATED}</ul></section></main>
<footer>© 2024 Peak. All rights reserved.<img src="https://t.example/p.gif" width="1" height="1"></footer></body>
</html>"""
SHOPIFY = """<html><head><title>Oak Desk – Nordholz</title></head><body>
<div id="shopify-section-header" class="shopify-section"><a href="/">Nordholz</a></div>
<main id="MainContent"><div class="product-single"><div itemscope itemtype="http://schema.org/Product">
<meta itemprop="sku" content="OD-140"><meta itemprop="gtin13" content="4006381333931">
<h1 itemprop="name">Oak Desk</h1><div itemprop="offers" itemscope><link itemprop="availability"
href="http://schema.org/InStock"><span class="money" itemprop="price" content="349.00">349,00&nbsp;€</span></div>
<dl><dt>Width</dt><dd>140 cm</dd><dt>Wood:</dt><dd>Oak</dd></dl>
<div class="rte"><p>A desk of <strong>solid</strong> oak, <em>oil</em>ed by hand.</p></div></div></div></main></body>
</html>
"""
CARDS = "".join(
    f'<div class="card item-{n}"><a href="/lamp/{n}"><img src="/i/{n}.jpg" alt="Lamp {n}"><h3>Lamp model {n}</h3></a>'
    f'<div class="price">€ {20 + n},50</div><button>Add to cart</button></div>'
    for n in range(60)
)
LISTING = f"""<html><head><title>Lamps | Lumen</title></head><body><h1>Lamps</h1><p>Lamps for every room.</p>
<div class="grid">{CARDS}</div>
<nav class="pagination"><span>1</span> <a href="?page=2">2</a> <a href="?page=2" rel="next">Next</a></nav>
<footer class="site-footer"><p>Imprint and terms</p></footer></body></html>"""
SHELL = """<html><head><title>Loading</title></head><body><div id="__next"></div>
<noscript>Turn on JavaScript</noscript>
<script id="__NEXT_DATA__" type="application/json">{"props":{"product":{"name":"Kettle K2","price":34.5,
"buildId":"x9","offers":{"currency":"EUR"},"description":"<p>Boils <b>1.7 l</b></p>"}}}</script></body></html>"""
BROKEN = """<title>Mug</title><body><h1>Mug<h1><p>Price: <b>$ 7<p>Colour <i>blue</b><table><tr><td>Height<td>9 cm<tr>
<td>Volume<td>0.3 l</table><li>dishwasher<li>safe<a href="/mugs>more</a> <div <span>tail &amp; end"""
JSONLD = '{"@type":"Product","name":"Lamp X","sku":"LX-77","offers":{"price":"12.00"}}'
PAGES = {"woo": WOO, "shopify": SHOPIFY, "listing": LISTING, "shell": SHELL, "broken": BROKEN}

PIECES = (
    "<div> </div> <p> <b> </b> <a/href='/x'> </a> <li> </ul> <table> <tr> <td> </table> <script> </script> <!-- --> "
    "<del> </del> <select> <option> <h1> </h1> <img/src='a.png'> <span/itemprop=price> $5 €1.234,00 word &amp; &#0; "
    "\x00 é 漢 ~~ | [ ]( # < >"
)
markup = st.lists(st.sampled_from(PIECES.split()) | st.text(max_size=8), max_size=60).map(" ".join)


def test_a_product_page_keeps_what_slots_need():
    text = reduce_html(WOO)
    assert text.startswith("title: Trail Shoe 5 | Peak Outfitters\nlang: en\n")
    for line in (
        "# Trail Shoe 5",
        "~~$109.90~~ $89.90",
        "product:price:amount: 89.90",
        "12 in stock",
        "Size: 40 | 41 | 42",
        "SKU: TS-5-RED",
        "Weight | 310 g",
        "Drop | 6 mm",
        "![Trail Shoe 5 in red](/img/shoe.jpg)",
    ):
        assert line in text
    assert "Home / Shoes / Trail Shoe 5" in text


@pytest.mark.parametrize(
    "gone", ["$1.23", "$4.56", "cookies", "secret-tracker", "color:red", "p.gif", "rights reserved"]
)
def test_noise_and_hidden_decoys_are_gone(gone):
    assert gone not in reduce_html(WOO)


def test_a_panel_that_a_tab_opens_is_no_decoy():
    panel = '<div id="{}" style="display:none">Weight 310 g</div>'
    assert "310 g" in reduce_html('<h1>Shoe</h1><a href="#specs">Specs</a>' + panel.format("specs"))
    assert "310 g" not in reduce_html('<h1>Shoe</h1><a href="#other">Specs</a>' + panel.format("specs"))


def test_text_that_only_screen_readers_hide_stays():
    assert "$19.99" in reduce_html('<h1>Cup</h1><span aria-hidden="true">$19.99</span>')


def test_microdata_and_definitions_become_labelled_lines():
    lines = reduce_html(SHOPIFY).splitlines()
    for line in ("sku: OD-140", "gtin13: 4006381333931", "availability: InStock", "price: 349.00", "349,00 €"):
        assert line in lines
    assert "Width: 140 cm" in lines
    assert "Wood: Oak" in lines
    assert "A desk of solid oak, oiled by hand." in lines


def test_attributes_are_kept_as_asked():
    text = reduce_html(WOO, keep_attributes=[])
    assert "](" not in text
    assert "product:price:amount" not in text
    assert "$89.90" in text
    only_links = reduce_html(LISTING, keep_attributes=["href"])
    assert "[Lamp model 0](/lamp/0)" in only_links
    assert "/i/0.jpg" not in only_links


def test_a_listing_within_a_budget_keeps_names_prices_and_links_of_its_first_products():
    text = reduce_html(LISTING, 400)
    for number in range(6):
        assert f"[Lamp model {number}](/lamp/{number})" in text
        assert f"€ {20 + number},50" in text
    assert "Imprint" not in text


def test_a_listing_keeps_its_pagination():
    assert "[Next](?page=2)" in reduce_html(LISTING) or "| Next" in reduce_html(LISTING)


def test_a_budget_drops_related_products_before_the_product():
    text = reduce_html(WOO, 110)
    for kept in ("# Trail Shoe 5", "~~$109.90~~ $89.90", "SKU: TS-5-RED", "Weight | 310 g"):
        assert kept in text
    assert "Other shoe 5" not in text


def test_the_tail_is_not_cut_blindly():
    chatter = "".join(
        f"<p>Our story goes on and on, as stories of shops do, part {n} of many.</p>" * 3 for n in range(60)
    )
    page = f"<title>Vase</title><h1>Vase</h1>{chatter}<table><tr><td>EAN</td><td>4006381333931</td></tr></table>"
    assert "EAN | 4006381333931" in reduce_html(page, 200)


def test_lines_stay_in_the_order_of_the_page():
    text = reduce_html(WOO, 300)
    places = [text.index(line) for line in ("title:", "# Trail Shoe 5", "$89.90", "SKU:", "Weight |")]
    assert places == sorted(places)


def test_a_shell_shows_the_data_of_its_script():
    text = reduce_html(SHELL)
    assert "product.name: Kettle K2" in text
    assert "product.price: 34.5" in text
    assert "offers.currency: EUR" in text
    assert "Boils 1.7 l" in text
    assert "buildId" not in text
    assert "JavaScript" not in text


def test_jsonld_is_kept_only_when_asked_for():
    page = f"<h1>Lamp X</h1><p>{'A fine lamp. ' * 30}</p><script type='application/ld+json'>{JSONLD}</script>"
    assert "LX-77" not in reduce_html(page)
    assert "sku: LX-77" in reduce_html(page, keep_jsonld=True)


def test_broken_markup_still_gives_its_values():
    text = reduce_html(BROKEN)
    for value in ("Mug", "$ 7", "blue", "Height | 9 cm", "Volume | 0.3 l", "dishwasher"):
        assert value in text


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("<b>J</b>ohn", "John"),
        ("<span>Brand</span><span>Nike</span>", "Brand Nike"),
        ("<span>$</span><span>19</span><span>.99</span>", "$19.99"),
        ("<s>10 €</s><b>8 €</b>", "~~10 €~~8 €"),
        ("was <del>10 €</del> now 8 €", "was ~~10 €~~ now 8 €"),
        ("<del><div>10 €</div></del>", "~~10 €~~"),
        ('<span style="text-decoration: line-through">10 €</span>', "~~10 €~~"),
        ("a\u00adb\u200bc", "abc"),
        ('<i class="stars" title="4.5 out of 5"></i>', "4.5 out of 5"),
    ],
)
def test_text_reads_as_on_the_screen(markup, shown):
    assert reduce_html(f"<h1>Thing</h1><div>{markup}</div>").splitlines()[-1] == shown


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "#top", "a b", "/" + "x" * 400])
def test_addresses_that_are_none_are_left_out(url):
    assert "](" not in reduce_html(f'<h1>Thing</h1><p><a href="{url}">A link to follow</a></p>')


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("budget", [1, 30, 100, 300, 1200])
def test_the_budget_is_kept_but_for_one_line(name, budget):
    text = reduce_html(PAGES[name], budget)
    assert estimate_tokens(text) <= budget or "\n" not in text
    assert len(text) <= max(900, 8 * budget)


@pytest.mark.parametrize("name", PAGES)
def test_a_larger_budget_keeps_at_least_as_much(name):
    sizes = [estimate_tokens(reduce_html(PAGES[name], budget)) for budget in (50, 150, 450, 1350)]
    assert sizes == sorted(sizes)


@settings(max_examples=150, deadline=None)
@given(markup, st.none() | st.integers(1, 200))
def test_any_text_is_reduced_or_refused_with_a_reason(page, budget):
    first, second = (outcome(page, budget) for _ in range(2))
    assert first == second
    text, reason = first
    assert bool(text.strip()) != bool(reason)
    assert reason in ("", "no_text", "not_text")
    assert budget is None or estimate_tokens(text) <= budget or "\n" not in text


def outcome(page, budget):
    try:
        return reduce_html(page, budget), ""
    except Unreducible as refusal:
        return "", refusal.reason


@settings(max_examples=100, deadline=None)
@given(markup, markup)
def test_no_script_style_or_comment_ever_shows(before, after):
    page = f"{before}--></script></select><script>NEEDLE1()</script><style>NEEDLE2</style><!-- NEEDLE3 -->{after}"
    assert "NEEDLE" not in outcome(page, None)[0]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400), st.text(max_size=400))
def test_the_estimate_is_linear_and_never_shrinks(one, two):
    assert estimate_tokens(one) <= estimate_tokens(one + two) <= estimate_tokens(one) + estimate_tokens(two)
    assert estimate_tokens("") == 0


@given(st.text(alphabet=st.sampled_from("abZ019 !?/.[~\n\té中\x00\x7f\u0663"), max_size=60))
def test_pieces_are_counted_as_a_regular_expression_finds_them(text):
    pieces = re.findall(r"[A-Za-z]{1,6}|[0-9]{1,2}| (?=[0-9])|[!-/:-@\[-`{-~]{1,2}|[^\x00-\x7f]|\n", text)
    assert count_pieces(text) == len(pieces)


def test_the_estimate_is_near_what_two_vocabularies_count(monkeypatch):
    # litellm brings the cl100k vocabulary; importing litellm itself takes seconds
    bundled = Path(importlib.util.find_spec("litellm").origin).parent / "litellm_core_utils/tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(bundled))
    cl100k = tiktoken.get_encoding("cl100k_base")
    nano = Tokenizer.from_file(str(REPO / "models/nano/tokenizer.json"))
    for page in (WOO, SHOPIFY, LISTING):
        text = reduce_html(page)
        assert 1 <= estimate_tokens(text) / len(cl100k.encode(text)) <= 1.5
        assert 1 / 3 <= estimate_tokens(text) / len(nano.encode(text)) <= 1
