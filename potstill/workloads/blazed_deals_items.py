"""Products of a shop, drawn before their page is written: so the answer is right whatever the page looks like.

item = draw_product(shop, words, rng)        # item.answer is the answer, the rest is what the page shows
"""

import random
from dataclasses import dataclass, field
from typing import Any

from potstill.workloads.blazed_deals_shops import SHELLS, SHOWS, Shop
from potstill.workloads.blazed_deals_words import Category, Status, Vocabulary, sentence, slug

STATUSES: tuple[Status, ...] = ("in_stock",) * 6 + ("low_stock", "out_of_stock", "out_of_stock", "preorder")
# how often a page shows what it need not show; RANGE is a THC of 18-24%
ON_SALE, WITH_ABOUT, WITH_CBD, WITH_GTIN, WITH_RANGE = 0.35, 0.85, 0.65, 0.15, 0.05
# parts of a product's name
WITH_TAIL, WITH_THING, WITH_EXTRA = 0.15, 0.45, 0.15
IMAGES = (0, 0, 1, 1, 1, 1, 1, 1, 1, 2)
# the reducer gives a line beside a price its link only when the link is at least this long
SHORTEST_CARD = 12
ENDINGS = ("00", "00", "50", "99", "95", "90")
MG = (5, 10, 25, 50, 100, 250, 300, 500, 1000)
LETTERS = "ABCDEFGHKLMNPRSTVWXZ"


@dataclass(slots=True)
class Link:
    text: str
    href: str


@dataclass(slots=True)
class Card:
    """A product in a list of products."""

    name: str
    href: str
    price: str
    was: str | None
    brand: str
    image: str


@dataclass(slots=True)
class Product:
    """A product page. The texts are as the page shows them; None is not shown. `price` is what is asked now."""

    path: str
    name: str
    brand: str | None
    amount: float
    sale: float | None
    price: str
    was: str | None
    size: str | None
    thc: str | None
    cbd: str | None
    status: Status
    stock: str | None
    sku: str | None
    gtin: str | None
    stars: float
    rating: str | None
    images: list[str]
    about: list[str]
    categories: list[Link]
    related: list[Card]
    answer: dict[str, Any] = field(default_factory=dict)


def draw_product(shop: Shop, words: Vocabulary, rng: random.Random) -> Product:
    key = rng.choice(shop.categories)
    category = words.categories[key]
    shown = {what for what in SHOWS if rng.random() < 0.95 and what in shop.shows}
    name = product_name(shop, category, words, rng)
    amount = draw_price(category, rng)
    sale = draw_sale(amount, rng) if rng.random() < ON_SALE else None
    thc, cbd = draw_strength(shop, category, rng)
    status = rng.choice(STATUSES)
    stars = round(rng.uniform(3.2, 5), 1)
    rated = shop.usual(shop.speech.rating).format(r=shop.number(stars, 1), n=rng.randint(3, 480))
    related = [draw_card(shop, words, rng) for _ in range(rng.randint(3, 5))]
    images = [image(shop, name, number) for number in range(rng.choice(IMAGES))]
    item = Product(
        path=product_href(shop, name),
        name=name,
        brand=rng.choice(shop.brands) if "brand" in shown else None,
        amount=amount,
        sale=sale,
        price=shop.price(amount if sale is None else sale),
        was=None if sale is None else shop.price(amount),
        size=shop.measure(rng.choice(category.sizes)) if "size" in shown else None,
        thc=thc if "thc" in shown else None,
        cbd=cbd if "cbd" in shown and rng.random() < WITH_CBD else None,
        status=status,
        stock=rng.choice(shop.speech.stock[status]) if "stock" in shown else None,
        sku=draw_sku(shop, rng) if "sku" in shown else None,
        gtin=draw_gtin(rng) if rng.random() < WITH_GTIN else None,
        stars=stars,
        rating=rated if "rating" in shown else None,
        images=images if "image" in shown else [],
        about=draw_about(shop, rng) if "about" in shown and rng.random() < WITH_ABOUT else [],
        categories=draw_categories(shop, key, words, rng) if "category" in shown or shop.crumbs else [],
        related=related if shop.template not in SHELLS else [],
    )
    item.answer = answer_of(shop, item)
    return item


def answer_of(shop: Shop, item: Product) -> dict[str, Any]:
    """What the page says, in the order of the schema."""
    return {
        "name": item.name,
        "brand": item.brand,
        "price": item.amount,
        "sale_price": item.sale,
        "currency": shop.currency,
        "size": item.size,
        "thc": item.thc,
        "cbd": item.cbd,
        "availability": item.status if item.stock else None,
        "sku": item.sku,
        "rating": item.stars if item.rating else None,
        "images": item.images,
        "description": item.about[0] if item.about else None,
        "categories": [link.text for link in item.categories],
    }


