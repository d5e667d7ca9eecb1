"""From predictions and verdicts to numbers: the contract of report.json, and the first gate.

Headline numbers are over the rows that belong to no slice; a row with metadata.slice counts in its slice only.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from potstill import gate, grading, project, runs, snapshots
from potstill.gate import Gate, Limits
from potstill.grading import TUNED, JudgeRun, Row
from potstill.intervals import quantile, wilson
from potstill.records import Example, Record
from potstill.stop import DATA, Stop

BASELINES = {"base": "untuned_base", "null": "always_null"}
UNSEEN = "unseen_families"
Share = Annotated[float, Field(ge=0, le=1)]


class Numbers(Record):
    """`slot_accuracy` is passed / scored over all slots; an error is in neither, and is counted in `errors`.

    `perfect_records` is the share of answers whose every slot passed, among those without an error in doubt.
    `repaired` is the share of answers that became JSON only by repair; no other number counts them as valid.
    """

    n: int
    json_validity: Share
    schema_validity: Share
    repaired: Share
    slot_accuracy: Share | None
    slots_scored: int
    perfect_records: Share | None
    errors: int
    ci95: dict[str, list[float]]


class SlotRate(Record):
    n: int
    pass_rate: Share | None
    ci95: list[float] | None


class JudgeLine(Record):
    model: str
    label: str
    prompt_sha256: str
    calls: int
    cached: int
    errors: int
    cost_usd: float


class Artifact(Record):
    """`numbers` are null until its answers are judged; `parity` is what package.parity measured."""

    numbers: Numbers | None
    parity: dict[str, Any] | None


class Report(Numbers):
    """reports/<run>/report.json"""

    run: str
    workload: str
    snapshot: str
    per_slot: dict[str, SlotRate]
    latency_ms: dict[Literal["p50", "p95"], float]
    tokens: dict[Literal["prompt_p50", "completion_p50", "total"], float]
    judge: JudgeLine
    gate: Gate
    baselines: dict[str, Numbers]
    slices: dict[str, Numbers]
    artifacts: dict[str, Artifact]
    notes: list[str]


def measure(run: str, limits: Limits) -> tuple[Report, list[Row]]:
    """The report of a run and the headline rows of the tuned model. Raises Stop 65 for missing or stale verdicts."""
    record, folder = runs.read(run), project.reports(run)
    examples = {example.id: example for example in snapshots.read(record.snapshots["test"])}
    judge_runs = grading.judge_runs(folder)
    sha256 = record.snapshots["test"].sha256
    answers, judge_run, judged = grading.read_judged(folder, TUNED, examples, judge_runs, sha256)
    headline = _headline(answers)
    if not headline:
        raise Stop(f"{folder}/predictions.jsonl answers no test row outside the slices. Run fab eval.generate.", DATA)
    others, notes = _others(folder, examples, judge_runs, sha256)
    for name, other in others.items():
        if {row.example.id for row in other} != {row.example.id for row in answers}:
            notes.append(f"{name} answered other rows than the tuned model: their numbers cannot be compared")
    total = numbers(headline)
    report = Report(
        run=run,
        workload=record.workload,
        snapshot=record.snapshot,
        **total.model_dump(),
        per_slot=per_slot(headline),
        latency_ms=_latency(headline),
        tokens=_tokens(headline),
        judge=JudgeLine(
            model=judge_run.model,
            label=judge_run.label,
            prompt_sha256=judge_run.prompt_sha256,
            **judged.model_dump(include={"calls", "cached", "errors", "cost_usd"}),
        ),
        gate=gate.decide(
            total.n, total.json_validity, sum(_passed(headline)), total.slots_scored, total.errors, limits
        ),
        baselines={
            key: numbers(_headline(others[name])) for name, key in BASELINES.items() if _headline(others.get(name, []))
        },
        slices=slices(answers),
        artifacts=_artifacts(folder, {k: v for k, v in others.items() if k not in BASELINES}),
        notes=notes,
    )
    return report, headline


def numbers(rows: list[Row]) -> Numbers:
    n = len(rows)
    passed, scored = sum(_passed(rows)), sum(v.status == "scored" for row in rows for v in row.verdicts)
    perfect = [known for row in rows if (known := is_perfect(row)) is not None]
    valid = sum(row.prediction.valid_json for row in rows)
    rates: dict[str, tuple[float, int]] = {"json_validity": (valid / n, n)}
    # the slots of one answer rise and fall together, so the interval is that of n answers, not of n slots
    if scored:
        rates["slot_accuracy"] = (passed / scored, n)
    if perfect:
        rates["perfect_records"] = (sum(perfect) / len(perfect), len(perfect))
    return Numbers(
        n=n,
        json_validity=valid / n,
        schema_validity=sum(row.prediction.valid_schema for row in rows) / n,
        repaired=sum(row.prediction.repaired for row in rows) / n,
        slot_accuracy=passed / scored if scored else None,
        slots_scored=scored,
        perfect_records=sum(perfect) / len(perfect) if perfect else None,
        errors=sum(v.status == "error" for row in rows for v in row.verdicts),
        ci95={name: list(wilson(rate, count)) for name, (rate, count) in rates.items()},
    )


def is_perfect(row: Row) -> bool | None:
    """Whether every slot passed; None when only an error stands between the answer and perfection."""
    if not row.prediction.valid_schema or any(verdict.passed is False for verdict in row.verdicts):
        return False
    return None if any(verdict.status == "error" for verdict in row.verdicts) else True


def per_slot(rows: list[Row]) -> dict[str, SlotRate]:
    """By slot path, list indexes left out: items[0].price counts in items[].price."""
    passed: Counter[str] = Counter()
    scored: Counter[str] = Counter()
    for row in rows:
        for verdict in row.verdicts:
            path = slot_path(verdict.slot)
            scored[path] += verdict.status == "scored"
            passed[path] += verdict.passed is True
    return {path: _slot_rate(passed[path], scored[path]) for path in scored}


def slot_path(slot: str) -> str:
    return re.sub(r"\[\d+\]", "[]", slot)


def slices(rows: list[Row]) -> dict[str, Numbers]:
    """Headline rows as a whole, by task and by tenant, then every slice of its own."""
    grouped: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if own := _slice(row):
            grouped[own].append(row)
            continue
        grouped[UNSEEN].append(row)
        grouped[f"task={row.example.task}"].append(row)
        if tenant := row.example.metadata.get("tenant"):
            grouped[f"tenant={tenant}"].append(row)
    order = sorted(grouped, key=lambda name: (name != UNSEEN, "=" in name, name))
    return {name: numbers(grouped[name]) for name in order}


def _others(
    folder: Path, examples: dict[str, Example], judge_runs: list[JudgeRun], snapshot_sha256: str
) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of every other judged model, and a note for each whose verdicts are stale."""
    found, notes = {}, []
    names = {name for judge_run in judge_runs for name in judge_run.judged}
    for name in sorted(names - {TUNED}):
        if name.split(".")[0] in snapshots.SPLITS:
            continue
        try:
            found[name] = grading.read_judged(folder, name, examples, judge_runs, snapshot_sha256)[0]
        except Stop as stop:
            notes.append(f"{name} is left out: {stop}")
    return found, notes


