"""What dataset.stats counts: one pass over a split; memory follows the number of different values, not of rows."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from potstill import shown
from potstill.leaves import ABSENT, leaf, place
from potstill.prompt import Rendered
from potstill.records import Example
from potstill.rows import Stratum, effective_counts, stratum
from potstill.workload import Workload

PERCENTILES = (50, 90, 99, 100)
LENGTHS = ("prompt", "completion", "total")
STATES = ("filled", "null", "empty", "absent")
# what a row can be counted by, beside its task and the keys the workload groups and stratifies by
FACETS = (
    "tenant",
    "language",
    "page_type",
    "domain",
    "slice",
    "augmented",
    "class",
    "round",
    "model",
    "schema_version",
)
TOP = 12
BINS = 32
# hostile metadata could bring a new value with every row
MAX_VALUES = 50_000


@dataclass
class Tally:
    """Counts of one split. Lengths and ratios are counted by value, so that percentiles need no list of rows."""

    rows: int = 0
    over_max_length: int = 0
    groups: set[bytes] = field(default_factory=set)  # digests
    facets: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    more_values: Counter[str] = field(default_factory=Counter)  # rows of a facet whose value was one too many
    lengths: dict[str, Counter[int]] = field(default_factory=lambda: {kind: Counter() for kind in LENGTHS})
    slots: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # slot -> state -> rows
    grounded: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # slot -> how -> rows
    reduction: Counter[int] = field(default_factory=Counter)  # percent of the raw prompt that was kept
    raw: Counter[str] = field(default_factory=Counter)  # unit -> sum before the reduction
    reduced: Counter[str] = field(default_factory=Counter)
    strata: Counter[Stratum] = field(default_factory=Counter)


def add(tally: Tally, example: Example, rendered: Rendered, job: Workload, max_length: int) -> None:
    """Counts one example. Raises Stop 65 for a metadata.weight that is none."""
    metadata, split = example.metadata, job.settings.split
    prompt, completion = len(rendered.prompt_ids), len(rendered.completion_ids)
    tally.rows += 1
    for kind, length in zip(LENGTHS, (prompt, completion, prompt + completion), strict=True):
        tally.lengths[kind][length] += 1
    tally.over_max_length += prompt + completion > max_length
    group = str({"task": example.task, **metadata}.get(split.group) or example.id)
    tally.groups.add(hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()[:10])
    tally.strata[stratum(example)] += 1
    _facet(tally, "task", example.task)
    for key in dict.fromkeys((*FACETS, *split.stratify)):
        if key != "task" and isinstance(value := metadata.get(key), str | int | float):
            _facet(tally, key, str(value))
    answer = json.loads(example.response) if example.slots else None
    for name, spec in example.slots.items():
        tally.slots[name][state(leaf(answer, place(name, spec)))] += 1
    _cleaning(tally, metadata)


def state(value: Any) -> str:
    """One of STATES. A list of nothing but nulls is null."""
    if value is ABSENT:
        return "absent"
    if isinstance(value, list) and value and all(item is None or item is ABSENT for item in value):
        return "null"
    return "null" if value is None else "empty" if value in ("", [], {}) else "filled"


def commonest(tallies: Iterable[Tally]) -> dict[str, list[str]]:
    """The TOP values of every facet over all splits, the commonest first, ties by name."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for tally in tallies:
        for key, counts in tally.facets.items():
            sums[key].update(counts)
    return {
        key: [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:TOP]
        for key, counts in sorted(sums.items())
        if key != "task"
    }


def summary(tally: Tally, common: dict[str, list[str]], trained: bool = True) -> dict[str, Any]:
    """The counts of one split as dataset_stats.json has them. Shares are of the rows that have the slot or the key.

    `common` names the facet values that are counted one by one. Weights apply to a split that is `trained` on.
    """
    slots = {path: _shares(counts, STATES) for path, counts in tally.slots.items()}
    return {
        "rows": tally.rows,
        "tasks": dict(tally.facets["task"]),
        "groups": len(tally.groups),
        "tenants": dict(tally.facets["tenant"]),
        "slices": dict(tally.facets["slice"]),
        "tokens": {k: {f"p{p}": percentile(n, p) for p in PERCENTILES} for k, n in tally.lengths.items()},
        "tokens_total": sum(length * n for length, n in tally.lengths["total"].items()),
        "over_max_length": tally.over_max_length,
        "slot_coverage": {path: shares["filled"] for path, shares in slots.items()},
        "slot_states": slots,
        "facets": {key: _facet_counts(tally, key, names) for key, names in common.items()},
        "reduction": _reduction(tally),
        "grounded": {path: _shares(counts) for path, counts in sorted(tally.grounded.items())},
        "effective": _effective(tally, trained),
    }


