"""Reads what a run has been graded on, and measures it: the Report, with the gate's verdict."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from potstill import breakdown, certificate, comparing, gate, grading, metrics, paired, project, runs, snapshots
from potstill import workload as workloads
from potstill.comparing import Answers
from potstill.eval_grounding import grounded
from potstill.gate import Against, Limits
from potstill.grading import TUNED, JudgeRun, Row
from potstill.intervals import FEW_GROUPS, quantile
from potstill.metrics import BASELINES, Artifact, JudgeLine, Report, slice_of
from potstill.records import Example
from potstill.runs import RunRecord
from potstill.stop import DATA, Stop


class Graded(NamedTuple):
    """A run's record, the tuned model's side, its headline rows, and the metadata key of the split's groups."""

    record: RunRecord
    side: Answers
    headline: list[Row]
    group: str


def measure(run: str, limits: Limits, baseline: Answers | None = None) -> tuple[Report, list[Row]]:
    """The report of a run and the headline rows of the tuned model. Raises Stop 65 for missing or stale verdicts.

    `baseline` is a side of an earlier run: slots on which the tuned model is worse are named, and held against it.
    """
    record, folder = runs.read(run), project.reports(run)
    examples = {example.id: example for example in snapshots.read(record.snapshots["test"])}
    judge_runs = grading.judge_runs(folder)
    sha256 = record.snapshots["test"].sha256
    side = Answers(record, TUNED, *grading.read_judged(folder, TUNED, examples, judge_runs, sha256))
    headline = headline_of(side.rows)
    if not headline:
        raise Stop(f"{folder}/predictions.jsonl answers no test row outside the slices. Run fab eval.generate.", DATA)
    graded = Graded(record, side, headline, workloads.load(record.workload).settings.split.group)
    others, notes = _others(folder, examples, judge_runs, sha256)
    for name, other in others.items():
        if {row.example.id for row in other} != {row.example.id for row in side.rows}:
            notes.append(f"{name} answered other rows than the tuned model: their numbers cannot be compared")
    return _report(graded, limits, baseline, others, notes), headline


def _report(
    graded: Graded, limits: Limits, baseline: Answers | None, others: dict[str, list[Row]], notes: list[str]
) -> Report:
    record, headline, group = graded.record, graded.headline, graded.group
    total = metrics.numbers(headline, group)
    judge, doubts = _judge(graded, limits)
    strong = None
    if limits.strong_model is not None:
        strong, missing = _strong(graded, limits.strong_model)
        doubts += missing
    against = _against(graded, baseline, comparing.title(baseline)) if baseline is not None else None
    artifacts = _artifacts(record.run, {k: v for k, v in others.items() if k not in BASELINES}, group)
    return Report(
        run=record.run,
        workload=record.workload,
        snapshot=record.snapshot,
        **total.model_dump(),
        grounded=_grounded(headline, record.workload),
        per_slot=metrics.per_slot(headline, group),
        latency_ms=_latency(headline),
        tokens=_tokens(headline),
        distributions=breakdown.distributions(headline),
        confusion=breakdown.confusion(headline),
        cost=breakdown.cost(headline, limits.prices, _rates(artifacts)) if limits.prices is not None else None,
        judge=judge,
        gate=gate.decide(
            metrics.tallies(headline), metrics.groups_of(headline, group), limits, strong, against, doubts
        ),
        baselines={
            key: metrics.numbers(rows, group)
            for name, key in BASELINES.items()
            if (rows := headline_of(others.get(name, [])))
        },
        slices=metrics.slices(graded.side.rows, group),
        artifacts=artifacts,
        notes=[*notes, *_grouping(total.n, total.groups)],
    )


def _grounded(rows: list[Row], workload: str) -> float | None:
    settings = workloads.load(workload).settings.grounding
    if settings is None:
        return None
    found = [grounded(row.example, row.prediction, settings.skip) for row in rows]
    values = sum(one.values for one in found)
    return sum(one.found for one in found) / values if values else None


def headline_of(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not slice_of(row)]


def _grouping(rows: int, groups: int) -> list[str]:
    """What the intervals are over, and what they are not."""
    if groups < FEW_GROUPS:
        told = f"The {rows} rows are of only {groups} groups, too few to draw from: intervals are Wilson's, over rows"
        return [f"{told}. They say how sure the numbers are for these groups, not for groups of other kinds."]
    return [f"Intervals are of a bootstrap over {groups} groups; Wilson's over rows where hardly any group differs."]


