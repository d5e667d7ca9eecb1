"""Cleans a workload's exemplars: normalises, checks the schema, drops duplicates; every dropped row keeps its reason.

Run: python -m scripts.dataset.clean -w batfit        (or: fab dataset.clean -w batfit)
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from potstill import cleaning, cli, database, progress, project, workload
from potstill.files import atomic_open, stage_lock, write_text
from potstill.records import Reject
from potstill.stop import DATA, Stop
from potstill.workload import Workload

EXAMPLES_PER_REASON = 5


@dataclass
class Tally:
    kept: Counter[str] = field(default_factory=Counter)  # by task
    rejected: Counter[str] = field(default_factory=Counter)  # by reason
    shown: dict[str, list[Reject]] = field(default_factory=dict)  # the first few of each reason


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__).parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    folder = project.processed(job.name)
    source = project.database()
    found = {task: n for task, n in database.task_counts(source).items() if task in job.settings.tasks}
    if not found:
        wanted = ", ".join(job.settings.tasks)
        raise Stop(f"{source} has no rows of {job.name} (task {wanted}). Run fab dataset.convert -w {job.name}.", DATA)
    with stage_lock(folder, "clean"):
        tally = clean_to(job, source, folder, sum(found.values()))
    report = project.reports(job.name) / "dataset_validation.md"
    write_text(report, validation_report(job, found, tally))
    print(f"{job.name}: {tally.kept.total()} kept, {tally.rejected.total()} rejected")
    cli.done([folder / "clean.jsonl", folder / "rejected.jsonl", report], f"fab dataset.split -w {job.name}")


def clean_to(job: Workload, source: Path, folder: Path, total: int) -> Tally:
    """Streams the table into clean.jsonl and rejected.jsonl; each appears when all rows are through."""
    tally = Tally()
    with atomic_open(folder / "rejected.jsonl") as rejects, atomic_open(folder / "clean.jsonl") as examples:
        rows = progress.track(database.read(source, job.settings.tasks), "clean", total)
        for result in cleaning.clean(job, rows):
            if isinstance(result, Reject):
                rejects.write(result.model_dump_json() + "\n")
                tally.rejected[result.reason] += 1
                if tally.rejected[result.reason] <= EXAMPLES_PER_REASON:
                    tally.shown.setdefault(result.reason, []).append(result)
            else:
                examples.write(result.model_dump_json() + "\n")
                tally.kept[result.task] += 1
    return tally


def validation_report(job: Workload, found: dict[str, int], tally: Tally) -> str:
    lines = [f"# Dataset validation: {job.name}", "", "| task | rows in | kept | rejected |", "|---|---|---|---|"]
    lines += [f"| {task} | {n} | {tally.kept[task]} | {n - tally.kept[task]} |" for task, n in found.items()]
    if tally.rejected:
        lines += ["", "| reason | rows | what to do |", "|---|---|---|"]
        lines += [f"| {reason} | {n} | {cleaning.REASONS[reason]} |" for reason, n in sorted(tally.rejected.items())]
    for reason, rows in sorted(tally.shown.items()):
        lines += ["", f"## {reason}", ""]
        # a detail never holds a value of the row, only keys and rules
        lines += [f"- `{row.id}`: {row.detail}" for row in rows]
        if tally.rejected[reason] > len(rows):
            lines.append(f"- and {tally.rejected[reason] - len(rows)} more in rejected.jsonl")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)