def draw_card(shop: Shop, words: Vocabulary, rng: random.Random) -> Card:
    category = words.categories[rng.choice(shop.categories)]
    name = product_name(shop, category, words, rng)
    while len(name) < SHORTEST_CARD:
        name = product_name(shop, category, words, rng)
    amount = draw_price(category, rng)
    sale = draw_sale(amount, rng) if rng.random() < 0.2 else None
    return Card(
        name=name,
        href=product_href(shop, name),
        price=shop.price(sale or amount),
        was=shop.price(amount) if sale else None,
        brand=rng.choice(shop.brands),
        image=image(shop, name, 0),
    )


def product_name(shop: Shop, category: Category, words: Vocabulary, rng: random.Random) -> str:
    name = f"{rng.choice(shop.words)} {rng.choice(words.names.second)}"
    if rng.random() < WITH_TAIL:
        name = f"{name} {rng.choice(words.names.tail)}"
    thing = rng.choice(category.things[shop.language])
    if rng.random() < WITH_THING:
        name = f"{name} {thing}"
    elif rng.random() < WITH_EXTRA:
        kind, size = rng.choice(words.kinds[shop.language]), shop.measure(rng.choice(category.sizes))
        name = rng.choice((f"{name} ({kind})", f"{name} | {thing}", f"{name} - {size}", f"{name} [{size}]"))
    return name


def draw_about(shop: Shop, rng: random.Random) -> list[str]:
    """One or two sentences; the first is the description of the answer."""
    second = rng.choice([*shop.speech.more, sentence(shop.speech, rng)])
    return [sentence(shop.speech, rng), second][: rng.choice((1, 2, 2))]


def draw_categories(shop: Shop, key: str, words: Vocabulary, rng: random.Random) -> list[Link]:
    links = [category_link(shop, key, words)]
    if words.categories[key].strength == "percent" and rng.random() < 0.4:
        kind = rng.choice(words.kinds[shop.language])
        links.append(Link(kind, f"{links[0].href.rstrip('/')}/{slug(kind)}"))
    return links


def draw_price(category: Category, rng: random.Random) -> float:
    least, most = category.price
    # most things are cheap
    whole = round(least * (most / least) ** (rng.random() ** 1.6))
    return float(f"{whole}.{rng.choice(ENDINGS)}")


def draw_sale(amount: float, rng: random.Random) -> float:
    """A lower price, with an ending of its own."""
    return min(float(f"{int(amount * rng.uniform(0.55, 0.9))}.{rng.choice(ENDINGS)}"), round(amount * 0.95, 2))


def draw_strength(shop: Shop, category: Category, rng: random.Random) -> tuple[str | None, str | None]:
    """THC and CBD as the page writes them."""
    if category.strength == "none":
        return None, None
    if category.strength == "mg":
        thc, cbd = (shop.measure(f"{amount} mg") for amount in rng.sample(MG, 2))
        return thc, cbd
    sign = " %" if shop.spaced and shop.language != "en" else "%"
    share = rng.uniform(12, 33)
    written = shop.number(share, 1)
    if rng.random() < WITH_RANGE:
        written = f"{int(share)}-{int(share) + rng.randint(2, 5)}"
    little = rng.uniform(0.1, 1.6) if rng.random() < 0.7 else rng.uniform(2, 14)
    return written + sign, shop.number(little, 1) + sign


def draw_sku(shop: Shop, rng: random.Random) -> str:
    first, second = ("".join(rng.choices(LETTERS, k=2)) for _ in range(2))
    return shop.sku.format(A=first, a=first.lower(), B=second, n=rng.randint(100, 99999))


def draw_gtin(rng: random.Random) -> str:
    """A GTIN-13 with GS1's prefix for demonstrations, 952, and a right check digit."""
    digits = [9, 5, 2, *(rng.randint(0, 9) for _ in range(9))]
    check = -sum(digit * (3 if place % 2 else 1) for place, digit in enumerate(digits)) % 10
    return "".join(map(str, [*digits, check]))


def category_link(shop: Shop, key: str, words: Vocabulary) -> Link:
    text = shop.usual(words.categories[key].names[shop.language])
    return Link(text, shop.base + shop.category_path.format(slug(text)))


def product_href(shop: Shop, name: str) -> str:
    return shop.base + shop.product_path.format(slug(" ".join(name.split()[: 3 if "#" in name else 2])))


def image(shop: Shop, name: str, number: int) -> str:
    stem = slug(" ".join(name.split()[:2])) + (f"-{number + 1}" if number else "")
    return shop.image_path.format(stem, domain=shop.domain)
