"""Mistakes that strong models make in logs, put into right answers at a known rate.

Only shops whose answers are `logged` have them, and their rows are all pinned to train: val and test are right.
metadata.teacher_error names the mistake, so that what grounding finds of them can be counted.
"""

import random
from collections.abc import Callable
from typing import Any

from potstill.workloads.blazed_deals_items import Product, draw_gtin
from potstill.workloads.blazed_deals_listings import Listing
from potstill.workloads.blazed_deals_shops import SHOPS, TEMPLATES, Shop

# of all answers; those of logged shops have it all
ERROR_RATE = 0.02
LOGGED_SHOPS = 6 * len(TEMPLATES)
ERROR_RATE_LOGGED = ERROR_RATE * SHOPS / LOGGED_SHOPS
Answer = dict[str, Any]


def mistaken(shop: Shop, subject: Product | Listing, rng: random.Random) -> tuple[Answer, str | None]:
    """The answer, now and then with a mistake in it, and the mistake's name."""
    answer = subject.answer
    if not shop.logged or rng.random() >= ERROR_RATE_LOGGED:
        return answer, None
    kinds = PRODUCT_ERRORS if isinstance(subject, Product) else LISTING_ERRORS
    names = sorted(kinds)
    rng.shuffle(names)
    for name in names:
        changed = kinds[name](subject, rng)
        if changed:
            return {**answer, **changed}, name
    return answer, None


def _prices_swapped(item: Product, rng: random.Random) -> Answer | None:
    """The reduced price is taken for the price, and no sale is seen."""
    sale = item.answer["sale_price"]
    return {"price": sale, "sale_price": None} if sale else None


def _brand_of_related(item: Product, rng: random.Random) -> Answer | None:
    brands = sorted({card.brand for card in item.related} - {item.brand})
    return {"brand": rng.choice(brands)} if brands else None


def _sku_invented(item: Product, rng: random.Random) -> Answer | None:
    return None if item.sku else {"sku": f"Q{draw_gtin(rng)[3:9]}"}


def _value_overlooked(item: Product, rng: random.Random) -> Answer | None:
    keys = [key for key in ("thc", "cbd", "size", "rating", "sku") if item.answer[key] is not None]
    return {rng.choice(keys): None} if keys else None


def _description_reworded(item: Product, rng: random.Random) -> Answer | None:
    text = item.answer["description"]
    return {"description": f"{item.name}: {text[:1].lower()}{text[1:]}"} if text else None


def _product_forgotten(listing: Listing, rng: random.Random) -> Answer | None:
    products = listing.answer["products"]
    return {"products": products[:-1]} if products else None


def _link_invented(listing: Listing, rng: random.Random) -> Answer | None:
    products = listing.answer["products"]
    return {"products": [*products[:-1], products[-1].rstrip("/") + "-2"]} if products else None


def _next_invented(listing: Listing, rng: random.Random) -> Answer | None:
    return None if listing.answer["next"] else {"next": f"{listing.path.rstrip('/')}?page=99"}


Error = Callable[[Any, random.Random], Answer | None]
PRODUCT_ERRORS: dict[str, Error] = {
    "prices_swapped": _prices_swapped,
    "brand_of_related": _brand_of_related,
    "sku_invented": _sku_invented,
    "value_overlooked": _value_overlooked,
    "description_reworded": _description_reworded,
}
LISTING_ERRORS: dict[str, Error] = {
    "product_forgotten": _product_forgotten,
    "link_invented": _link_invented,
    "next_invented": _next_invented,
}