def percentile(counts: Counter[int], percent: int) -> int:
    """The nearest-rank percentile of counted values, a value that occurs; 0 for none."""
    rank = max(1, -(-counts.total() * percent // 100))
    for value in sorted(counts):
        rank -= counts[value]
        if rank <= 0:
            return value
    return 0


def histogram(tallies: dict[str, Counter[int]], bins: int = BINS) -> dict[str, Any]:
    """Bars of equal width from 0 on, the same for every split; the last one also has all that is longer."""
    together: Counter[int] = sum(tallies.values(), Counter())
    # one giant row would flatten all the others
    longest = min(percentile(together, 100), 2 * percentile(together, 99))
    width = max(1, -(-(longest + 1) // bins))
    used = longest // width + 1
    found = {split: [0] * used for split in tallies}
    for split, counts in tallies.items():
        for value, n in counts.items():
            found[split][min(value // width, used - 1)] += n
    return {"width": width, "counts": found, "open_end": percentile(together, 100) >= width * used}


def _facet(tally: Tally, key: str, value: str) -> None:
    counts, name = tally.facets[key], shown.line(value, 80)
    if name in counts or len(counts) < MAX_VALUES:
        counts[name] += 1
    else:
        tally.more_values[key] += 1


def _cleaning(tally: Tally, metadata: dict[str, Any]) -> None:
    """What dataset.clean, or the source of the rows, says of the reduction and of where the values were found."""
    if isinstance(grounded := metadata.get("grounded"), dict):
        for path, how in grounded.items():
            tally.grounded[shown.line(str(path), 80)][shown.line(str(how), 20)] += 1
    found = metadata.get("reduction")
    pairs = {"chars": (found.get("raw_chars"), found.get("reduced_chars"))} if isinstance(found, dict) else {}
    pairs["tokens"] = (metadata.get("raw_tokens"), metadata.get("reduced_tokens"))
    usable = {u: (a, b) for u, (a, b) in pairs.items() if type(a) is int and type(b) is int and a > 0 and b >= 0}
    for unit, (raw, reduced) in usable.items():
        tally.raw[unit] += raw
        tally.reduced[unit] += reduced
    if usable:
        # tokens say more than characters, where a row has both
        raw, reduced = usable.get("tokens") or usable["chars"]
        tally.reduction[min(round(100 * reduced / raw), 1000)] += 1


def _shares(counts: Counter[str], keys: tuple[str, ...] = ()) -> dict[str, float]:
    return {key: round(counts[key] / counts.total(), 4) for key in keys or sorted(counts)}


def _facet_counts(tally: Tally, key: str, names: list[str]) -> dict[str, Any]:
    counts, more = tally.facets[key], tally.more_values[key]
    values = {name: counts[name] for name in names}
    return {
        "values": values,
        "distinct": len(counts),
        "other_rows": counts.total() - sum(values.values()) + more,
        "rows": counts.total() + more,
    }


def _reduction(tally: Tally) -> dict[str, Any] | None:
    if not tally.reduction:
        return None
    kept = {f"kept_percent_p{p}": percentile(tally.reduction, p) for p in PERCENTILES}
    sums = {
        f"{when}_{unit}": n for when, c in (("raw", tally.raw), ("reduced", tally.reduced)) for unit, n in c.items()
    }
    return {"rows": tally.reduction.total(), **kept, **sums}


def _effective(tally: Tally, trained: bool) -> dict[str, Any]:
    """Rows that an epoch of training has once metadata.weight is applied, by task and by tenant."""
    tasks: Counter[str] = Counter()
    tenants: Counter[str] = Counter()
    for group, n, weighted in effective_counts(tally.strata):
        effective = weighted if trained else n
        tasks[group.task] += effective
        tenants[shown.line(group.tenant, 80) or "-"] += effective
    return {"rows": tasks.total(), "tasks": dict(tasks), "tenants": dict(tenants)}
