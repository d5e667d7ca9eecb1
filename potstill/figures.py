"""What a report's page draws: rates with their intervals, histograms, confusion, and two texts word by word."""

import difflib
import re
from typing import NamedTuple

from potstill.breakdown import Confusion
from potstill.metrics import Numbers, Report

# difflib is quadratic and worse on texts of repeated words, and a model wrote one of them
MAX_WORDS = 500
HISTOGRAMS = {"latency_ms": "Latency", "prompt_tokens": "Prompt tokens", "completion_tokens": "Answer tokens"}


class Range(NamedTuple):
    """A rate with its interval and, where a gate has one, its limit; all in percent."""

    name: str
    value: float
    low: float
    high: float
    limit: float | None
    told: str


class Bar(NamedTuple):
    """A bar of a histogram in percent of the picture, and what it says when it is pointed at."""

    left: float
    width: float
    height: float
    told: str


class Drawn(NamedTuple):
    """A histogram: where its 95% lies in percent of its width, and the values at the ends of its axis."""

    title: str
    note: str
    bars: list[Bar]
    p95: float
    ends: tuple[str, str]


class Part(NamedTuple):
    text: str
    changed: bool


def headline(report: Report, names: dict[str, str]) -> list[Range]:
    """Slot accuracy of everything that answered the test rows, then the tuned model's other numbers."""
    limits = {check.name: check.limit for check in report.gate.checks}
    sides: list[tuple[str, Numbers]] = [("tuned", report)]
    sides += [(names[name], found) for name, found in report.baselines.items()]
    found = [_of(f"slot accuracy, {name}", side, "slot_accuracy", side.slot_accuracy) for name, side in sides]
    own = {
        "critical_slots": report.critical_slots,
        "perfect_records": report.perfect_records,
        "json_validity": report.json_validity,
        "schema_validity": report.schema_validity,
    }
    titles = {"json_validity": "valid JSON", "schema_validity": "valid schema"}
    found += [_of(titles.get(name, name.replace("_", " ")), report, name, value) for name, value in own.items()]
    keys = ["slot_accuracy", *[None] * len(report.baselines), *own]
    return [
        item._replace(limit=100 * limits[key] if key in limits else None)
        for key, item in zip(keys, found, strict=True)
        if item is not None
    ]


def slots(report: Report) -> list[Range]:
    """Every slot, worst first; critical ones say so."""
    limits = {check.name: 100 * check.limit for check in report.gate.checks}
    found = []
    for path, rate in sorted(report.per_slot.items(), key=lambda item: item[1].pass_rate or 0):
        if rate.pass_rate is not None and rate.ci95 is not None:
            name = f"{path} (critical)" if rate.critical else path
            found.append(_range(name, rate.pass_rate, rate.ci95, limits.get(f"slot {path}")))
    return found


def histograms(report: Report) -> list[Drawn]:
    drawn = []
    for name, found in report.distributions.items():
        n, most, span = len(found.counts), max(found.counts), len(found.counts) * found.width
        bars = [
            Bar(100 * i / n, 100 / n, 100 * count / most, f"{i * found.width:,} to {(i + 1) * found.width:,}: {count}")
            for i, count in enumerate(found.counts)
        ]
        note = f"half at most {found.p50:,.0f} {found.unit}, 95% at most {found.p95:,.0f} (the line)"
        ends = "0", f"{span:,} {found.unit}"
        drawn.append(Drawn(HISTOGRAMS[name], note, bars, min(100.0, 100 * found.p95 / span), ends))
    return drawn


def shaded(table: Confusion) -> list[tuple[str, list[tuple[int, float, bool]]]]:
    """(reference, [(count, its share of the reference's row, whether it is right)]) for every row of a confusion."""
    found = []
    for value, counts in zip(table.values, table.counts, strict=True):
        total = sum(counts) or 1
        cells = [(n, n / total, answer == value) for n, answer in zip(counts, table.answers, strict=True)]
        found.append((value, cells))
    return found


def compared(reference: str, candidate: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts, those that the other lacks marked as changed. Too long ones are one part each, unmarked."""
    left, right = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (reference, candidate))
    if max(len(left), len(right)) > MAX_WORDS:
        return [Part(reference, False)], [Part(candidate, False)]
    sides: tuple[list[Part], list[Part]] = ([], [])
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for parts, words in zip(sides, (left[a:b], right[c:d]), strict=True):
            if words:
                parts.append(Part("".join(words), kind != "equal"))
    return sides


def _of(name: str, found: Numbers, key: str, value: float | None) -> Range | None:
    bounds = found.ci95.get(key)
    return _range(name, value, bounds, None) if value is not None and bounds else None


def _range(name: str, value: float, bounds: list[float], limit: float | None) -> Range:
    low, high = bounds
    return Range(name, 100 * value, 100 * low, 100 * high, limit, f"{value:.1%} ({low:.1%} to {high:.1%})")
