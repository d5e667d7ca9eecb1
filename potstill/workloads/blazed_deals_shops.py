"""The shops of blazed_deals: one domain each, with a template family, a language, a currency and habits of its own.

shops = make_shops(samples)         # SHOPS of them, the same ones always; a seed decides their pages only
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.workloads.blazed_deals_words import Language, Speech, Vocabulary, brand_name, read_words, slug

# families of templates: data/samples/blazed_deals/themes/<name>.html
TEMPLATES: tuple[str, ...] = ("woocommerce", "shopify", "magento", "menu", "next", "state", "tables", "broken")
TEMPLATES += ("microdata", "headless", "bootstrap", "prestashop", "bigcommerce", "tabs", "handmade", "marketplace")
# pages that their script fills: an empty body with the data as JSON
SHELLS = ("next", "state")
# whole families that no training page has: all their pages are in the slice of this name
UNSEEN_TEMPLATES = ("seedbank", "squares")
UNSEEN = "unseen_template"
# the shops of one family, by language
LANGUAGES: tuple[Language, ...] = ("en", "de", "en", "fr", "es")
# three shops of a family in every language, of an unseen family one
PLACES = [(template, language) for template in TEMPLATES for language in LANGUAGES * 3]
PLACES += [(template, language) for template in UNSEEN_TEMPLATES for language in LANGUAGES]
SHOPS = len(PLACES)
CURRENCIES: dict[Language, tuple[str, ...]] = {
    "en": ("USD", "USD", "CAD", "GBP"),
    "de": ("EUR", "EUR", "CHF"),
    "fr": ("EUR", "EUR", "CHF"),
    "es": ("EUR",),
}
MONEY = {
    "USD": ("${}", "${}", "${} USD", "US${}"),
    "CAD": ("CA${}", "C${}", "${} CAD"),
    "GBP": ("£{}", "£{}", "GBP {}"),
    "EUR": ("{} €", "{} €", "€{}", "{} EUR"),
    "CHF": ("CHF {}", "{} CHF"),
}
# thousands and decimal marks
MARKS = {"en": (",", "."), "de": (".", ","), "fr": ("\u202f", ","), "es": (".", ",")}
ORDERS = (
    ("brand", "price", "stock", "rating", "facts", "about"),
    ("rating", "brand", "price", "facts", "about", "stock"),
    ("brand", "rating", "about", "price", "stock", "facts"),
    ("facts", "brand", "price", "stock", "rating", "about"),
    ("price", "stock", "about", "brand", "facts", "rating"),
)
PRODUCT_PATHS = ("/product/{}", "/products/{}", "/p/{}", "/{}.html", "/shop/{}", "/item/{}/")
CATEGORY_PATHS = ("/c/{}", "/collections/{}", "/category/{}/", "/{}", "/menu/{}")
PAGE_QUERIES = ("{}?page={n}", "{}?p={n}", "{}/page/{n}/", "{}?paged={n}")
IMAGE_PATHS = (*("/img/{}.jpg", "/img/{}.png", "/media/{}.webp", "/files/{}.jpg") * 2, "//cdn.{domain}/{}.png")
SKUS = ("{A}-{n}", "{A}{n}", "{n}", "{A}-{n}-{B}", "{a}_{n}")
PAGERS = ("numbers", "numbers", "of", "more", "none")
# shops whose links have the host in them, and those whose menu is hidden behind a button
ABSOLUTE, DRAWER = 0.03, 0.85
# how many shops ever show a fact
SHOWS = {"brand": 0.95, "size": 0.9, "thc": 0.9, "cbd": 0.75, "sku": 0.75, "rating": 0.7, "stock": 0.95, "about": 0.95}
SHOWS |= {"category": 0.95, "image": 0.95}


@dataclass(frozen=True, slots=True)
class Shop:
    """A domain. `logged`: its answers come from a log of a strong model, mistakes and all; see blazed_deals_errors."""

    domain: str
    name: str
    template: str
    language: Language
    currency: str
    money: str
    labels: dict[str, str]
    order: tuple[str, ...]
    prefix: str
    base: str
    brands: tuple[str, ...]
    categories: tuple[str, ...]
    product_path: str
    category_path: str
    page_query: str
    image_path: str
    sku: str
    pager: str
    spaced: bool
    crumbs: bool
    drawer: bool
    titled: str
    shows: frozenset[str]
    words: tuple[str, ...]
    speech: Speech
    logged: bool
    slice: str | None

    def usual(self, choices: Sequence[str]) -> str:
        """The one of several wordings that this shop uses on all its pages."""
        return choices[len(self.domain) % len(choices)]

    def number(self, value: float, decimals: int = 2) -> str:
        """1299.0 -> '1,299.00' as the shop's language writes it."""
        thousands, point = (",", ".") if self.currency == "CHF" else MARKS[self.language]
        return f"{value:,.{decimals}f}".translate({ord(","): thousands, ord("."): point})

    def price(self, value: float) -> str:
        return self.money.format(self.number(value))

    def measure(self, size: str) -> str:
        """'3.5 g' with the shop's decimal mark, and without the space where it leaves that out."""
        written = size if self.language == "en" else size.replace(".", ",")
        return written if self.spaced else written.replace(" g", "g").replace(" ml", "ml").replace(" mg", "mg")


