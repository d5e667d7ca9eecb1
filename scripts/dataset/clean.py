"""Cleans a workload's exemplars: reduces pages, checks and grounds answers, removes personal data and duplicates.

Run: python -m scripts.dataset.clean -w batfit        (or: fab dataset.clean -w batfit)
Every dropped row keeps its reason in rejected.jsonl: rows in = kept + rejected. The same rows give the same bytes.
"""

import base64
from collections.abc import Iterator
from pathlib import Path

from potstill import capture, cli, database, engine, near, pii, progress, project, tombstones, validation, workload
from potstill.files import atomic_open, stage_lock, write_text
from potstill.records import Example, Exemplar, Reject
from potstill.stop import DATA, Stop
from potstill.validation import Tally
from potstill.worker import Row
from potstill.workload import Workload


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__).parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    folder = project.processed(job.name)
    source = project.database()
    # a missing file is told here, once, and not by every worker
    _ = job.system_prompt
    if moved := capture.flush(source).written:
        print(f"{moved} captured calls are in {source} now")
    found = {task: n for task, n in database.task_counts(source).items() if task in job.settings.tasks}
    if not found:
        wanted = ", ".join(job.settings.tasks)
        raise Stop(f"{source} has no rows of {job.name} (task {wanted}). Run fab dataset.convert -w {job.name}.", DATA)
    with stage_lock(folder, "clean"):
        tally, conflicts = clean_to(job, source, folder, sum(found.values()))
    report = project.reports(job.name) / "dataset_validation.md"
    write_text(report, validation.report(job, found, tally, conflicts))
    print(f"{job.name}: {tally.kept.total()} kept, {tally.rejected.total()} rejected")
    cli.done([folder / "clean.jsonl", folder / "rejected.jsonl", report], f"fab dataset.split -w {job.name}")


def clean_to(job: Workload, source: Path, folder: Path, total: int) -> tuple[Tally, near.Conflicts]:
    """Streams the table into clean.jsonl and rejected.jsonl; each appears when all rows are through."""
    tally = Tally()
    settings = job.settings.near_duplicates
    seen = near.Deduplicator(settings.threshold if settings else None)
    with atomic_open(folder / "rejected.jsonl") as rejects, atomic_open(folder / "clean.jsonl") as examples:
        for result, signature in progress.track(cleaned(job, source), "clean", total):
            if isinstance(result, Example):
                result = seen.check(result, signature) or result
            (rejects if isinstance(result, Reject) else examples).write(result.model_dump_json() + "\n")
            tally.add(result)
    return tally, seen.conflicts


def cleaned(job: Workload, source: Path) -> Iterator[tuple[Example | Reject, bytes | None]]:
    """Every row of the table in id order, cleaned, with its near-duplicate signature."""
    settings = project.load_project()
    key = pii.load_key(project.PII_KEY) if job.settings.pii else b""
    gone = tombstones.load(job.name)

    def rows() -> Iterator[Row]:
        for row in database.read(source, job.settings.tasks):
            if isinstance(row, Exemplar) and gone.matches(row):
                row = Reject(id=row.id, task=row.task, stage="clean", reason="taken_down", detail="it is in tombstones")
            yield {"reject": row.model_dump()} if isinstance(row, Reject) else row.model_dump()

    for answer in engine.clean(rows(), job.name, key, settings.engine, settings.workers):
        if "reject" in answer:
            yield Reject.model_validate(answer["reject"]), None
        else:
            signature = answer["signature"]
            yield Example.model_validate(answer["example"]), base64.b64decode(signature) if signature else None


if __name__ == "__main__":
    cli.run(main)