def _judge(graded: Graded, limits: Limits) -> tuple[JudgeLine, list[str]]:
    judge_run, judged, record = graded.side.judge_run, graded.side.judged, graded.record
    today = datetime.now(UTC).date()
    line, doubts = certificate.standing(graded.headline, judge_run, record.workload, record.base.name, limits, today)
    asked = certificate.judged_slots(graded.headline)
    void = _void(judge_run, project.reports(record.run)) if asked else None
    if void is not None:
        doubts = [f"a later run of the same judge is void: {void}", *doubts]
    return (
        JudgeLine(
            model=judge_run.model,
            label=judge_run.label,
            prompt_sha256=judge_run.prompt_sha256,
            **judged.model_dump(include={"calls", "cached", "errors", "cost_usd", "spread_max"}),
            canaries=judge_run.canaries,
            repeats=judge_run.repeats,
            void=void,
            certificate=line,
            judged_slots=asked,
        ),
        doubts,
    )


def _void(used: JudgeRun, folder: Path) -> str | None:
    """Why the judge cannot be believed: it passed a planted wrong answer in a later run than the one that is used.

    A void run's own verdicts are never read, but the same judge, asked the same way, wrote the earlier ones.
    """
    for found in grading.judge_runs(folder, unusable=True):
        same = (found.model, found.prompt_sha256) == (used.model, used.prompt_sha256)
        if found.void is not None and same and found.created_at >= used.created_at:
            return found.void
    return None


def _strong(graded: Graded, name: str) -> tuple[Against | None, list[str]]:
    """The strong model's own answers to the same rows, or why they cannot be compared with."""
    path = project.reports(graded.record.run) / grading.file_of(name)
    if not path.is_file():
        told = f"strong_model in configs/gate.yaml is {name!r}, and {path} is not there"
        return None, [f"{told}. Write it with fab eval.generate, then run fab eval.judge -r {graded.record.run}."]
    try:
        return _against(graded, comparing.read(graded.record.run, name), name), []
    except Stop as stop:
        return None, [f"the tuned model cannot be compared with {name}: {stop}"]


def _against(graded: Graded, other: Answers, name: str) -> Against:
    """What a gate asks of two sides: the headline rows' critical slots, the others, and every slot, tuned - other.

    Raises Stop 65 when the two cannot be compared.
    """
    comparing.refuse_unlike(graded.side, other)
    rows = [pair for pair in comparing.pairs(graded.side.rows, other.rows) if not slice_of(pair.a)]
    if not rows:
        told = f"{comparing.title(graded.side)} and {name} answer no test row outside the slices in common"
        raise Stop(f"{told}. Run fab eval.generate for both.", DATA)
    clusters = {pair.a.example.id: metrics.cluster_of(pair.a, graded.group) for pair in rows}
    tallies = comparing.tallies_of(rows)
    tallies = {key: tallies[key] for key in tallies if key in comparing.KINDS or key.startswith("slot ")}
    found = paired.differences(tallies, clusters)
    guarded = {key: paired.guarded(found[key], tallies[key], clusters) for key in tallies}
    critical = frozenset(path for pair in rows for path in metrics.critical_paths(pair.a))
    return Against(name, len(rows), guarded, critical)


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


def _artifacts(run: str, judged: dict[str, list[Row]], group: str) -> dict[str, Artifact]:
    path = project.reports(run) / "parity.json"
    measured: dict[str, dict[str, Any]] = {}
    if path.is_file():
        try:
            measured = dict(json.loads(path.read_text(encoding="utf-8"))["artifacts"])
        except (ValueError, KeyError, TypeError):
            raise Stop(f"{path}: want an object with 'artifacts'. Run fab package.parity again.", DATA) from None
    found = {}
    for name in sorted({*judged, *measured}):
        rows = headline_of(judged.get(name, []))
        parity = {k: v for k, v in measured[name].items() if k != "divergences"} if name in measured else None
        found[name] = Artifact(numbers=metrics.numbers(rows, group) if rows else None, parity=parity)
    return found


def _rates(artifacts: dict[str, Artifact]) -> dict[str, float]:
    """Answers per second of each artifact that package.parity has measured."""
    return {
        name: artifact.parity["answers_per_s"]
        for name, artifact in artifacts.items()
        if artifact.parity and artifact.parity.get("answers_per_s")
    }


def _latency(rows: list[Row]) -> dict[Any, float]:
    measured = [row.prediction.latency_ms for row in rows]
    return {"p50": quantile(measured, 0.5), "p95": quantile(measured, 0.95)}


def _tokens(rows: list[Row]) -> dict[Any, float]:
    prompts = [float(row.prediction.prompt_tokens) for row in rows]
    completions = [float(row.prediction.completion_tokens) for row in rows]
    return {
        "prompt_p50": quantile(prompts, 0.5),
        "completion_p50": quantile(completions, 0.5),
        "total": sum(prompts) + sum(completions),
    }
