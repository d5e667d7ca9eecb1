"""Pages of links, drawn before they are written: home, categories, brands, search results, deals, and pages of text.

listing = draw_listing(shop, words, rng)     # listing.answer is the answer, the rest is what the page shows
"""

import random
from dataclasses import dataclass
from typing import Any, get_args

from potstill.workloads.blazed_deals_items import Card, Link, category_link, draw_card
from potstill.workloads.blazed_deals_shops import Shop
from potstill.workloads.blazed_deals_words import PageType, Vocabulary, sentence, slug

PAGE_TYPES: tuple[PageType, ...] = get_args(PageType)
TYPE_WEIGHTS = {"home": 3, "category": 10, "brand": 2, "search": 2, "deals": 2, "info": 1}
CARDS, CARD_WEIGHTS = (3, 4, 5, 6, 8), (38, 40, 16, 5, 1)
# how often a page of the type lists categories
WITH_CATEGORIES = {"category": 0.65, "home": 0.9, "deals": 0.5, "brand": 0.25, "search": 0.0, "info": 0.3}
PAGED = ("category", "brand", "search", "deals")
WITH_PAGES, WITH_LEAD, MOST_PAGES = 0.75, 0.3, 9


@dataclass(slots=True)
class Pager:
    """`numbers` are page numbers with their links, the current one without; `of` is a text such as "page 2 of 7"."""

    numbers: list[Link]
    next: Link | None
    of: str | None


@dataclass(slots=True)
class Listing:
    path: str
    heading: str
    categories: list[Link]
    cards: list[Card]
    lead: str | None
    texts: list[str]
    pager: Pager
    answer: dict[str, Any]


def draw_listing(shop: Shop, words: Vocabulary, rng: random.Random) -> Listing:
    page_type = rng.choices(PAGE_TYPES, [TYPE_WEIGHTS[name] for name in PAGE_TYPES])[0]
    heading, base = _heading(shop, page_type, words, rng)
    cards: dict[str, Card] = {}
    count = 0 if page_type == "info" else rng.choices(CARDS, CARD_WEIGHTS)[0]
    while len(cards) < count:
        card = draw_card(shop, words, rng)
        cards.setdefault(card.href, card)
    categories: list[Link] = []
    if rng.random() < WITH_CATEGORIES[page_type]:
        links = (category_link(shop, key, words) for key in rng.sample(shop.categories, rng.choice((2, 2, 2, 3, 3, 4))))
        categories = [link for link in links if link.href != base]
    paged = page_type in PAGED and shop.pager != "none" and rng.random() < WITH_PAGES
    last = rng.randint(2, MOST_PAGES) if paged else 1
    current = rng.choice((1, 1, rng.randint(1, last)))
    pager = _pager(shop, base, current, last)
    numbered = bool(pager.numbers or pager.of)
    return Listing(
        path=_page_href(shop, base, current),
        heading=heading,
        categories=categories,
        cards=list(cards.values()),
        lead=sentence(shop.speech, rng) if not categories and rng.random() < WITH_LEAD else None,
        texts=rng.sample(shop.speech.info, 3) if page_type == "info" else [],
        pager=pager,
        answer={
            "page_type": page_type,
            "categories": [link.href for link in categories],
            "products": list(cards),
            "page": current if numbered else None,
            "pages": last if numbered else None,
            "next": pager.next.href if pager.next else None,
        },
    )


def _heading(shop: Shop, page_type: PageType, words: Vocabulary, rng: random.Random) -> tuple[str, str]:
    """The heading and the address of a page of links."""
    if page_type == "category":
        link = category_link(shop, rng.choice(shop.categories), words)
        return link.text, link.href
    said = rng.choice(shop.speech.types[page_type])
    if page_type == "brand":
        brand = rng.choice(shop.brands)
        return said.format(x=brand), f"{shop.base}/brands/{slug(brand)}"
    if page_type == "search":
        word = rng.choice(shop.words).lower()
        return said.format(x=word, n=rng.randint(9, 90)), f"{shop.base}/search?q={word}"
    heading = said.format(shop=shop.name)
    return heading, shop.base + {"home": "/", "deals": "/deals"}.get(page_type, f"/{slug(heading)}")


def _pager(shop: Shop, base: str, current: int, last: int) -> Pager:
    """As much of a pager as the shop's pages have."""
    if last == 1:
        return Pager([], None, None)
    following = None
    if current < last:
        following = Link(shop.usual(shop.speech.next), _page_href(shop, base, current + 1))
    if shop.pager == "more":
        return Pager([], following, None)
    if shop.pager == "of":
        return Pager([], following, shop.usual(shop.speech.of).format(p=current, n=last))
    numbers = sorted({1, current, min(current + 1, last), last})
    links = [Link(str(n), "" if n == current else _page_href(shop, base, n)) for n in numbers]
    return Pager(links, following, None)


def _page_href(shop: Shop, base: str, number: int) -> str:
    if number == 1:
        return base
    if "?" in base:
        return f"{base}&page={number}"
    return shop.page_query.format(base.rstrip("/"), n=number)
