"""Scores every slot of every answer: by rule where a rule decides, by the judge model where free text differs.

Run: python -m scripts.eval.judge -r <run> [--predictions merged|base|null|gguf-q8_0] [--partial] [-o model=...]
Without --predictions, every answer file of the test split in reports/<run>/ is judged.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from potstill import (
    cli,
    config,
    credentials,
    fences,
    grading,
    judge,
    progress,
    project,
    runs,
    slots,
    snapshots,
    workload,
)
from potstill.files import canonical_json, sha256_file, sha256_text, stage_lock, write_json
from potstill.grading import TUNED, Grade, Judged, JudgeRun
from potstill.judge import JudgeConfig
from potstill.ledger import Ledger
from potstill.records import write_jsonl
from potstill.runs import RunRecord
from potstill.stop import DATA, Stop

CACHE = project.REPORTS / "judge_cache.sqlite"
PROMPT = project.CONFIGS / "judge_prompt.txt"
LEASE_S = 3600


class Sheet(NamedTuple):
    """One predictions file, graded as far as rules go."""

    name: str
    path: Path
    rows: int
    grades: list[Grade]


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, run=True, config="judge")
    parser.add_argument("--predictions", action="append", metavar="NAME", help="merged, base, val ...; repeatable")
    parser.add_argument("--partial", action="store_true", help="take answers to some of the rows")
    arguments = parser.parse_args(argv)
    credentials.drop_ssh_agent()
    credentials.read_env(Path(".env"))
    record = runs.read(project.find_run(cli.workload_name(arguments), arguments.run))
    folder = project.reports(record.run)
    settings = config.load(project.CONFIGS / f"{arguments.config}.yaml", JudgeConfig, arguments.override)
    template = read_template()
    levels = slots.load_levels(project.CONFIGS / "judge_slots.yaml")
    with stage_lock(folder, "eval.judge"):
        names = arguments.predictions or present(folder)
        own = workload.load(record.workload).levels
        sheets = [read_sheet(record, folder, name, (levels, own), arguments.partial) for name in names]
        results = judge_texts(folder, settings, template, sheets)
        written = write_run(record, folder, settings, template, sheets, results)
    show(written)
    cli.done([folder / item.verdicts for item in written.judged.values()], f"fab eval.report -r {record.run}")


def read_template() -> str:
    if not PROMPT.is_file():
        raise Stop(f"{PROMPT} is not there. Restore it from the repository.")
    return fences.check_template(PROMPT.read_text(encoding="utf-8"), str(PROMPT))


def split_of(name: str) -> str:
    """`val` and `val.base` are answers to the split val."""
    first = name.split(".")[0]
    return first if first in snapshots.SPLITS else "test"


def present(folder: Path) -> list[str]:
    """The names of the answer files of the test split, the tuned model first."""
    found = [path.name.removeprefix("predictions").removesuffix(".jsonl") for path in folder.glob("predictions*.jsonl")]
    names = sorted(name.removeprefix(".") or TUNED for name in found)
    names = [name for name in names if split_of(name) == "test"]
    if not names:
        raise Stop(f"{folder} has no predictions.jsonl. Run fab eval.generate.", DATA)
    return sorted(names, key=lambda name: name != TUNED)


def read_sheet(
    record: RunRecord, folder: Path, name: str, levels: tuple[dict[str, float], slots.OwnLevels], partial: bool
) -> Sheet:
    path = folder / grading.file_of(name)
    examples = list(snapshots.read(record.snapshots[split_of(name)]))
    by_id = {example.id: example for example in examples}
    predictions = grading.read_predictions(path, examples, partial)
    grades = [grade for row in predictions for grade in grading.grade(by_id[row.id], row, *levels)]
    return Sheet(name, path, len(predictions), grades)


def judge_texts(folder: Path, settings: JudgeConfig, template: str, sheets: list[Sheet]) -> dict[str, dict[str, Any]]:
    """The judge's result for every open question: {"score", "reason", "cached", "calls", "cost_usd"} by key."""
    items = [(key(sheet, g), g.question._asdict()) for sheet in sheets for g in sheet.grades if g.question]
    if not items:
        return {}
    fingerprint = sha256_text(canonical_json([settings.model_dump(), template, items]))
    # named for its inputs: a run on other inputs starts afresh, and what was paid for is in the cache
    path = folder / f".judge-{fingerprint[:16]}.ledger"
    with Ledger(path, fingerprint, alone=True) as ledger:
        ledger.add(items)
        for _ in progress.track(work(ledger, settings, template), "judge", ledger.counts()["todo"]):
            pass
        results = dict(ledger.results())
    for leftover in folder.glob(".judge-*.ledger*"):
        leftover.unlink()
    return results


