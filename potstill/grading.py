"""From answers to verdicts: what a rule decides is decided here; free text that differs is left for the judge.

An answer that is no valid JSON, or breaks the schema, is worth nothing to whoever wanted the object: all its slots
score 0. A reference that cannot be scored is an error, whatever the answer.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from potstill import alignment, config, slots
from potstill.fences import Question
from potstill.files import sha256_file
from potstill.leaves import ABSENT, pairs, place
from potstill.records import Example, Prediction, Record, SlotSpec, Verdict, parse_row, read_jsonl
from potstill.slots import Options, OwnLevels, Score
from potstill.stop import DATA, Stop
from potstill.values import is_writable

RULE = "rule"
TUNED = "merged"
MEND = "Run fab eval.generate and fab eval.judge again."


class Grade(NamedTuple):
    """One slot of one answer. `question` is what the judge must be asked when no rule decides; else it is None."""

    example: Example
    slot: str
    spec: SlotSpec
    threshold: float
    reference: Any
    candidate: Any
    decided: Score | None
    question: Question | None


class Row(NamedTuple):
    """One answer with all its verdicts."""

    example: Example
    prediction: Prediction
    verdicts: list[Verdict]


class Judged(Record):
    """One predictions file of a judge run, and what judging it took."""

    predictions: str
    predictions_sha256: str
    verdicts: str
    rows: int
    calls: int
    cached: int
    errors: int
    cost_usd: float
    # with repeats, how far the scores of one question were apart at most
    spread_max: float | None = None


class JudgeRun(Record):
    """reports/<run>/judge_run_<timestamp>.json: written last, so its existence means that its verdicts are whole.

    `void` says why no verdict of the run may be used: a canary passed. `incomplete` says why questions were left out:
    a cost cap. Both are None in a run that may be used.
    """

    run: str
    created_at: str
    model: str
    label: str
    prompt_sha256: str
    snapshots: dict[str, str]
    judged: dict[str, Judged]
    void: str | None = None
    incomplete: str | None = None
    # planted answers asked in this run, or answered from the cache
    canaries: int = 0
    repeats: int = 1
    transcripts: str | None = None


def file_of(name: str) -> str:
    """The answers `name` in the folder of a run's reports."""
    return "predictions.jsonl" if name == TUNED else f"predictions.{name}.jsonl"


def read_predictions(path: Path, examples: list[Example], partial: bool = False) -> list[Prediction]:
    """The predictions in the snapshot's order. Raises Stop 65, naming the first id that does not match.

    `partial` takes answers to some of the rows, as eval.generate --limit makes them.
    """
    found: dict[str, Prediction] = {}
    known = {example.id for example in examples}
    for row in read_jsonl(path, Prediction, MEND):
        if row.id not in known or row.id in found:
            what = "is there twice" if row.id in found else "is not in the run's snapshot"
            raise Stop(f"{path}: id {row.id!r} {what}. {MEND}", DATA)
        found[row.id] = row
    missing = next((example.id for example in examples if example.id not in found), None)
    if missing is not None and not partial:
        raise Stop(
            f"{path}: no answer to id {missing!r}, {len(found)} of {len(examples)} rows are there. "
            "Run fab eval.generate without --limit, or judge these alone with --partial.",
            DATA,
        )
    return [found[example.id] for example in examples if example.id in found]


def grade(example: Example, prediction: Prediction, levels: dict[str, float], own: OwnLevels) -> list[Grade]:
    """Grades every slot of one answer, in the order of the example's slots. `own`: the workload's own levels."""
    try:
        reference = json.loads(example.response)
    except (ValueError, RecursionError):
        raise Stop(f"id {example.id!r}: the reference is not JSON. Run fab dataset.clean.", DATA) from None
    unusable = why_unusable(prediction)
    grades = []
    candidate = ABSENT if unusable else prediction.parsed
    match = alignment.of_row(example, own) if any(spec.align for spec in example.slots.values()) else None
    for name, spec in example.slots.items():
        threshold, options = threshold_of(example, name, spec, levels, own), slots.options_of(example, name)
        for at, want, found in pairs(reference, candidate, place(name, spec), match(name) if match else None):
            if spec.path is not None:
                at = f"{name}{at[at.index('[') :]}" if "[" in at else name
            decided: Score | None
            question: Question | None = None
            if spec.level in own:
                decided = slots.by_own_rule(own[spec.level], want, found, unusable, example.prompt, threshold)
            else:
                decided, question = decide(at, spec, threshold, want, found, unusable, options)
            grades.append(Grade(example, at, spec, threshold, want, found, decided, question))
    return grades


