"""Menus, pagers, notices and links: what of a page's frame reaches the prompt, on markup that themes share."""

import re

import pytest

from potstill.html import reduce_html
from potstill.reduction.regions import region_of
from potstill.reduction.words import find_noise

LINKS = [f'<a href="/c/{n}">Category {n}</a>' for n in range(1, 12)]
GOODS = "".join(
    f'<div class="item-{n}"><a href="/g/{n}">Grinder model {n}</a> <span>€ {n}9,50</span></div>' for n in range(9)
)


def lines(page, budget_tokens=None):
    return reduce_html(page, budget_tokens).splitlines()


@pytest.mark.parametrize("box", ["nav", 'div class="navbar"', "footer", 'div class="dropdown-menu"'])
@pytest.mark.parametrize(
    "secret",
    [
        '<a href="/s" hidden>Secret word</a>',
        '<a href="/s" style="display:none">Secret word</a>',
        '<a href="/s" style="color:red; DISPLAY : None">Secret word</a>',
        '<a href="/s" style="visibility:hidden">Secret word</a>',
        '<div hidden><ul><li><a href="/s">Secret word</a></li></ul></div>',
        '<div style="display: none"><a href="/s"><b>Secret</b> word</a></div>',
        '<dialog><a href="/s">Secret word</a></dialog>',
        '<iframe src="/s"><a href="/s">Secret word</a></iframe>',
        "<textarea>Secret word</textarea>",
        '<div class="cookie-notice">Secret word</div>',
    ],
)
@pytest.mark.parametrize("count", [2, 11])
def test_what_a_menu_hides_is_not_read(box, secret, count):
    page = f"<h1>Grinders</h1><{box}>{''.join(LINKS[:count])}{secret}</{box.split()[0]}>"
    text = reduce_html(page)
    assert "Secret" not in text
    assert "Category 1" in text


def test_a_menu_that_a_toggle_of_the_page_opens_is_read():
    page = f"<h1>X</h1><button data-target='#m'>Menu</button><nav><div id='m' hidden>{''.join(LINKS)}</div></nav>"
    assert "Category 9" in reduce_html(page)


@pytest.mark.parametrize("hides", ["hidden", 'style="display:none"'])
def test_a_choice_that_is_hidden_is_no_choice(hides):
    text = reduce_html(f"<h1>Tee</h1><label>Size</label><select><option {hides}>Choose one<option>S<option>M</select>")
    assert "Size: S | M" in text


@pytest.mark.parametrize("pager", ['ul class="pagination"', 'div class="pager"', 'div class="page-numbers"'])
@pytest.mark.parametrize("box", ["nav", 'nav aria-label="Page navigation"', "footer", "header"])
def test_a_pager_in_a_menu_keeps_its_links(box, pager):
    found = "".join(f'<li><a href="?page={n}">{n}</a></li>' for n in (2, 3)) + '<li><a href="?page=2">Next</a></li>'
    page = f"<h1>Grinders</h1>{GOODS}<{box}><{pager}><li>1</li>{found}</{pager.split()[0]}></{box.split()[0]}>"
    assert lines(page)[-1] == "1 | [2](?page=2) | [3](?page=3) | [Next](?page=2)"


def test_a_pager_keeps_its_last_link_where_there_is_room_for_no_more():
    far = "".join(f'<li><a href="/en/shop/grinders?sort=price&page={n}">{n}</a></li>' for n in range(1, 9))
    following = '<li><a href="/en/shop/grinders?sort=price&page=2">Next</a></li>'
    page = f'<h1>Grinders</h1><nav><ul class="pagination">{far}{following}</ul></nav>'
    text = reduce_html(page, 60)
    assert "[Next](/en/shop/grinders?sort=price&page=2)" in text
    assert text.count("](") == 1


def test_a_crumb_in_a_nav_is_a_path():
    page = '<nav aria-label="breadcrumb"><ol><li><a href="/">Home</a></li><li>Grinders</li></ol></nav><h1>G 5</h1>'
    assert "Home > Grinders" in lines(page)


