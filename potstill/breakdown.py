"""What a report shows of answers beside their rates: histograms, confusion of enum slots, and what documents cost."""

import json
from collections import Counter
from typing import Annotated, Any

from pydantic import Field

from potstill import grading
from potstill.config import Config
from potstill.grading import Row
from potstill.records import Record

BARS = 20
MAX_VALUES = 8
MAX_CHARS = 40
OTHER, UNUSABLE = "another value", "no valid answer"
Price = Annotated[float, Field(ge=0)]


class Histogram(Record):
    """`counts[i]` values lie in [i * width, (i + 1) * width); those beyond the last bar are counted in it."""

    unit: str
    width: int
    counts: list[int]
    p50: float
    p95: float


class Confusion(Record):
    """`counts[i][j]` answers have the reference `values[i]` and gave `answers[j]`."""

    values: list[str]
    answers: list[str]
    counts: list[list[int]]


class Cost(Record):
    """USD per 1,000 documents like the headline rows. `tokens_from` says whose token counts the strong model's are.

    `tuned_from` is the artifact whose answers per second in package.parity the tuned model's cost is of; latencies of
    eval.generate are those of whole batches.
    """

    strong_model: str
    strong_usd_per_1000: float
    tokens_from: str
    tuned_usd_per_1000: float | None
    tuned_from: str | None


class Prices(Config):
    """configs/gate.yaml, `prices`: what the strong model and the tuned model's host cost."""

    strong_model: str
    input_usd_per_million: Price
    output_usd_per_million: Price
    # of the machine that answers; absent: the tuned model's cost is not told
    host_usd_per_hour: Price | None = None


def distributions(rows: list[Row]) -> dict[str, Histogram]:
    predictions = [row.prediction for row in rows]
    return {
        "latency_ms": histogram([p.latency_ms for p in predictions], "ms"),
        "prompt_tokens": histogram([float(p.prompt_tokens) for p in predictions], "tokens"),
        "completion_tokens": histogram([float(p.completion_tokens) for p in predictions], "tokens"),
    }


def histogram(values: list[float], unit: str) -> Histogram:
    """At most BARS bars of a width of 1, 2 or 5 times a power of ten, from 0 past the 95th percentile."""
    from potstill.intervals import quantile

    p50, p95 = quantile(values, 0.5), quantile(values, 0.95)
    # one outlier must not squeeze all others into one bar
    most = min(max(values), 2 * p95) if p95 > 0 else max(values)
    width = next(w for e in range(15) for w in (10**e, 2 * 10**e, 5 * 10**e) if most < BARS * w)
    counts = [0] * (int(most // width) + 1)
    for value in values:
        counts[min(int(value // width), len(counts) - 1)] += 1
    return Histogram(unit=unit, width=width, counts=counts, p50=p50, p95=p95)


def confusion(rows: list[Row]) -> dict[str, Confusion]:
    """Of every slot of level `exact` outside lists whose references have two to MAX_VALUES values, each seen twice
    on average or more often. Values are JSON, cut to MAX_CHARS."""
    pairs: dict[str, Counter[tuple[str, str]]] = {}
    for row in rows:
        unusable = grading.why_unusable(row.prediction) is not None
        for verdict in row.verdicts:
            if verdict.level == "exact" and "[" not in verdict.slot and verdict.status == "scored":
                answer = UNUSABLE if unusable else _value(verdict.candidate)
                pairs.setdefault(verdict.slot, Counter())[_value(verdict.reference), answer] += 1
    return {slot: _table(found) for slot, found in pairs.items() if _is_enum(found)}


def cost(rows: list[Row], prices: Prices, answers_per_s: dict[str, float]) -> Cost:
    """The strong model's tokens are those logged with its calls, or else the tuned model's own counts.

    `answers_per_s` are the artifacts' in package.parity: the fastest one tells what the tuned model costs.
    """
    logged = [_logged(row.example.metadata) for row in rows]
    known = [counts for counts in logged if counts is not None]
    source = "the strong model's log"
    if len(known) != len(rows):
        source = "the tuned model's tokenizer"
        known = [(float(row.prediction.prompt_tokens), float(row.prediction.completion_tokens)) for row in rows]
    n = len(known)
    usd = sum(i * prices.input_usd_per_million + o * prices.output_usd_per_million for i, o in known) / 1e6
    fastest = max(answers_per_s, key=lambda name: answers_per_s[name], default=None)
    per_1000 = None
    if fastest is not None and prices.host_usd_per_hour is not None:
        per_1000 = host_usd(prices.host_usd_per_hour, answers_per_s[fastest])
    return Cost(
        strong_model=prices.strong_model,
        strong_usd_per_1000=1000 * usd / n,
        tokens_from=source,
        tuned_usd_per_1000=per_1000,
        tuned_from=fastest if per_1000 is not None else None,
    )


def host_usd(usd_per_hour: float, answers_per_s: float) -> float:
    """What 1,000 answers take of a host that does nothing else."""
    return 1000 * usd_per_hour / 3600 / answers_per_s


def _logged(metadata: dict[str, Any]) -> tuple[float, float] | None:
    """The strong model's prompt and completion tokens, when the row's log has both."""
    counts = metadata.get("prompt_tokens"), metadata.get("completion_tokens")
    usable = [float(n) for n in counts if isinstance(n, int | float) and not isinstance(n, bool) and n >= 0]
    return (usable[0], usable[1]) if len(usable) == 2 else None


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"


def _is_enum(pairs: Counter[tuple[str, str]]) -> bool:
    values = {reference for reference, _ in pairs}
    return 2 <= len(values) <= MAX_VALUES and pairs.total() >= 2 * len(values)


def _table(pairs: Counter[tuple[str, str]]) -> Confusion:
    values = sorted({reference for reference, _ in pairs})
    found = Counter[tuple[str, str]]()
    for (reference, answer), count in pairs.items():
        found[reference, answer if answer in values or answer == UNUSABLE else OTHER] += count
    extra = [name for name in (OTHER, UNUSABLE) if any(answer == name for _, answer in found)]
    answers = [*values, *extra]
    counts = [[found[reference, answer] for answer in answers] for reference in values]
    return Confusion(values=values, answers=answers, counts=counts)