def work(ledger: Ledger, settings: JudgeConfig, template: str) -> Iterator[None]:
    """Yields once per question answered."""
    cache = judge.Cache(CACHE)
    spent = sum(result["cost_usd"] for _, result in ledger.results())
    try:
        while items := ledger.claim(16 * settings.concurrency, LEASE_S):
            free = []
            questions = [fences.Question(**item.payload) for item in items]
            for index, reply in judge.rule_on(settings, template, cache, questions, spent):
                result = (items[index].key, as_result(reply))
                spent += reply.cost_usd
                # what a call answered is recorded before the next one ends; what was free is worth one transaction
                if reply.calls:
                    ledger.finish(*result)
                else:
                    free.append(result)
                yield
            ledger.finish_many(free)
    finally:
        cache.close()


def as_result(reply: judge.Reply) -> dict[str, Any]:
    ruling = reply.ruling
    told = {"score": ruling.score, "reason": ruling.reason} if ruling else {"score": None, "reason": reply.error}
    return {**told, "cached": reply.cached, "calls": reply.calls, "cost_usd": reply.cost_usd}


def key(sheet: Sheet, grade: Grade) -> str:
    return canonical_json([sheet.name, grade.example.id, grade.slot])


def write_run(
    record: RunRecord,
    folder: Path,
    settings: JudgeConfig,
    template: str,
    sheets: list[Sheet],
    results: dict[str, dict[str, Any]],
) -> JudgeRun:
    started = datetime.now(UTC)
    # to the millisecond: two runs in one second keep their own files
    stem = f"judge_run_{started:%Y%m%dT%H%M%S}-{started.microsecond // 1000:03}"
    judged = {}
    for sheet in sheets:
        verdicts = folder / (f"{stem}.jsonl" if sheet.name == TUNED else f"{stem}.{sheet.name}.jsonl")
        own = [(grade, results.get(key(sheet, grade)) if grade.question else None) for grade in sheet.grades]
        rows = [grading.verdict(grade, result, settings.model) for grade, result in own]
        write_jsonl(verdicts, rows)
        asked = [result for _, result in own if result]
        judged[sheet.name] = Judged(
            predictions=sheet.path.name,
            predictions_sha256=sha256_file(sheet.path),
            verdicts=verdicts.name,
            rows=sheet.rows,
            calls=sum(result["calls"] for result in asked),
            cached=sum(result["cached"] for result in asked),
            errors=sum(row.status == "error" for row in rows),
            cost_usd=sum(result["cost_usd"] for result in asked),
        )
    written = JudgeRun(
        run=record.run,
        created_at=started.isoformat(timespec="seconds"),
        model=settings.model,
        label=judge.label(settings.model),
        prompt_sha256=sha256_text(template),
        snapshots={split: record.snapshots[split].sha256 for split in {split_of(sheet.name) for sheet in sheets}},
        judged=judged,
    )
    write_json(folder / f"{stem}.json", written.model_dump())
    return written


def show(written: JudgeRun) -> None:
    for name, item in written.judged.items():
        print(
            f"{name}: {item.rows} answers, {item.calls} calls to {written.label}, {item.cached} from the cache, "
            f"{item.errors} errors, {item.cost_usd:.4f} USD"
        )


if __name__ == "__main__":
    cli.run(main)
