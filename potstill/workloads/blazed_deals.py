"""Blazed deals: the pages of dispensaries and head shops -> what they sell, and where their links lead.

Tasks: productpage reads the page of one product, navpage a page of links. `convert` yields the committed pages of
data/samples/blazed_deals/pages/, then pages from a seed; with --pages-dir, or BLAZED_DEALS_PAGES_DIR, the captures of
that folder. python -m scripts.dataset.samples -w blazed_deals writes the committed pages.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from potstill import config, workload
from potstill.config import Config
from potstill.files import canonical_json, write_text
from potstill.project import SAMPLES
from potstill.records import Exemplar, Record
from potstill.stop import USAGE, Stop
from potstill.workloads import blazed_deals_captures as captures
from potstill.workloads.blazed_deals_captures import Capture, framed
from potstill.workloads.blazed_deals_errors import mistaken
from potstill.workloads.blazed_deals_items import draw_product
from potstill.workloads.blazed_deals_listings import draw_listing
from potstill.workloads.blazed_deals_pages import write_page
from potstill.workloads.blazed_deals_shops import SHOPS, Shop, make_shops
from potstill.workloads.blazed_deals_words import PageType, Status, read_words

NAME = "blazed_deals"
SCHEMA_VERSION = "1"
NAVPAGE, PRODUCTPAGE = "navpage", "productpage"
Text = Annotated[str, Field(min_length=1, max_length=200)]
Address = Annotated[str, Field(min_length=1, max_length=500)]
Amount = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Product(Record):
    """Texts and addresses as the page has them. `price` is the full price, `sale_price` the one asked now, if lower.

    A page that is no product's, such as one that says it is gone, is nulls and empty lists.
    """

    name: Text | None
    brand: Text | None
    price: Amount | None
    sale_price: Amount | None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None
    size: Text | None
    thc: Text | None
    cbd: Text | None
    availability: Status | None
    sku: Text | None
    rating: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None
    images: Annotated[list[Address], Field(max_length=2)]
    description: Annotated[str, Field(min_length=1, max_length=400)] | None
    categories: Annotated[list[Text], Field(max_length=4)]


class Listing(Record):
    """Addresses as the page has them, in its order: of the categories and products that it lists, not of its menu."""

    page_type: PageType | None
    categories: Annotated[list[Address], Field(max_length=6)]
    products: Annotated[list[Address], Field(max_length=8)]
    page: Count | None
    pages: Count | None
    next: Address | None


class Manifest(Config):
    """What convert generates when no option says otherwise."""

    seed: int
    count: Annotated[int, Field(ge=0)]


SCHEMAS: dict[str, type[BaseModel]] = {NAVPAGE: Listing, PRODUCTPAGE: Product}
CONVERT_OPTIONS: dict[str, tuple[type, str]] = {
    "count": (int, "pages to generate beside the committed ones (default: the samples' manifest.yaml)"),
    "seed": (int, "of the generated pages (default: the samples' manifest.yaml)"),
    "pages_dir": (
        Path,
        "a folder of *.jsonl with captures of your own, instead of both (default: BLAZED_DEALS_PAGES_DIR)",
    ),
}


def convert(
    samples: Path, *, count: int | None = None, seed: int | None = None, pages_dir: Path | None = None
) -> Iterator[Exemplar]:
    """Yields the committed pages and the manifest's number of generated ones; with `pages_dir` the captures there, and
    generated pages only where `count` asks for them.

    Raises Stop 65 that names the file, the line and the rule for a capture that cannot be read; Stop 2 for a folder
    that is not there and a bad count.
    """
    manifest = config.load(samples / "manifest.yaml", Manifest)
    own = workload.override(NAME, "pages_dir", pages_dir, folder=True)
    if count is None:
        count = 0 if own else manifest.count
    yield from captures.read(own or samples / "pages", SCHEMAS, SCHEMA_VERSION)
    yield from pages(samples, count, manifest.seed if seed is None else seed)


def generate(count: int, seed: int) -> Iterator[Exemplar]:
    """Exemplars of the same shops whatever the seed is, with pages of the seed's own."""
    return pages(SAMPLES / NAME, count, seed)


def pages(samples: Path, count: int, seed: int) -> Iterator[Exemplar]:
    """`count` pages, shop by shop in turn, half of them of products. Raises Stop 2 for a negative count."""
    if count < 0:
        raise Stop(f"count is {count}, want a number from 0", USAGE)
    shops = make_shops(samples)
    for number in range(count):
        visit, at = divmod(number, SHOPS)
        yield page(samples, shops[at], seed, visit, PRODUCTPAGE if (visit + at) % 2 else NAVPAGE)


def page(samples: Path, shop: Shop, seed: int, visit: int, task: str) -> Exemplar:
    """One page of a shop; the same arguments give the same page."""
    rng = random.Random(f"blazed_deals {seed} {shop.domain} {visit}")
    subject = (draw_product if task == PRODUCTPAGE else draw_listing)(shop, read_words(samples), rng)
    html = write_page(samples, shop, subject, rng)
    answer, error = mistaken(shop, subject, rng)
    metadata = {
        "source_url": subject.path if shop.base else f"https://{shop.domain}{subject.path}",
        "domain": shop.domain,
        "page_type": answer.get("page_type", "product"),
        "language": shop.language,
        "currency": shop.currency,
        "template": shop.template,
        "schema_version": SCHEMA_VERSION,
        "split": "train" if shop.logged else None,
        "slice": shop.slice,
        "teacher_error": error,
    }
    return Exemplar(
        id=f"{shop.domain.removesuffix('.example')}-{seed}-{visit:04d}",
        task=task,
        prompt_text=framed(task, html),
        response_strong=canonical_json(answer),
        metadata={key: value for key, value in metadata.items() if value is not None},
    )


def make_samples(out: Path, seed: int) -> list[Path]:
    """Writes the committed pages: of every family one in each language. The same seed gives the same bytes.

    vocabulary.yaml, themes/, system.txt and manifest.yaml are written by hand.
    """
    made: dict[Path, list[str]] = {}
    done: set[tuple[str, str]] = set()
    for shop in make_shops(out):
        if (shop.template, shop.language) not in done:
            done.add((shop.template, shop.language))
            task = PRODUCTPAGE if len(done) % 2 else NAVPAGE
            exemplar = page(out, shop, seed, 0, task)
            row = Capture.of(exemplar.model_copy(update={"id": f"sample-{shop.template}-{shop.language}"}))
            lines = made.setdefault(out / "pages" / f"{shop.template}.jsonl", [])
            lines.append(canonical_json(row.model_dump(exclude_none=True)) + "\n")
    for path, lines in made.items():
        write_text(path, "".join(lines))
    for older in set((out / "pages").glob("*.jsonl")) - made.keys():
        older.unlink()
    return sorted(made)
