"""How well a judge agrees with people: accuracy, Cohen's kappa and its interval, from labels on judged answers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from potstill import intervals, metrics
from potstill.certificate import Agreement
from potstill.files import canonical_json
from potstill.grading import RULE, Row
from potstill.records import Record, read_jsonl
from potstill.stop import DATA, Stop


class Label(Record):
    """One line of a label file. `candidate`, when it is there, is the text that was labelled: another is refused.

    `answers` names the predictions; `prompt`, `reference`, `by` and `note` are for the reader.
    """

    id: str
    slot: str
    label: Literal["pass", "fail"] | None
    answers: str = "merged"
    candidate: Any = None
    prompt: str = ""
    reference: Any = None
    by: str = ""
    note: str = ""


class Pair(NamedTuple):
    """A judge's verdict and a person's. `cluster` is what rises and falls together: the split group."""

    slot: str
    cluster: str
    judge: bool
    human: bool


class Matched(NamedTuple):
    """`by_rule`: labels on verdicts of a rule; `errors`: on slots without a verdict; `disputed`: people disagree."""

    pairs: list[Pair]
    by_rule: int
    errors: int
    disputed: int


def read_labels(path: Path) -> list[Label]:
    """Raises Stop 65, naming the line, for a label that is not filled in or breaks the contract."""
    labels = list(read_jsonl(path, Label, "docs/gate.md has the contract of a label file."))
    for number, label in enumerate(labels, 1):
        if label.label is None:
            raise Stop(f'{path} row {number}: label is null. Write "pass" or "fail", or delete the row.', DATA)
    if not labels:
        raise Stop(f"{path} has no labels. Make a sheet to fill in: fab eval.calibrate --sample 100", DATA)
    return labels


def match(labels: list[Label], answers: dict[str, list[Row]], group: str) -> Matched:
    """Joins labels to verdicts by answers, id and slot. Raises Stop 65 for a label on nothing, or on another text."""
    verdicts = {
        (name, verdict.id, verdict.slot): (row, verdict)
        for name, rows in answers.items()
        for row in rows
        for verdict in row.verdicts
    }
    said: dict[tuple[str, str, str], set[bool]] = {}
    for label in labels:
        key = (label.answers, label.id, label.slot)
        if key not in verdicts:
            raise Stop(f"label on id {label.id!r}, slot {label.slot!r}: {label.answers} has no such verdict.", DATA)
        row, verdict = verdicts[key]
        if "candidate" in label.model_fields_set and label.candidate != verdict.candidate:
            told = f"label on id {label.id!r}, slot {label.slot!r}: another answer was labelled than is judged now"
            raise Stop(f"{told}. Label the new answers: fab eval.calibrate --sample 100", DATA)
        said.setdefault(key, set()).add(label.label == "pass")
    pairs, by_rule, errors = [], 0, 0
    agreed = {key: values.copy().pop() for key, values in said.items() if len(values) == 1}
    for key, human in agreed.items():
        row, verdict = verdicts[key]
        if verdict.judge == RULE:
            by_rule += 1
        elif verdict.passed is None:
            errors += 1
        else:
            cluster = metrics.cluster_of(row, group)
            pairs.append(Pair(metrics.slot_path(verdict.slot), cluster, verdict.passed, human))
    return Matched(pairs, by_rule, errors, len(said) - len(agreed))


def agreement(pairs: Iterable[Pair]) -> Agreement:
    counts = [0, 0, 0, 0]
    for pair in pairs:
        counts[_cell(pair)] += 1
    both_pass, judge_only, human_only, both_fail = counts
    n = sum(counts)
    return Agreement(
        n=n,
        both_pass=both_pass,
        judge_only=judge_only,
        human_only=human_only,
        both_fail=both_fail,
        accuracy=(both_pass + both_fail) / n,
        kappa=kappa(both_pass, judge_only, human_only, both_fail),
    )


def kappa(both_pass: float, judge_only: float, human_only: float, both_fail: float) -> float | None:
    """Cohen's kappa (Cohen 1960, Educ. Psychol. Meas. 20:37); None when chance alone would always agree."""
    n = both_pass + judge_only + human_only + both_fail
    observed = (both_pass + both_fail) / n
    passed = (both_pass + judge_only) * (both_pass + human_only)
    failed = (human_only + both_fail) * (judge_only + both_fail)
    chance = (passed + failed) / n**2
    return None if passed + failed == n**2 else (observed - chance) / (1 - chance)


def kappa_ci95(pairs: list[Pair]) -> tuple[float, float]:
    """Percentiles of the bootstrap over groups; over labels where there are fewer than FEW_GROUPS groups.

    A draw in which kappa is undefined shows no agreement beyond chance, and counts as 0.
    """
    import numpy as np

    units = [pair.cluster for pair in pairs]
    if len(set(units)) < intervals.FEW_GROUPS:
        units = [str(number) for number in range(len(pairs))]
    number = {unit: n for n, unit in enumerate(sorted(set(units)))}
    sums = np.zeros((len(number), 4))
    for unit, pair in zip(units, pairs, strict=True):
        sums[number[unit], _cell(pair)] += 1
    drawn = np.concatenate(list(intervals.resample(sums)))
    found = [kappa(*counts) or 0.0 for counts in drawn.tolist()]
    bounds = intervals.middle95(np.array(found))
    assert bounds is not None
    return bounds


def sheet(rows: list[Row], name: str, count: int, seed: int) -> list[Label]:
    """Judged answers to be labelled, drawn at random over all slots. What the judge said is not shown."""
    import random

    open_ones = [(row, verdict) for row in rows for verdict in row.verdicts if verdict.judge != RULE]
    drawn = random.Random(seed).sample(open_ones, min(count, len(open_ones)))
    return [
        Label(
            id=row.example.id,
            slot=verdict.slot,
            label=None,
            answers=name,
            candidate=verdict.candidate,
            prompt=row.example.prompt,
            reference=verdict.reference,
        )
        for row, verdict in sorted(drawn, key=lambda pair: canonical_json([pair[0].example.id, pair[1].slot]))
    ]


def _cell(pair: Pair) -> int:
    return {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[pair.judge, pair.human]
