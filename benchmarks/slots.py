"""Slots scored per second on one core: every rule level as fab eval.judge calls it, lists aligned, and grounding.

Run: python -m benchmarks.slots
Seeded answers, one field in four wrong. CPU seconds of this process, so other jobs on the machine do not count.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill.dates import MONTHS
from potstill.eval_grounding import grounded
from potstill.files import write_json
from potstill.grading import grade
from potstill.records import Example, KeyAlign, Prediction, SlotSpec

SLOTS_PER_S, GROUNDING_MS = 20_000, 2.0
LEVELS = {"exact": 1.0, "substring": 0.8, "numeric_tol": 0.9, "set_match": 0.95, "date_norm": 0.9}
ROWS, SLOTS, ITEMS = 400, 10, 12
TEXT = "red canvas bag with two straps and a zip made for travel in every weather"
WORDS = TEXT.split()


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))


def day(rng: random.Random) -> tuple[str, str]:
    year, month, number = rng.randint(1990, 2030), rng.randint(1, 12), rng.randint(1, 28)
    return f"{year}-{month:02}-{number:02}", f"{number} {MONTHS[month - 1].title()} {year}"


def price(rng: random.Random) -> tuple[float, str]:
    amount = f"{rng.randint(1, 5000):,}.{rng.randint(0, 99):02}"
    german = amount.translate(str.maketrans(",.", ".,"))
    return float(amount.replace(",", "")), f"{german} €"


# level and options -> (the reference, a right answer, a wrong one)
CASES: dict[str, tuple[dict[str, Any], Callable[[random.Random], tuple[Any, Any, Any]]]] = {
    "exact": ({"level": "exact"}, lambda rng: (value := text(rng), value, f"{value}s")),
    "exact, normalised": (
        {"level": "exact", "normalise": ["lower", "punctuation", "articles", "space"]},
        lambda rng: (value := text(rng), f"The {value}.", f"{value}s"),
    ),
    "substring": ({"level": "substring"}, lambda rng: (value := text(rng), f"a {value} too", "other")),
    "numeric_tol": (
        {"level": "numeric_tol", "tolerance": 0.02},
        lambda rng: (value := rng.randint(100, 99999) / 100, value + 0.01, value + 1),
    ),
    "numeric_tol, prices": (
        {"level": "numeric_tol", "tolerance": 0.005, "type": "price", "locale": "de"},
        lambda rng: (*price(rng), price(rng)[1]),
    ),
    "set_match": ({"level": "set_match"}, lambda rng: (value := rng.sample(WORDS, 5), value[::-1], value[1:])),
    "date_norm": ({"level": "date_norm"}, lambda rng: (*day(rng), day(rng)[1])),
}
RULE_LEVELS = ["exact", "substring", "numeric_tol", "set_match", "date_norm"]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found: dict[str, Any] = {}
    for name, (spec, make) in CASES.items():
        rng = random.Random(1)
        rows = [flat_row(rng, spec, make) for _ in range(ROWS)]
        found[name] = slots_per_s(rows)
    rng = random.Random(1)
    mixed = [mixed_row(rng) for _ in range(ROWS)]
    found["five rule levels mixed"] = slots_per_s(mixed)
    for name, align in (("index", "index"), ("key", KeyAlign(key="sku")), ("best", "best")):
        rng = random.Random(1)
        found[f"lists of {ITEMS} by {name}"] = slots_per_s([list_row(rng, align) for _ in range(60)])
    for name, value in found.items():
        print(f"{name:28} {value:10,.0f} slots/s")
    found["grounding_ms_per_row"] = grounding_ms(mixed)
    print(f"{'grounding':28} {found['grounding_ms_per_row']:10.2f} ms/row")
    missed = [name for name in [*RULE_LEVELS, "five rule levels mixed"] if found[name] < SLOTS_PER_S]
    missed += ["grounding_ms_per_row"] if found["grounding_ms_per_row"] > GROUNDING_MS else []
    limits = {"slots_per_s": SLOTS_PER_S, "grounding_ms_per_row": GROUNDING_MS}
    write_json(Path("reports/benchmark_slots.json"), {"limits": limits, "found": found, "missed": missed})
    print("wrote reports/benchmark_slots.json;", f"missed: {', '.join(missed)}" if missed else "every limit is met")
    return 100 if missed else 0


def flat_row(rng: random.Random, spec: dict[str, Any], make: Callable[[random.Random], tuple[Any, Any, Any]]) -> Any:
    triples = {f"slot{number}": make(rng) for number in range(SLOTS)}
    return row({name: SlotSpec(**spec) for name in triples}, triples, rng)


def mixed_row(rng: random.Random) -> Any:
    triples = {f"{level}{number}": CASES[level][1](rng) for level in RULE_LEVELS for number in range(2)}
    return row({name: SlotSpec(**CASES[name[:-1]][0]) for name in triples}, triples, rng)


def list_row(rng: random.Random, align: Any) -> Any:
    """Items with a key, a name and a price; the candidate lacks one, has another order and some wrong values."""
    items = [{"sku": f"A{number}", "name": text(rng), "price": price(rng)[0]} for number in range(ITEMS)]
    written = [dict(item) for item in items[1:]]
    for item in rng.sample(written, 3):
        item["price"] += 1
    rng.shuffle(written)
    slots = {
        "items[].sku": SlotSpec(level="exact", align=align),
        "items[].name": SlotSpec(level="exact", align=align),
        "items[].price": SlotSpec(level="numeric_tol", tolerance=0.01, align=align),
    }
    return example(slots, {"items": items}), prediction({"items": written})


def row(slots: dict[str, SlotSpec], triples: dict[str, tuple[Any, Any, Any]], rng: random.Random) -> Any:
    reference = {name: want for name, (want, _, _) in triples.items()}
    answer = {name: wrong if rng.random() < 0.25 else right for name, (_, right, wrong) in triples.items()}
    return example(slots, reference), prediction(answer)


def example(slots: dict[str, SlotSpec], reference: Any) -> Example:
    prompt = " ".join(["A page of a shop.", json.dumps(reference, ensure_ascii=False), *WORDS * 20])
    return Example(
        id="row",
        task="extract",
        system="",
        prompt=prompt,
        response=json.dumps(reference),
        slots=slots,
        metadata={},
        schema_version="1",
        source_sha256="0" * 64,
    )


def prediction(answer: Any) -> Prediction:
    return Prediction(
        id="row",
        task="extract",
        output=json.dumps(answer),
        parsed=answer,
        valid_json=True,
        valid_schema=True,
        repaired=False,
        prompt_tokens=1,
        completion_tokens=1,
        latency_ms=1.0,
        finish_reason="stop",
        backend="benchmark",
    )


def slots_per_s(rows: list[tuple[Example, Prediction]]) -> float:
    # the first call loads the month names, or the assignment
    grade(*rows[0], LEVELS, {})
    started = time.process_time()
    count = sum(len(grade(*pair, LEVELS, {})) for pair in rows)
    return count / (time.process_time() - started)


def grounding_ms(rows: list[tuple[Example, Prediction]]) -> float:
    grounded(*rows[0])
    started = time.process_time()
    for pair in rows:
        grounded(*pair)
    return 1000 * (time.process_time() - started) / len(rows)


if __name__ == "__main__":
    raise SystemExit(main())
