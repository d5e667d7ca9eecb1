"""A judge run: its questions through the ledger, with canaries among them, and the files it leaves.

In reports/<run>/, judge_run_<timestamp>[.<name>].jsonl has the verdicts, judge_run_<timestamp>.transcripts.jsonl what
was asked and answered, and judge_run_<timestamp>.json, written last, says what it all took and if it may be used.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from potstill import grading, judge, judge_canaries, progress
from potstill.fences import PairQuestion, Question
from potstill.files import atomic_open, canonical_json, sha256_file, sha256_text, write_json
from potstill.grading import TUNED, Grade, Judged, JudgeRun
from potstill.judge import Cache, JudgeConfig
from potstill.judge_engine import Job
from potstill.judge_records import Preference, Reply, Ruling
from potstill.judge_spend import Spend
from potstill.ledger import Ledger
from potstill.pricing import CapReached
from potstill.records import write_jsonl
from potstill.runs import RunRecord

LEASE_S = 3600
# questions claimed at once, per call under way: the last of a claim leave room that nothing fills
CLAIM = 64


class Sheet(NamedTuple):
    """One predictions file, graded as far as rules go."""

    name: str
    path: Path
    split: str
    rows: int
    grades: list[Grade]


class Outcome(NamedTuple):
    """`results`: {"score", "reason", "cached", "calls", "cost_usd", "spread", "attempts"} by key; see JudgeRun."""

    results: dict[str, dict[str, Any]]
    void: str | None = None
    incomplete: str | None = None
    canaries: int = 0


class Void(Exception):
    """A canary passed that must not, or failed that must."""


def key_of(sheet: Sheet, grade: Grade) -> str:
    return canonical_json([sheet.name, grade.example.id, grade.slot])


class Plan(NamedTuple):
    """Questions by key, canaries by key, and what the score of a canary shows against the judge, or None."""

    asked: Mapping[str, Question | PairQuestion]
    planted: Mapping[str, Question | PairQuestion]
    finding: Callable[[str, float], str | None]


def questions(sheets: list[Sheet]) -> dict[str, Question]:
    """What no rule decides, by key."""
    return {key_of(sheet, g): g.question for sheet in sheets for g in sheet.grades if g.question}


def plan_of(model: str, asked: dict[str, Question], threshold: float) -> Plan:
    """The plan of a run that scores; `threshold` is the score from which an answer passes."""
    canaries = planted(model)
    shown = {key: judge_canaries.question(canary) for key, canary in canaries.items()}
    return Plan(asked, shown, lambda key, score: judge_canaries.finding(canaries[key], score, threshold))


def planted(model: str) -> dict[str, judge_canaries.Canary]:
    """The canaries of a run, by key."""
    return {canonical_json(["canary", canary.name]): canary for canary in judge_canaries.canaries(model)}


def fingerprint_of(job: Job, asked: Mapping[str, Any]) -> str:
    """Names the inputs of a run. What only limits it is left out, so that a higher cap goes on with the same ledger."""
    settings = job.settings.model_dump(include={"model", "api_base", "max_tokens", "repeats"})
    return sha256_text(canonical_json([settings, job.template, list(asked.items())]))


def rule(
    folder: Path,
    job: Job,
    cache: Cache,
    spend: Spend,
    plan: Plan,
    track: Callable[..., Iterator[None]] = progress.track,
) -> Outcome:
    """Asks the canaries and the questions, resumably. Raises Stop 69; a cap or a canary ends in the Outcome."""
    fingerprint = fingerprint_of(job, plan.asked)
    # named for its inputs: a run on other inputs starts afresh, and what was paid for is in the cache
    path = folder / f".judge-{fingerprint[:16]}.ledger"
    incomplete = None
    # a run that was begun has counts of what it cost in its ledger
    if not path.exists() and (known := _all_cached(job, cache, plan)) is not None:
        return Outcome(known, _void(plan, known), None, len(plan.planted))
    with Ledger(path, fingerprint, alone=True) as ledger:
        # the canaries first: a judge that lets one pass is not paid for the rest
        ledger.add((key, question._asdict()) for key, question in [*plan.planted.items(), *plan.asked.items()])
        ledger.retry_failed()
        try:
            for _ in track(_work(ledger, job, cache, spend, fingerprint, plan), "judge", ledger.counts()["todo"]):
                pass
        except CapReached as error:
            incomplete = str(error)
        except Void:
            pass
        results = dict(ledger.results()) | {key: json.loads(told) for key, told in ledger.failures()}
    # looked at again: a run that was killed may have recorded a canary and not looked
    void = _void(plan, results)
    if incomplete is None:
        for leftover in folder.glob(".judge-*.ledger*"):
            leftover.unlink()
    return Outcome(results, void, incomplete, len(plan.planted))


def _all_cached(job: Job, cache: Cache, plan: Plan) -> dict[str, dict[str, Any]] | None:
    """The results when every question was answered before, which needs no ledger; else None."""
    found = {}
    for key, question in (*plan.planted.items(), *plan.asked.items()):
        reply = judge.from_cache(job, cache, question)
        if reply is None:
            return None
        found[key] = as_result(reply)
    return found


def _void(plan: Plan, results: Mapping[str, dict[str, Any]]) -> str | None:
    return next((why for key in plan.planted if (why := _against(plan, key, results.get(key)))), None)


def _against(plan: Plan, key: str, result: dict[str, Any] | None) -> str | None:
    """What the result of a canary shows against the judge; None where it was not reached."""
    if result is None:
        return None
    if result["score"] is None:
        return f"the canary {json.loads(key)[1]!r} got no verdict ({result['reason']}); run this again"
    return plan.finding(key, result["score"])


def _work(ledger: Ledger, job: Job, cache: Cache, spend: Spend, fingerprint: str, plan: Plan) -> Iterator[None]:
    """Yields once per question answered, after it is recorded."""
    spent = 0.0
    kind: Any = type(next(iter(plan.asked.values())))
    while items := ledger.claim(CLAIM * job.settings.concurrency, LEASE_S):
        for batch in judge.rule_in_batches(job, cache, [kind(**item.payload) for item in items]):
            if calls := sum(reply.calls for _, reply in batch):
                spend.add(fingerprint, job.settings.model, calls, job.budget.spent_usd - spent)
                spent = job.budget.spent_usd
            told = [(items[index].key, as_result(reply)) for index, reply in batch]
            ledger.finish_many((key, result) for key, result in told if result["score"] is not None)
            for key, result in told:
                # a failure is asked again when the run is, a verdict never
                if result["score"] is None:
                    ledger.fail(key, canonical_json(result))
                elif key in plan.planted and plan.finding(key, result["score"]):
                    raise Void
                yield


def as_result(reply: Reply) -> dict[str, Any]:
    told: dict[str, Any] = {"score": None, "reason": reply.error}
    if reply.ruling is not None:
        told = {"score": score_of(reply.ruling), "reason": reply.ruling.reason}
    took = {"cached": reply.cached, "calls": reply.calls, "cost_usd": reply.cost_usd, "spread": reply.spread}
    return {**told, **took, "attempts": [attempt._asdict() for attempt in reply.attempts]}


def score_of(ruling: Ruling | Preference) -> float:
    """0 to 1; of a preference, 1 where the first candidate is closer, 0 where the second is, 0.5 for a tie."""
    return ruling.score if isinstance(ruling, Ruling) else {"A": 1.0, "tie": 0.5, "B": 0.0}[ruling.closer]


def usable(outcome: Outcome, key: str) -> dict[str, Any]:
    """The result of one question as its verdict shows it: of a void run none, of an incomplete one what there is."""
    result = outcome.results.get(key)
    if result is not None and outcome.void is None:
        return result
    why = f"the judge run is void: {outcome.void}" if outcome.void else f"not asked: {outcome.incomplete}"
    took = result or {"cached": False, "calls": 0, "cost_usd": 0.0, "spread": None}
    return {**took, "score": None, "reason": why}


def write(
    record: RunRecord, folder: Path, template: str, settings: JudgeConfig, sheets: list[Sheet], found: Outcome
) -> JudgeRun:
    """Writes the verdicts, the transcripts and, last, the record of the run."""
    model, started = settings.model, datetime.now(UTC)
    # to the millisecond: two runs in one second keep their own files
    stem = f"judge_run_{started:%Y%m%dT%H%M%S}-{started.microsecond // 1000:03}"
    judged = {sheet.name: _write_sheet(folder, stem, sheet, model, found) for sheet in sheets}
    transcripts = None
    if found.results:
        transcripts = f"{stem}.transcripts.jsonl"
        _write_transcripts(folder / transcripts, model, sheets, found)
    written = JudgeRun(
        run=record.run,
        created_at=started.isoformat(timespec="seconds"),
        model=model,
        label=judge.label(model),
        prompt_sha256=sha256_text(template),
        snapshots={sheet.split: record.snapshots[sheet.split].sha256 for sheet in sheets},
        judged=judged,
        void=found.void,
        incomplete=found.incomplete,
        canaries=found.canaries,
        repeats=settings.repeats,
        transcripts=transcripts,
    )
    write_json(folder / f"{stem}.json", written.model_dump())
    return written


def _write_sheet(folder: Path, stem: str, sheet: Sheet, model: str, found: Outcome) -> Judged:
    verdicts = folder / (f"{stem}.jsonl" if sheet.name == TUNED else f"{stem}.{sheet.name}.jsonl")
    own = [(grade, usable(found, key_of(sheet, grade)) if grade.question else None) for grade in sheet.grades]
    rows = [grading.verdict(grade, result, model) for grade, result in own]
    write_jsonl(verdicts, rows)
    asked = [result for _, result in own if result]
    return Judged(
        predictions=sheet.path.name,
        predictions_sha256=sha256_file(sheet.path),
        verdicts=verdicts.name,
        rows=sheet.rows,
        calls=sum(result["calls"] for result in asked),
        cached=sum(result["cached"] for result in asked),
        errors=sum(row.status == "error" for row in rows),
        cost_usd=sum(result["cost_usd"] for result in asked),
        spread_max=max((result["spread"] for result in asked if result["spread"] is not None), default=None),
    )


def _write_transcripts(path: Path, model: str, sheets: list[Sheet], found: Outcome) -> None:
    """One line per question, canaries first: what was asked and every answer as it came. Keys are never part of it."""
    with atomic_open(path) as file:
        for key, canary in planted(model).items():
            asked = judge_canaries.question(canary)._asdict()
            _line(
                file, {"id": None, "answers": None, "canary": canary.name, "wanted": canary.wanted} | asked, found, key
            )
        for sheet in sheets:
            for grade in sheet.grades:
                if grade.question:
                    row = {"id": grade.example.id, "answers": sheet.name, "canary": None, "wanted": None}
                    _line(file, row | grade.question._asdict(), found, key_of(sheet, grade))


def _line(file: Any, row: dict[str, Any], found: Outcome, key: str) -> None:
    if (result := found.results.get(key)) is not None:
        # a lone surrogate of a hostile answer can be escaped, but not written
        file.write(json.dumps({**row, **result}, allow_nan=False) + "\n")
