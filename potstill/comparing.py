"""Two sets of answers to the same test rows, paired row by row: what differs, how surely, and on which rows.

Headline numbers are over rows of no slice, as in the report. potstill/paired.py has the statistics.
"""

from typing import Annotated, NamedTuple

from pydantic import Field

from potstill import grading, metrics, paired, project, runs, snapshots
from potstill.grading import Judged, JudgeRun, Row
from potstill.intervals import DRAWS, FEW_GROUPS, SEED
from potstill.paired import Difference, McNemar, Tally
from potstill.records import Record, Verdict
from potstill.runs import RunRecord
from potstill.speed import Speed
from potstill.stop import DATA, Stop

BACKENDS = (grading.TUNED, *metrics.BASELINES)
KINDS = ("critical_slots", "other_slots")
HEADLINE = ("slot_accuracy", "perfect_records", "json_validity", "schema_validity")


class Side(Record):
    """`answers` is `merged`, `base`, `null` or the name of an artifact."""

    run: str
    answers: str
    predictions_sha256: str
    judge: str


class Comparison(Record):
    """reports/<run>/compare_<a>_<b>.json. `won` and `lost` are ids, headline rows only, from the view of a."""

    a: Side
    b: Side
    workload: str
    snapshot: str
    n: int
    groups: int
    headline: dict[str, Difference]
    mcnemar: McNemar
    per_slot: dict[str, Difference]
    parts: dict[str, Difference]
    won: list[str]
    lost: list[str]
    tied: int
    errors: int
    draws: int
    seed: int
    # the smallest true difference that rows like these show 4 times of 5, in shares
    detectable: dict[str, float | None]
    # with eval.compare --samples: "a" and "b"
    speed: Annotated[dict[str, Speed], Field(default_factory=dict)]
    # USD per 1,000 answers of each side that has been timed, or is the priced strong model's own (configs/gate.yaml)
    cost: Annotated[dict[str, float], Field(default_factory=dict)]
    notes: list[str]


class Answers(NamedTuple):
    """One side with its verdicts."""

    record: RunRecord
    name: str
    rows: list[Row]
    judge_run: JudgeRun
    judged: Judged


class Pair(NamedTuple):
    """Both sides' answers to one row, and the verdicts that neither side has an error in."""

    a: Row
    b: Row
    slots_a: list[Verdict]
    slots_b: list[Verdict]


def read(run: str, name: str) -> Answers:
    """Raises Stop 65 when the answers `name` of the run are missing, not judged, or changed since."""
    record, folder = runs.read(run), project.reports(run)
    if name.split(".")[0] in snapshots.SPLITS:
        raise Stop(f"{run}:{name} answers another split. Compared are answers to the test rows.")
    if not (folder / grading.file_of(name)).is_file():
        how = "package.parity" if name not in BACKENDS else f"eval.generate --backend {name}"
        mend = f"Run fab {how} -r {run}, then fab eval.judge -r {run}."
        raise Stop(f"{folder / grading.file_of(name)} is not there. {mend}", DATA)
    examples = {example.id: example for example in snapshots.read(record.snapshots["test"])}
    found = grading.read_judged(folder, name, examples, grading.judge_runs(folder), record.snapshots["test"].sha256)
    return Answers(record, name, *found)


def compare(a: Answers, b: Answers, group: str, draws: int = DRAWS, seed: int = SEED) -> Comparison:
    """Compares what both answered. `group` is the metadata key by which rows hang together.

    Raises Stop 65 when the two cannot be compared: other test rows, other slots, other judges, no row in common.
    """
    refuse_unlike(a, b)
    both = pairs(a.rows, b.rows)
    headline = [pair for pair in both if not _slice(pair)]
    if not headline:
        told = f"{title(a)} and {title(b)} answer no test row outside the slices in common"
        raise Stop(f"{told}. Run fab eval.generate for both.", DATA)
    clusters = {pair.a.example.id: metrics.cluster_of(pair.a, group) for pair in both}
    found: dict[str, Difference] = {}
    # each slice is drawn apart: its rows are no sample of the same groups
    for part in dict.fromkeys(_slice(pair) for pair in both):
        rows = [pair for pair in both if _slice(pair) == part]
        own = {pair.a.example.id: clusters[pair.a.example.id] for pair in rows}
        found |= paired.differences(tallies_of(rows), own, draws, seed)
    better = {pair.a.example.id: _better(pair) for pair in headline}
    groups = len({clusters[id] for id in better})
    return Comparison(
        a=_side(a),
        b=_side(b),
        workload=a.record.workload,
        snapshot=a.record.snapshot,
        n=len(headline),
        groups=groups,
        headline={name: found[name] for name in HEADLINE},
        mcnemar=paired.mcnemar(tallies_of(headline)["perfect_records"].values()),
        per_slot={name.removeprefix("slot "): found[name] for name in found if name.startswith("slot ")},
        parts={name.removeprefix("part "): found[name] for name in found if name.startswith("part ")},
        won=[id for id, sign in better.items() if sign > 0],
        lost=[id for id, sign in better.items() if sign < 0],
        tied=sum(sign == 0 for sign in better.values()),
        errors=sum(_errors(pair) for pair in headline),
        draws=draws,
        seed=seed,
        detectable={name: paired.detectable(found[name]) for name in HEADLINE},
        speed={},
        cost={},
        notes=_notes(a, b, both, groups),
    )


def title(side: Answers) -> str:
    """As the command line names it."""
    return side.record.run if side.name == grading.TUNED else f"{side.record.run}:{side.name}"


