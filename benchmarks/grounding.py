"""Measures grounding: rows per CPU second on one core, how time grows with the text, and how many real prices are read.

Run: .venv/bin/python -m benchmarks.grounding [--data FOLDER]
FOLDER holds prices.json (price-parser's examples: currency_raw, price_raw, amount), shop_pages.jsonl.gz and
recipe_pages.jsonl.gz (html, gold); parts whose file is missing are left out. Prints a table and writes
reports/benchmark_grounding.json. Exits 100 when a limit of the project's own is missed.
"""

import argparse
import gzip
import json
import math
import random
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from potstill.files import write_json
from potstill.grounding import classify, ground
from potstill.records import SlotSpec
from potstill.typed import parse_price

LIMITS = {"rows_per_s": 300, "exponent": 1.1, "price_right": 0.97, "price_wrong": 0.01}
ROWS = 200
PROMPT_CHARS = 10_000
WORDS = (
    "shipping bag leather price sale colour strap zipper café size black blue red lens kit stock image products of and"
)
ANSWER = {
    "title": "the “Explorer” Bag",
    "price": 1550,
    "was": 1650.5,
    "sku": "NIK-D3400KT",
    "date": "2025-03-04",
    "image": "https://www.shop.example/img/a%20b.jpg",
    "weight_lb": 2.8,
    "colours": ["Black", "blue"],
    "grade": "mid_low",
    "gone": "not in the prompt",
}
SLOTS = {path: SlotSpec(level="exact") for path in ANSWER}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    data = parser.parse_args().data
    # the first lookup loads the month names
    ground(ANSWER, SLOTS, prompt(random.Random(0), PROMPT_CHARS))
    found: dict[str, Any] = {
        "rows_per_s": ROWS / seconds(PROMPT_CHARS),
        "prompt_chars": PROMPT_CHARS,
        "slots": len(SLOTS),
    }
    small, large = seconds(PROMPT_CHARS, 20), seconds(64 * PROMPT_CHARS, 20)
    found["exponent"] = math.log(large / small, 64)
    if data and (data / "prices.json").is_file():
        found |= prices(json.loads((data / "prices.json").read_text(encoding="utf-8")))
    for name in ("shop_pages", "recipe_pages"):
        if data and (data / f"{name}.jsonl.gz").is_file():
            found[name] = pages(data / f"{name}.jsonl.gz")
    for key, value in found.items():
        print(f"{key:14} {value:.4g}" if isinstance(value, float) else f"{key:14} {value}")
    at_most = ("exponent", "price_wrong")
    missed = [key for key in LIMITS if key in found and (found[key] > LIMITS[key]) == (key in at_most)]
    write_json(Path("reports/benchmark_grounding.json"), {"limits": LIMITS, "found": found, "missed": missed})
    print("wrote reports/benchmark_grounding.json;", f"missed: {', '.join(missed)}" if missed else "every limit is met")
    return 100 if missed else 0


def prompt(rng: random.Random, size: int) -> str:
    """A reduced shop page: words, prices, counts and links, with the answer's values in its middle."""
    parts, total = [], 0
    while total < size:
        kind = rng.random()
        part = rng.choice(WORDS.split())
        if kind > 0.98:
            part = f"/p/{rng.randint(1, 99999)}?colour={part}"
        elif kind > 0.9:
            part = f"${rng.randint(1, 2000):,}.{rng.randint(10, 99)}" if kind > 0.95 else str(rng.randint(1, 5000))
        parts.append(part)
        total += len(part) + 1
    parts.insert(len(parts) // 2, 'The "Explorer" bag 1,550.00 USD, was 1,650.50 USD, NIK-D3400KT, on 4 March 2025')
    parts.insert(len(parts) // 2, "/img/a%20b.jpg two point eight pounds, black or blue, mid low")
    return "\n".join(parts)[: size + 300]


def seconds(size: int, rows: int = ROWS) -> float:
    """CPU seconds for grounding `rows` prompts of `size` characters."""
    rng = random.Random(size)
    prompts = [prompt(rng, size) for _ in range(rows)]
    started = time.process_time()
    for text in prompts:
        ground(ANSWER, SLOTS, text)
    return time.process_time() - started


def prices(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Shares of the amounts read as labelled, read as something else, and refused; and price-parser's own."""
    import price_parser

    ours, theirs = Counter[str](), Counter[str]()
    for row in rows:
        want = Decimal(row["amount"]) if row["amount"] else None
        text, hint = row["price_raw"] or "", row["currency_raw"]
        price = parse_price(text, hint)
        ours[verdict(want, price and price.amount)] += 1
        theirs[verdict(want, price_parser.Price.fromstring(text, hint).amount)] += 1
    shares = {f"price_{name}": ours[name] / len(rows) for name in ("right", "wrong", "refused")}
    return shares | {f"price_parser_{name}": theirs[name] / len(rows) for name in ("right", "wrong", "refused")}


def verdict(want: Decimal | None, got: Decimal | None) -> str:
    if want == got:
        return "right"
    return "refused" if got is None else "wrong"


def pages(path: Path) -> dict[str, float]:
    """On whole raw pages: the share of gold slots found in the page, and pages and MB looked up per CPU second."""
    states, size, rows = Counter[str](), 0, 0
    spent = 0.0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            slots = {key: SlotSpec(level="exact") for key in row["gold"]}
            started = time.process_time()
            # an empty prompt sends every value to the raw page
            states.update(classify(row["gold"], slots, row["html"], "").values())
            spent += time.process_time() - started
            size, rows = size + len(row["html"]), rows + 1
    values = states.total() - states["none"]
    share = 1 - states["unfounded"] / values
    return {"slots": values, "on_the_page": share, "pages_per_s": rows / spent, "mb_per_s": size / 1e6 / spent}


if __name__ == "__main__":
    raise SystemExit(main())