@pytest.mark.parametrize(
    ("markup", "line"),
    [
        ('<div><a href="/p/1">OG</a> <span>$5.00</span> <span>in stock since 2019</span></div>', "[OG](/p/1) $5.00"),
        ('<div><a href="/p/1">Mug</a> now only 12 EUR, was 14 EUR</div>', "[Mug](/p/1) now only 12 EUR"),
        (
            '<div class="pager">Showing 1 to 24 of 240 grinders on page 1 of 10 <a href="?p=2">Next</a></div>',
            "on page 1 of 10 [Next](?p=2)",
        ),
    ],
)
def test_a_short_link_beside_a_price_or_in_a_pager_has_its_target(markup, line):
    assert line in reduce_html(f"<h1>Goods</h1><p>Goods for all.</p>{markup}")


def test_a_short_link_in_prose_has_no_target():
    page = (
        '<h1>Goods</h1><p>What we sell is written <a href="/x">here</a> and nowhere else in the whole wide world.</p>'
    )
    assert "](" not in reduce_html(page)


def test_targets_of_goods_come_before_the_words_of_menus():
    menu = "".join(f'<li><a href="/menu/{n}">Menu words {n} of the shop</a></li>' for n in range(7))
    goods = "".join(f'<h3><a href="/collections/goods/{n}/">Kind of goods {n}</a></h3>' for n in range(3))
    page = f"<title>Shop</title><header><nav><ul>{menu}</ul></nav></header><h1>Goods</h1>{goods}"
    whole = reduce_html(page, 75)
    assert re.findall(r"\]\((.*?)\)", whole) == [f"/collections/goods/{n}/" for n in range(3)]


@pytest.mark.parametrize(
    "name",
    ["notice-cookie-block", "cookie-notice", "banner-cookies", "modal-gdpr", "accept-cookies", "js-popup-consent"],
)
def test_a_consent_box_is_known_by_its_name(name):
    assert region_of("div", {"class": name}) == "consent"
    assert region_of("div", {"id": name}) == "consent"


@pytest.mark.parametrize(
    "name", ["category-cookie-bars", "bar-cookies", "recipe-cookies", "notice", "cookies-and-cream"]
)
def test_cookies_to_eat_are_no_consent_box(name):
    assert region_of("div", {"class": name}) != "consent"


@pytest.mark.parametrize(
    "text",
    [
        "We use cookies to improve your experience.",
        "This website uses cookies.",
        "Our partners use technologies such as cookies",
        "By using this site you agree to our cookies.",
        "Wir verwenden Cookies.",
        "Diese Website nutzt Cookies",
        "Auf dieser Seite setzen wir Cookies ein.",
        "Mit der Nutzung von Cookies erklären Sie sich einverstanden.",
        "Cookie-Richtlinie",
        "Nous utilisons des cookies",
        "En poursuivant, vous acceptez le dépôt de cookies : politique de confidentialité",
        "Usamos cookies para mejorar tu visita.",
        "Utilizamos cookies propias",
        "Al continuar acepta el uso de cookies y nuestra política.",
        "Utilizziamo i cookie per offrirti un servizio migliore",
        "Questo sito usa i cookie.",
        "Wij gebruiken cookies",
        "Deze website plaatst cookies",
        "Todos los derechos reservados",
        "Tutti i diritti riservati",
    ],
)
def test_a_notice_is_noise_in_six_languages(text):
    assert find_noise(["Title", text]) == {1}


@pytest.mark.parametrize(
    "text",
    [
        "These cookies are what we bake every Sunday.",
        "Using a spoon, drop the cookies on the sheet.",
        "Den Teig auf das Blech setzen. Die Cookies 10 Minuten backen.",
        "Line a USA Pan cookie sheet with paper.",
        "Chocolate chip cookies",
        "Store the cookies in a tin.",
    ],
)
def test_a_recipe_for_cookies_is_no_noise(text):
    assert not find_noise(["Title", text])