def refuse_unlike(a: Answers, b: Answers) -> None:
    first, second = (side.record.snapshots["test"] for side in (a, b))
    if first.sha256 != second.sha256:
        raise Stop(
            f"{title(a)} is graded on {first.file} and {title(b)} on {second.file}: their test rows differ. "
            f"Prepare and train both on one snapshot: fab train.prepare -w {a.record.workload}.",
            DATA,
        )
    levels_a, levels_b = (_levels(side.rows) for side in (a, b))
    for path in sorted(levels_a.keys() & levels_b.keys()):
        if levels_a[path] != levels_b[path]:
            raise Stop(
                f"slot {path[1]!r} of task {path[0]} is scored by {levels_a[path]} in {a.judged.verdicts} ({title(a)}) "
                f"and by {levels_b[path]} in {b.judged.verdicts} ({title(b)}). Run fab eval.judge for both.",
                DATA,
            )
    asked = [any(v.judge != grading.RULE for row in side.rows for v in row.verdicts) for side in (a, b)]
    how = [(side.judge_run.model, side.judge_run.prompt_sha256) for side in (a, b)]
    if any(asked) and how[0] != how[1]:
        models = " and ".join(f"{title(side)} by {side.judge_run.model}" for side in (a, b))
        raise Stop(
            f"free text was judged otherwise: {models}, or by another prompt. Run fab eval.judge for both.", DATA
        )


def _levels(rows: list[Row]) -> dict[tuple[str, str], str]:
    return {(v.task, metrics.slot_path(v.slot)): v.level for row in rows for v in row.verdicts}


def pairs(a: list[Row], b: list[Row]) -> list[Pair]:
    """The rows that both answered, in the order of a. A verdict counts only when the other side's is no error."""
    other = {row.example.id: row for row in b}
    found = []
    for row in a:
        if (against := other.get(row.example.id)) is not None:
            failed = {v.slot for side in (row, against) for v in side.verdicts if v.status == "error"}
            scored = [[v for v in side.verdicts if v.slot not in failed] for side in (row, against)]
            found.append(Pair(row, against, *scored))
    return found


def tallies_of(rows: list[Pair]) -> dict[str, dict[str, Tally]]:
    """Number -> row id -> what the row adds to it. Rows of a slice count in that slice's accuracy only."""
    found: dict[str, dict[str, Tally]] = {name: {} for name in (() if _slice(rows[0]) else HEADLINE)}
    for pair in rows:
        for name, tally in _tallies(pair).items():
            found.setdefault(name, {})[pair.a.example.id] = tally
    return found


def _slice(pair: Pair) -> str | None:
    own = pair.a.example.metadata.get("slice")
    return str(own) if own else None


def _tallies(pair: Pair) -> dict[str, Tally]:
    own = _slice(pair)
    all_slots = _slots(pair.slots_a, pair.slots_b)
    if own:
        return {f"part {own}": all_slots}
    a, b = pair.a, pair.b
    found = {
        "slot_accuracy": all_slots,
        "json_validity": (a.prediction.valid_json, 1, b.prediction.valid_json, 1),
        "schema_validity": (a.prediction.valid_schema, 1, b.prediction.valid_schema, 1),
        f"part task={a.example.task}": all_slots,
    }
    perfect = metrics.is_perfect(a), metrics.is_perfect(b)
    if None not in perfect:
        found["perfect_records"] = (bool(perfect[0]), 1, bool(perfect[1]), 1)
    by_path: dict[str, Tally] = {}
    for path in dict.fromkeys(metrics.slot_path(v.slot) for v in [*pair.slots_a, *pair.slots_b]):
        sides = [[v for v in side if metrics.slot_path(v.slot) == path] for side in (pair.slots_a, pair.slots_b)]
        by_path[path] = _slots(*sides)
    for kind, critical in zip(KINDS, (True, False), strict=True):
        of_kind = [tally for path, tally in by_path.items() if metrics.is_critical(a.example, path) == critical]
        if of_kind:
            pa, na, pb, nb = (sum(column) for column in zip(*of_kind, strict=True))
            found[kind] = (pa, na, pb, nb)
    return found | {f"slot {path}": tally for path, tally in by_path.items()}


def _slots(a: list[Verdict], b: list[Verdict]) -> Tally:
    return sum(v.passed is True for v in a), len(a), sum(v.passed is True for v in b), len(b)


def _better(pair: Pair) -> int:
    """1 where a passes a larger share of its slots, -1 where b does."""
    passed_a, n_a, passed_b, n_b = _slots(pair.slots_a, pair.slots_b)
    left, right = passed_a * n_b, passed_b * n_a
    return (left > right) - (left < right)


def _errors(pair: Pair) -> int:
    return len({v.slot for side in (pair.a, pair.b) for v in side.verdicts if v.status == "error"})


def _side(side: Answers) -> Side:
    return Side(
        run=side.record.run,
        answers=side.name,
        predictions_sha256=side.judged.predictions_sha256,
        judge=side.judge_run.label,
    )


def _notes(a: Answers, b: Answers, both: list[Pair], groups: int) -> list[str]:
    notes = []
    for side in (a, b):
        if extra := len(side.rows) - len(both):
            notes.append(f"{extra} rows that only {title(side)} answers are left out")
    if groups < FEW_GROUPS:
        notes.append(f"the rows are of only {groups} groups: the intervals are too narrow to rely on")
    if errors := sum(_errors(pair) for pair in both):
        notes.append(f"{errors} slots that could not be scored on one side are left out on both")
    return notes