@functools.cache
def make_shops(samples: Path) -> tuple[Shop, ...]:
    """All SHOPS shops, in the vocabulary of a samples folder."""
    words = read_words(samples)
    taken: set[str] = set()
    return tuple(_shop(words, number, taken) for number in range(SHOPS))


def _shop(words: Vocabulary, number: int, taken: set[str]) -> Shop:
    rng = random.Random(f"blazed_deals shop {number}")
    template, language = PLACES[number]
    unseen = template in UNSEEN_TEMPLATES
    speech = words.languages[language]
    name, domain = _name(words, language, taken, rng)
    currency = rng.choice(CURRENCIES[language])
    return Shop(
        domain=domain,
        name=name,
        template=template,
        language=language,
        currency=currency,
        money=rng.choice(MONEY[currency]),
        labels={key: rng.choice(choices) for key, choices in speech.labels.items()},
        order=rng.choice(ORDERS),
        prefix=rng.choice(("", "", "x-", "t-", slug(name)[:3] + "-", "ui-", "gl-")),
        base=f"https://{domain}" if rng.random() < ABSOLUTE else "",
        brands=tuple(dict.fromkeys(brand_name(words, rng) for _ in range(12))),
        categories=tuple(rng.sample(list(words.categories), rng.randint(5, 8))),
        product_path=rng.choice(PRODUCT_PATHS),
        category_path=rng.choice(CATEGORY_PATHS),
        page_query=rng.choice(PAGE_QUERIES),
        image_path=rng.choice(IMAGE_PATHS),
        sku=rng.choice(SKUS),
        pager=rng.choice(PAGERS),
        spaced=rng.random() < 0.6,
        crumbs=rng.random() < 0.75,
        drawer=rng.random() < DRAWER,
        titled=rng.choice(("{x} | {shop}", "{x} - {shop}", "{x} – {shop}", "{shop}: {x}", "{x}")),
        shows=frozenset(what for what, share in SHOWS.items() if rng.random() < share),
        words=tuple(rng.sample(words.names.first, 60)),
        speech=speech,
        # two shops of five, of other languages each time
        logged=not unseen and number % 5 in (number // 5 % 5, (number // 5 + 2) % 5),
        slice=UNSEEN if unseen else None,
    )


def _name(words: Vocabulary, language: Language, taken: set[str], rng: random.Random) -> tuple[str, str]:
    """A name and a domain that no other shop has, under a top-level domain that is reserved for examples (RFC 2606)."""
    while True:
        first, second = rng.choice(words.shops.first), rng.choice(words.shops.second)
        domain = rng.choice((f"{first}{second}", f"{first}-{second}", f"{first}{second}-{language}")) + ".example"
        if first != second and (first + second) not in taken:
            taken.add(first + second)
            return f"{first} {second}".title(), domain
