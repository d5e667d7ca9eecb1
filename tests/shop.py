"""A small workload of web pages: a module, its settings and pages with known answers."""

import json
from pathlib import Path

from potstill import database
from potstill.records import Exemplar
from projects import add_workload

MODULE = """
import os
from pydantic import BaseModel, ConfigDict, field_validator


class Product(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    price: float | None
    email: str | None

    @field_validator("name")
    @classmethod
    def _traps(cls, name):
        if name == "burns cpu":
            while True:
                pass
        if name == "eats memory":
            return "x" * 2**40
        if name == "crashes":
            os.abort()
        return name


SCHEMAS = {"product": Product}


def convert(samples):
    return iter(())
"""

SETTINGS = """
schema_version: "1"
system_prompt: system.txt
demo_message: ""
tasks:
  product:
    max_new_tokens: 64
    calls_per_day: 1
    slots:
      name: {level: exact}
      price: {level: numeric_tol, tolerance: 0.01}
      email: {level: exact}
split: {group: domain, stratify: [task], val: 0.2, test: 0.2, seed: 1}
html: {budget_tokens: 300}
pii: {}
grounding: {}
near_duplicates: {}
"""

WORDS = ["amber", "birch", "cedar", "dune", "elder", "fern", "grove", "hazel", "iris", "juniper", "kelp", "larch"]
WORDS += ["maple", "nettle", "oak", "pine", "quartz", "reed"]


def page(name: str, price: float, email: str, number: int) -> str:
    review = " ".join(WORDS[(number * 7 + i * (number % 5 + 1)) % len(WORDS)] for i in range(40))
    return (
        f"<!doctype html><html><head><title>{name}</title><script>track('{name}')</script></head><body>"
        f"<nav><a href='/'>Home</a><a href='/all'>All</a></nav><main><h1>{name}</h1>"
        f"<p class='price'>${price:.2f}</p><p>Questions? {email}</p><p>{review}</p></main>"
        "<footer>All rights reserved</footer></body></html>"
    )


def rows(count: int) -> list[Exemplar]:
    made = []
    for n in range(count):
        name = f"{WORDS[n % len(WORDS)].title()} {WORDS[(n // 3) % len(WORDS)]} no {n}"
        price, email = 5 + n * 1.25, f"shop{n}@{WORDS[n % 7]}-store.com"
        answer = json.dumps({"name": name, "price": price, "email": email})
        metadata = {"domain": f"{WORDS[n % 7]}-store.com"}
        made.append(exemplar(f"r{n:04}", page(name, price, email, n), answer, metadata))
    return made


def exemplar(id: str, prompt: str, response: str, metadata: dict | None = None) -> Exemplar:
    return Exemplar(id=id, task="product", prompt_text=prompt, response_strong=response, metadata=metadata or {})


def make_shop(folder: Path, exemplars: list[Exemplar]) -> None:
    add_workload(folder, "shop", MODULE, SETTINGS)
    database.write(folder / "data/raw/dataset.duckdb", exemplars)
