"""Examples as training rows: how often each counts, its token ids with the loss on the completion only, and a reason
for every refused row."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from potstill import loss_weights, prompt
from potstill.files import sha256_text
from potstill.records import Example, Exemplar, Reject
from potstill.runs import LossWeights
from potstill.stop import DATA, Stop

# what PyTorch's cross entropy leaves out
IGNORED = -100
# a row repeated more often than this is a slip of the pen, and would fill the memory
MAX_WEIGHT = 100
# bars of a histogram of lengths
BINS = 12


class Stratum(NamedTuple):
    """Rows that are weighted together. `held_out`: pinned to val or test, where every row counts once."""

    task: str
    tenant: str
    weight: float
    augmented: bool
    held_out: bool


class Effective(NamedTuple):
    """`rows` of a stratum that count as `effective` rows in an epoch of training."""

    stratum: Stratum
    rows: int
    effective: int


def training_rows(
    examples: Iterable[Example], tokenizer: Any, max_length: int, weights: LossWeights | None = None
) -> tuple[list[dict[str, Any]], list[Reject]]:
    """[{"input_ids", "labels"}] and what was refused. A row that does not fit is refused, never cut.

    Cutting takes the end, which is the answer: such a row would train on half an answer or on nothing. With `weights`,
    a row also has "weights", one for each id (0 for the prompt's), and one that would have none above 0 is refused.
    """
    rows, refused = [], []
    for example in examples:
        rendered = prompt.render(example, tokenizer)
        ids = [*rendered.prompt_ids, *rendered.completion_ids]
        if len(ids) > max_length:
            refused.append(_reject(example, "too_long", f"{len(ids)} tokens, max_length is {max_length}"))
            continue
        before = len(rendered.prompt_ids)
        row: dict[str, Any] = {"input_ids": ids, "labels": [IGNORED] * before + rendered.completion_ids}
        if weights is not None:
            own = loss_weights.of_completion(example.response, prompt.END_OF_TURN, tokenizer, weights)
            row["weights"] = [0.0] * before + own
        if trained_tokens(row):
            rows.append(row)
        else:
            refused.append(_reject(example, "nothing_trained", "no token of the answer has a weight above 0"))
    return rows, refused


def trained_tokens(row: dict[str, Any]) -> int:
    """How many of a row's tokens the loss is on."""
    weights = row.get("weights") or [1.0] * len(row["labels"])
    # the first token has nothing before it that could foretell it
    pairs = zip(row["labels"][1:], weights[1:], strict=True)
    return sum(label != IGNORED and weight > 0 for label, weight in pairs)


class Lengths(NamedTuple):
    """Tokens of the rows of a split, one of lengths.json's entries; `histogram` is of (up to so many tokens, rows)."""

    rows: int
    mean: float
    longest: int
    trained_tokens: int
    histogram: list[tuple[int, int]]


def lengths(kept: Sequence[dict[str, Any]]) -> Lengths:
    """Counts the tokens of rows, at least one; a histogram has at most BINS bars, 16 n wide."""
    sizes = [len(row["input_ids"]) for row in kept]
    step = -(-max(sizes) // (16 * BINS)) * 16
    counts = Counter(-(-size // step) * step for size in sizes)
    bins = [(upto, counts[upto]) for upto in range(min(counts), max(counts) + 1, step)]
    return Lengths(len(sizes), sum(sizes) / len(sizes), max(sizes), sum(map(trained_tokens, kept)), bins)


def histogram_lines(found: Lengths) -> list[str]:
    """The histogram as lines to print: tokens, rows and a bar."""
    most = max(rows for _, rows in found.histogram)
    return [f"{'to ' + str(upto):>9} {rows:7} {'#' * -(-40 * rows // most)}" for upto, rows in found.histogram]


def weighted(examples: Iterable[Example], seed: int) -> list[Example]:
    """Repeats or leaves out examples, in the order given, so that each counts `metadata.weight` times (1 without one).

    Of a stratum's n rows, all come floor(weight) times, and those with the lowest draws once more: as many as
    `effective_counts` says, which is within 1 of weight x n. A draw follows from `seed` and the row's id alone, so the
    order of rows is of no account and a new row moves at most one other in or out. Raises Stop 65 for a bad weight.
    """
    examples = list(examples)
    members: dict[Stratum, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        members[stratum(example)].append(number)
    once_more: set[int] = set()
    for group, numbers in members.items():
        if extra := _rows_for(group, len(numbers)) - int(group.weight) * len(numbers):
            draws = sorted((sha256_text(f"{seed}:{examples[n].id}"), n) for n in numbers)
            once_more.update(n for _, n in draws[:extra])
    whole = [int(stratum(example).weight) for example in examples]
    return [e for n, e in enumerate(examples) for _ in range(whole[n] + (n in once_more))]


def stratum(row: Example | Exemplar) -> Stratum:
    """Where a row belongs in the mix. Raises Stop 65, naming the row, for a weight that is none."""
    metadata = row.metadata
    weight = metadata.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_WEIGHT:
        raise Stop(f"row {row.id}: metadata.weight must be a number from 0 to {MAX_WEIGHT}. Correct it there.", DATA)
    held_out = bool(metadata.get("slice")) or metadata.get("split") in ("val", "test")
    return Stratum(row.task, str(metadata.get("tenant") or ""), float(weight), "augmented" in metadata, held_out)


def effective_counts(strata: Counter[Stratum]) -> list[Effective]:
    """What `weighted` makes of so many rows, by task, tenant and weight; it holds for every seed."""
    counts = []
    for group, rows in sorted(strata.items()):
        counts.append(Effective(group, rows, rows if group.held_out else _rows_for(group, rows)))
    return counts


def mix_table(counts: Sequence[Effective]) -> list[str]:
    """Lines to print: rows, weight and effective rows of every task and tenant, and their sums."""
    lines = [f"{'task':14} {'tenant':14} {'rows':>8} {'weight':>7} {'count as':>9}"]
    for (task, tenant, weight, augmented, held_out), rows, effective in counts:
        note = ("  variants" if augmented else "") + ("  val or test only" if held_out else "")
        lines.append(f"{task:14} {tenant or '-':14} {rows:8} {weight:7g} {effective:9}{note}")
    totals = [sum(count.rows for count in counts), sum(count.effective for count in counts)]
    return [*lines, f"{'all':29} {totals[0]:8} {'':7} {totals[1]:9}"]


def _rows_for(group: Stratum, rows: int) -> int:
    """weight x rows rounded to one of its neighbours: which one, the stratum's name decides.

    Rounding half up would drop every stratum of one row with a weight below 0.5; so rounded, they count on average.
    """
    offset = int(sha256_text("\n".join(map(str, group)))[:13], 16) / 16**13
    # 0.7 * 10 is a little over 7 in floating point
    return max(0, math.ceil(round(group.weight * rows, 9) - offset))


def _reject(example: Example, reason: str, detail: str) -> Reject:
    return Reject(id=example.id, task=example.task, stage="train", reason=reason, detail=detail)