def _artifacts(folder: Path, judged: dict[str, list[Row]]) -> dict[str, Artifact]:
    path = folder / "parity.json"
    measured: dict[str, dict[str, Any]] = {}
    if path.is_file():
        try:
            measured = dict(json.loads(path.read_text(encoding="utf-8"))["artifacts"])
        except (ValueError, KeyError, TypeError):
            raise Stop(f"{path}: want an object with 'artifacts'. Run fab package.parity again.", DATA) from None
    return {
        name: Artifact(
            numbers=numbers(_headline(judged[name])) if _headline(judged.get(name, [])) else None,
            parity={k: v for k, v in measured[name].items() if k != "divergences"} if name in measured else None,
        )
        for name in sorted({*judged, *measured})
    }


def _latency(rows: list[Row]) -> dict[Literal["p50", "p95"], float]:
    measured = [row.prediction.latency_ms for row in rows]
    return {"p50": quantile(measured, 0.5), "p95": quantile(measured, 0.95)}


def _tokens(rows: list[Row]) -> dict[Literal["prompt_p50", "completion_p50", "total"], float]:
    prompts = [float(row.prediction.prompt_tokens) for row in rows]
    completions = [float(row.prediction.completion_tokens) for row in rows]
    return {
        "prompt_p50": quantile(prompts, 0.5),
        "completion_p50": quantile(completions, 0.5),
        "total": sum(prompts) + sum(completions),
    }


def _slot_rate(passed: int, n: int) -> SlotRate:
    if not n:
        return SlotRate(n=0, pass_rate=None, ci95=None)
    return SlotRate(n=n, pass_rate=passed / n, ci95=list(wilson(passed / n, n)))


def _passed(rows: Iterable[Row]) -> Iterable[bool]:
    return (verdict.passed is True for row in rows for verdict in row.verdicts)


def _headline(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not _slice(row)]


def _slice(row: Row) -> str | None:
    own = row.example.metadata.get("slice")
    return str(own) if own else None
