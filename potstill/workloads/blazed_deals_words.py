"""The vocabulary of the shop generator: data/samples/blazed_deals/vocabulary.yaml, checked and split into lists.

words = read_words(Path("data/samples/blazed_deals"))
words.languages["de"].labels["brand"]                  # ["Marke", "Hersteller", "Produzent"]
"""

import functools
import random
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from potstill import config
from potstill.config import Config

Language = Literal["en", "de", "fr", "es"]
Status = Literal["in_stock", "low_stock", "out_of_stock", "preorder"]
PageType = Literal["home", "category", "brand", "search", "deals", "info"]


def split(text: Any) -> Any:
    """'a b' -> [a, b]; 'a b | c' -> ['a b', c]."""
    if not isinstance(text, str):
        return text
    return [part.strip() for part in text.split("|")] if "|" in text else text.split()


Words = Annotated[list[str], BeforeValidator(split), Field(min_length=1)]


class Names(Config):
    first: Words
    second: Words
    tail: Words


class Brands(Config):
    first: Words
    second: Words
    syllables: Words


class ShopNames(Config):
    first: Words
    second: Words


class Category(Config):
    """`strength` is how THC and CBD are written: in percent, in mg, or not at all. `price`: least and most."""

    names: dict[Language, Words]
    things: dict[Language, Words]
    sizes: Words
    strength: Literal["percent", "mg", "none"]
    price: Annotated[list[int], Field(min_length=2, max_length=2)]


class Speech(Config):
    """What shops of one language say."""

    labels: dict[str, Words]
    home: Words
    cart: Words
    stock: dict[Status, Words]
    rating: Words
    next: Words
    previous: Words
    of: Words
    all: Words
    # headings of pages by their type; a category is its own
    types: dict[PageType, Words]
    chips: Words
    featured: Words
    count: Words
    aromas: Words
    moods: Words
    sentences: Words
    more: Words
    info: Words
    reviews: Words
    signed: Words
    contact: str
    menu: Words
    footer: Words
    consent: str
    rights: str


class Vocabulary(Config):
    names: Names
    brands: Brands
    shops: ShopNames
    categories: dict[str, Category]
    kinds: dict[Language, Words]
    languages: dict[Language, Speech]
    people: Words
    surnames: Words
    trackers: Words
    styles: Words


@functools.cache
def read_words(samples: Path) -> Vocabulary:
    """Raises Stop 2 that names the file, the key and the rule."""
    return config.load(samples / "vocabulary.yaml", Vocabulary)


def sentence(speech: Speech, rng: random.Random) -> str:
    """One sentence about a product."""
    a, b, c, d = rng.sample(speech.aromas, 4)
    m, n = rng.sample(speech.moods, 2)
    return rng.choice(speech.sentences).format(A=a[:1].upper() + a[1:], b=b, c=c, d=d, m=m, n=n)


def brand_name(words: Vocabulary, rng: random.Random) -> str:
    """Half of the names are put together from words, half from syllables that no word list has."""
    if rng.random() < 0.5:
        return f"{rng.choice(words.brands.first)} {rng.choice(words.brands.second)}"
    made = "".join(rng.sample(words.brands.syllables, rng.randint(2, 3))).capitalize()
    return made if rng.random() < 0.6 else f"{made} {rng.choice(words.brands.second)}"


def slug(text: str) -> str:
    """'Crème Brulée #4' -> 'creme-brulee-4'."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("ß", "ss")).encode("ascii", "ignore").decode()
    return "-".join("".join(char if char.isalnum() else " " for char in plain).split())
