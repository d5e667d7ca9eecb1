"""Pairwise judging: which of two sets of answers is closer to the reference, slot by slot.

Judges favour a position, so every question is asked in both orders; a verdict that changes with the order is a tie
(Zheng et al. 2023, "Judging LLM-as-a-Judge", section 3.4). Where a rule decides a side, the judge is not asked.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from potstill import judge, judge_canaries, judge_run
from potstill.fences import PairQuestion
from potstill.files import atomic_open, canonical_json, sha256_file, write_json
from potstill.grading import Grade
from potstill.judge_cache import Cache
from potstill.judge_engine import Job
from potstill.judge_run import Outcome, Plan, Sheet
from potstill.judge_spend import Spend
from potstill.records import Record

LEVEL = "llm_similarity"
# the score of a verdict "A" is 1, of "B" 0
TIE = 0.5


class Pairwise(Record):
    """reports/<run>/pairwise_<a>_<b>.json. The counts are slots; `by_rule` of them were decided without the judge."""

    a: str
    b: str
    predictions_sha256: list[str]
    model: str
    label: str
    n: int
    a_closer: int
    b_closer: int
    ties: int
    order_changed: int
    errors: int
    by_rule: int
    calls: int
    cost_usd: float
    verdicts: str
    void: str | None
    incomplete: str | None


def pairs(a: Sheet, b: Sheet) -> list[tuple[Grade, Grade]]:
    """The free-text slots that both sheets grade."""
    other = {(grade.example.id, grade.slot): grade for grade in b.grades}
    found = [(grade, other.get((grade.example.id, grade.slot))) for grade in a.grades if grade.spec.level == LEVEL]
    return [(left, right) for left, right in found if right is not None]


def keys_of(pair: tuple[Grade, Grade]) -> tuple[str, str]:
    """The keys of the question in both orders."""
    id, slot = pair[0].example.id, pair[0].slot
    return canonical_json([id, slot, "a first"]), canonical_json([id, slot, "b first"])


def questions(a: Sheet, b: Sheet) -> dict[str, PairQuestion]:
    found = {}
    for pair in pairs(a, b):
        left, right = pair[0].question, pair[1].question
        if left is not None and right is not None and left.candidate != right.candidate:
            first, second = keys_of(pair)
            found[first] = PairQuestion(left.slot, left.reference, left.candidate, right.candidate)
            found[second] = PairQuestion(left.slot, left.reference, right.candidate, left.candidate)
    return found


def planted(model: str) -> dict[str, PairQuestion]:
    """Every canary that must fail, beside a right answer, in both orders."""
    return {
        canonical_json(["canary", canary.name, "first" if first else "second"]): pair_question(canary.candidate, first)
        for canary in judge_canaries.canaries(model)
        if canary.wanted == "fail"
        for first in (True, False)
    }


def plan_of(model: str, asked: dict[str, PairQuestion]) -> Plan:
    return Plan(asked, planted(model), finding)


def pair_question(candidate: str, first: bool) -> PairQuestion:
    reference = judge_canaries.REFERENCE
    return PairQuestion("canary", reference, *((candidate, reference) if first else (reference, candidate)))


def finding(key: str, score: float) -> str | None:
    """What the score of a canary shows against the judge."""
    _, name, place = json.loads(key)
    if (score > 0) if place == "first" else (score < 1):
        return f"the judge did not prefer the reference itself to the canary {name!r} in {place} place"
    return None


def rule(
    folder: Path,
    job: Job | None,
    cache: Cache,
    spend: Spend,
    asked: dict[str, PairQuestion],
    sheets: list[Sheet],
    model: str,
) -> tuple[Pairwise, Path]:
    """Asks, and writes pairwise_<a>_<b>.jsonl with every slot and .json with the counts."""
    outcome = Outcome({})
    if job is not None:
        outcome = judge_run.rule(folder, job, cache, spend, plan_of(model, asked))
    rows = [_row(pair, outcome) for pair in pairs(*sheets)]
    stem = f"pairwise_{sheets[0].name}_{sheets[1].name}"
    with atomic_open(folder / f"{stem}.jsonl") as file:
        for row in rows:
            file.write(json.dumps(row, allow_nan=False) + "\n")
    counts = Counter(row["closer"] for row in rows)
    found = Pairwise(
        a=sheets[0].name,
        b=sheets[1].name,
        predictions_sha256=[sha256_file(sheet.path) for sheet in sheets],
        model=model,
        label=judge.label(model),
        n=len(rows),
        a_closer=counts["a"],
        b_closer=counts["b"],
        ties=counts["tie"],
        order_changed=sum(row["order_changed"] for row in rows),
        errors=counts["error"],
        by_rule=sum(row["by_rule"] for row in rows),
        calls=sum(result["calls"] for result in outcome.results.values()),
        cost_usd=sum(result["cost_usd"] for result in outcome.results.values()),
        verdicts=f"{stem}.jsonl",
        void=outcome.void,
        incomplete=outcome.incomplete,
    )
    write_json(folder / f"{stem}.json", found.model_dump())
    return found, folder / f"{stem}.json"


def _row(pair: tuple[Grade, Grade], outcome: Outcome) -> dict[str, Any]:
    left, right = pair
    base = {"id": left.example.id, "slot": left.slot, "order_changed": False, "by_rule": True, "attempts": []}
    if left.question and right.question and left.question.candidate != right.question.candidate:
        base |= {"by_rule": False, **left.question._asdict(), "other": right.question.candidate}
        both = [judge_run.usable(outcome, key) for key in keys_of(pair)]
        base["attempts"] = [result.get("attempts", []) for result in both]
        scores = [result["score"] for result in both]
        if None in scores:
            return base | {"closer": "error", "reason": next(r["reason"] for r in both if r["score"] is None)}
        return base | closer(*scores) | {"reason": both[0]["reason"]}
    return base | _by_rule(left, right)


def closer(a_first: float, b_first: float) -> dict[str, Any]:
    """The verdict from both orders: `a_first` is the score when a was A, `b_first` the one when b was A."""
    told = [_side(a_first, "a", "b"), _side(b_first, "b", "a")]
    if told[0] == told[1]:
        return {"closer": told[0], "order_changed": False}
    return {"closer": "tie", "order_changed": True}


def _side(score: float, first: str, second: str) -> str:
    return "tie" if score == TIE else first if score > TIE else second


def _by_rule(left: Grade, right: Grade) -> dict[str, Any]:
    scores = []
    for grade in (left, right):
        if grade.decided is not None and grade.decided.status == "error":
            return {"closer": "error", "reason": grade.decided.reason}
        # what a rule leaves open lies between the reference itself and an answer that is worth nothing
        scores.append(TIE if grade.decided is None else grade.decided.score or 0.0)
    return {"closer": _side(TIE + scores[0] - scores[1], "a", "b"), "reason": "by rule"}
