"""Writes pages of shops: a theme of data/samples/blazed_deals/themes/, the subject of the page and what is around it.

html = write_page(samples, shop, draw_product(shop, words, rng), rng)

Around it: trackers, style sheets, a consent banner, menu, footer, reviews with personal data, related products, and
text that its own markup hides. Addresses, phone numbers and hosts are of ranges that are reserved for examples.
"""

import functools
import random
from pathlib import Path
from typing import Any

from potstill.workloads.blazed_deals_items import Link, Product, draw_card, draw_sku
from potstill.workloads.blazed_deals_listings import Listing
from potstill.workloads.blazed_deals_shops import Shop
from potstill.workloads.blazed_deals_words import Vocabulary, read_words, slug

WITH_DECOY, WITH_CONTACT, WITH_REVIEWS = 0.4, 0.1, 0.7
# rules of a style sheet within the page, of 60 characters or so
RULES = (60, 600)


def write_page(samples: Path, shop: Shop, subject: Product | Listing, rng: random.Random) -> str:
    """The HTML of a page about `subject`."""
    item = subject if isinstance(subject, Product) else None
    listing = subject if isinstance(subject, Listing) else None
    noise = _noise(shop, read_words(samples), rng)
    noise["facts"] = _facts(shop, item) if item else []
    noise["brand_href"] = f"{shop.base}/brands/{slug(item.brand)}" if item and item.brand else ""
    noise["state"] = _product_state(shop, subject) if isinstance(subject, Product) else _listing_state(shop, subject)
    heading = subject.name if isinstance(subject, Product) else subject.heading
    title = shop.titled.format(x=heading, shop=shop.name)
    template = _themes(samples).get_template(f"{shop.template}.html")
    return template.render(shop=shop, item=item, listing=listing, noise=noise, title=title, c=shop.prefix)


@functools.cache
def _themes(samples: Path) -> Any:
    import jinja2

    loader = jinja2.FileSystemLoader(samples / "themes")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def _facts(shop: Shop, item: Product) -> list[tuple[str, str]]:
    """What the page lists with a label, in an order of the shop's own."""
    texts = {"size": item.size, "thc": item.thc, "cbd": item.cbd, "sku": item.sku, "gtin": item.gtin}
    if not shop.crumbs and item.categories:
        texts["category"] = ", ".join(link.text for link in item.categories)
    facts = [(shop.labels[key], text) for key, text in texts.items() if text]
    random.Random(shop.domain).shuffle(facts)
    return facts


def _noise(shop: Shop, words: Vocabulary, rng: random.Random) -> dict[str, Any]:
    """What is on a page besides its subject."""
    number = rng.randint(100, 999)
    scripts = [script.replace("{id}", str(rng.randint(10**5, 10**6))) for script in words.trackers]
    rng.shuffle(scripts)
    cut = rng.randint(1, len(scripts))
    rules = "".join(
        f".{shop.prefix}r{n * number % 9973}{{margin:{n % 32}px;padding:{n % 7}px {n % 5}px}}"
        for n in range(rng.randint(*RULES))
    )
    other = draw_card(shop, words, rng)
    return {
        "number": number,
        "styles": [rng.choice(words.styles), rules],
        "head_scripts": scripts[:cut],
        "foot_scripts": scripts[cut:],
        "menu": _menu(shop, words),
        "home": shop.usual(shop.speech.home),
        "cart": shop.usual(shop.speech.cart),
        "chips": shop.usual(shop.speech.chips),
        # whether cards of a list name the brand
        "branded": len(shop.domain) % 4 == 0,
        "reviews": [_review(shop, words, rng) for _ in range(rng.randint(1, 3))] if rng.random() < WITH_REVIEWS else [],
        "contact": shop.speech.contact.format(**_person(words, rng)) if rng.random() < WITH_CONTACT else "",
        "decoy": {"name": other.name, "price": other.price, "sku": draw_sku(shop, rng)}
        if rng.random() < WITH_DECOY
        else None,
    }


def _menu(shop: Shop, words: Vocabulary) -> list[Link]:
    """The site's menu: the same on every page, and so no answer of any. Most shops hide it behind a button."""
    names = [words.categories[key].names[shop.language][-1] for key in shop.categories[:5]]
    links = [Link(name, shop.base + shop.category_path.format(slug(name))) for name in names]
    return links + [Link(text, f"/pages/{slug(text)}") for text in shop.speech.menu[:3]]


def _person(words: Vocabulary, rng: random.Random) -> dict[str, str]:
    first, last = rng.choice(words.people), rng.choice(words.surnames)
    area = rng.choice(("212", "303", "415", "503", "617", "702"))
    return {
        "name": f"{first} {last}",
        "mail": f"{first}.{last}@example.{rng.choice(('com', 'org', 'net'))}".lower(),
        "phone": f"({area}) 555-01{rng.randint(0, 99):02}",
    }


def _review(shop: Shop, words: Vocabulary, rng: random.Random) -> dict[str, str]:
    person = _person(words, rng)
    return {
        "text": rng.choice(shop.speech.reviews),
        "signed": rng.choice(shop.speech.signed).format(**person),
        "mail": person["mail"] if rng.random() < 0.3 else "",
        "phone": person["phone"] if rng.random() < 0.2 else "",
    }


def _product_state(shop: Shop, item: Product) -> dict[str, Any]:
    """A product as the two families that send data instead of text name its fields."""
    answer = item.answer
    price, sale = answer["price"], answer["sale_price"]
    facts = {"size": item.size, "thc": item.thc, "cbd": item.cbd, "sku": item.sku, "gtin13": item.gtin}
    about = " ".join(item.about) or None
    kinds = [link.text for link in item.categories]
    if shop.template == "next":
        money = {"price": price, "salePrice": sale, "currency": shop.currency}
        said = {"name": item.name, "brand": item.brand, **money, **facts, "image": item.images}
        said |= {"availability": item.stock, "rating": answer["rating"], "description": about, "category": kinds}
    else:
        money = {"regularPrice": price, "price": sale or price, "priceCurrency": shop.currency}
        said = {"title": item.name, "brand": item.brand, "categories": kinds, **money, "stock": item.stock}
        said |= {"score": answer["rating"], **facts, "images": item.images, "description": about}
    return {"item": {key: value for key, value in said.items() if value not in (None, [])}}


def _listing_state(shop: Shop, listing: Listing) -> dict[str, Any]:
    answer = listing.answer
    paging = {"page": answer["page"], "pages": answer["pages"], "next": answer["next"]}
    name, link = ("name", "url") if shop.template == "next" else ("label", "to")
    return {
        "heading": listing.heading,
        "categories": [{link: found.href} for found in listing.categories],
        "items": [{name: card.name, link: card.href} for card in listing.cards],
        "paging": {key: value for key, value in paging.items() if value is not None},
        "text": listing.texts,
    }