def decide(
    at: str, spec: SlotSpec, threshold: float, want: Any, found: Any, unusable: str | None, options: Options
) -> tuple[Score | None, Question | None]:
    """(the score, None) when a rule decides, else (None, the question)."""
    # a reference that cannot be scored against itself is the error, not the answer; a rule that sees two values says so
    if unusable or found is None or found is ABSENT or options.nulls:
        itself = slots.score_with(spec.level, want, want, options, threshold)
        if itself.status == "error":
            return itself, None
    if unusable:
        return Score(0.0, False, "scored", unusable), None
    if spec.level == "llm_similarity":
        sides = [slots.without_blanks(side, options.nulls) if options.nulls else side for side in (want, found)]
        if slots.by_rule(spec.level, *sides) is None:
            return None, Question(at, slots.text(want), slots.text(found))
    return slots.score_with(spec.level, want, found, options, threshold), None


def why_unusable(prediction: Prediction) -> str | None:
    if not prediction.valid_json:
        return "no valid JSON"
    if not prediction.valid_schema:
        return "valid JSON that breaks the schema"
    return None if is_writable(prediction.parsed) else "JSON that no file can hold"


def threshold_of(example: Example, path: str, spec: SlotSpec, levels: dict[str, float], own: OwnLevels) -> float:
    known = [*levels, *own]
    if spec.level not in known:
        raise Stop(
            f"id {example.id!r}: slot {path!r} has the level {spec.level!r}.{config.nearest(spec.level, known)} "
            f"Known: {', '.join(known)}.",
            DATA,
        )
    # a workload's own level is a check that holds or does not, unless the slot says otherwise
    return spec.threshold if spec.threshold is not None else levels.get(spec.level, 1.0)


def verdict(grade: Grade, result: dict[str, Any] | None, model: str) -> Verdict:
    """The verdict row: the rule's score, or `result` of the judge: {"score", "reason", "cached", "cost_usd"}."""
    final = grade.decided
    if final is None:
        if result is None:
            raise ValueError(f"{grade.example.id} {grade.slot} was not judged")
        given = result["score"]
        final = slots.error(result["reason"])
        if given is not None:
            final = slots.at_threshold(Score(given, False, "scored", result["reason"]), grade.threshold)
    return Verdict(
        id=grade.example.id,
        task=grade.example.task,
        slot=grade.slot,
        level=grade.spec.level,
        reference=None if grade.reference is ABSENT else grade.reference,
        candidate=None if grade.candidate is ABSENT else grade.candidate,
        **final._asdict(),
        judge=RULE if grade.decided else model,
        cached=bool(result and result["cached"]),
        cost_usd=result["cost_usd"] if result else 0.0,
    )


def judge_runs(folder: Path, unusable: bool = False) -> list[JudgeRun]:
    """Every judge run of a report folder, the newest first; void and incomplete ones only where `unusable` is given."""
    paths = sorted(folder.glob("judge_run_*.json"), reverse=True)
    found = [parse_row(path.read_text(encoding="utf-8"), JudgeRun, str(path), MEND) for path in paths]
    return [run for run in found if unusable or (run.void is None and run.incomplete is None)]


def read_judged(
    folder: Path, name: str, examples: dict[str, Example], usable: list[JudgeRun], snapshot_sha256: str
) -> tuple[list[Row], JudgeRun, Judged]:
    """The newest verdicts on the answers `name`, by answer. Raises Stop 65 when there are none, or they are stale."""
    mend = f"Run fab eval.judge -r {folder.name}."
    judge_run = next((found for found in usable if name in found.judged), None)
    if judge_run is None:
        every = judge_runs(folder, unusable=True)
        told = next((run.void or run.incomplete for run in every if name in run.judged), None)
        why = f"have no judge run that can be used: {told}" if told else "are not judged yet"
        raise Stop(f"{folder}: the answers of {name} {why}. {mend}", DATA)
    judged = judge_run.judged[name]
    path = folder / judged.predictions
    if not path.is_file():
        raise Stop(f"{path} is not there. Run fab eval.generate.", DATA)
    if sha256_file(path) != judged.predictions_sha256 or judge_run.snapshots.get("test") != snapshot_sha256:
        raise Stop(f"{path}: the answers or the snapshot changed since {judged.verdicts} was written. {mend}", DATA)
    verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
    for verdict in read_jsonl(folder / judged.verdicts, Verdict, mend):
        verdicts[verdict.id].append(verdict)
    predictions = read_predictions(path, list(examples.values()), partial=True)
    rows = [Row(examples[prediction.id], prediction, verdicts[prediction.id]) for prediction in predictions]
    lacking = next((row.example.id for row in rows if row.example.slots and not row.verdicts), None)
    if lacking is not None or not verdicts.keys() <= {row.example.id for row in rows}:
        raise Stop(f"{folder / judged.verdicts}: its ids are not those of {path}. {mend}", DATA)
    return rows, judge_run, judged
