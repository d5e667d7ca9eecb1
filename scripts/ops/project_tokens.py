"""Measured tokens per call x calls per day, held against the daily budget of configs/project.yaml.

python -m scripts.ops.project_tokens [-w batfit]     or: fab ops.project_tokens
Tokens are those of the newest run's predictions, or of the newest test snapshot in the base's tokenizer; without -w,
of every workload that has either. Writes reports/project_tokens.json. Exit 0, 100 when over the budget, 101 when it
is held only because a task with calls could not be measured.
"""

import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from potstill import cli, project, runs, snapshots, workload
from potstill.files import write_json
from potstill.progress import track
from potstill.records import Prediction, read_jsonl
from potstill.stop import DATA, INCONCLUSIVE, OK, REJECT, Stop

OUT = project.REPORTS / "project_tokens.json"
Counts = dict[str, list[tuple[int, int]]]


def main(argv: list[str] | None = None) -> int | None:
    named = cli.parser(__doc__).parse_args(argv).workload
    names = [named] if named else sorted(path.stem for path in (project.CONFIGS / "workloads").glob("*.yaml"))
    tasks: list[dict[str, Any]] = []
    for name in names:
        job = workload.load(name)
        source, counts = measure(name)
        if source or named:
            tasks += [
                project_task(name, task, settings.calls_per_day, source, counts.get(task, []))
                for task, settings in job.settings.tasks.items()
            ]
    if not any(task["n"] for task in tasks):
        raise Stop("nothing is measured yet: no predictions and no snapshot. Run fab dataset.split.", DATA)
    result = against(project.load_project().daily_token_budget, tasks)
    show(result)
    write_json(OUT, result)
    cli.done([OUT], "fab eval.chat" if result["verdict"] == "within" else None)
    return {"within": OK, "over": REJECT, "unmeasured": INCONCLUSIVE}[result["verdict"]]


def measure(name: str) -> tuple[str | None, Counts]:
    """Where the counts of a workload come from, and (prompt tokens, completion tokens) of every call, by task."""
    predictions = newest_predictions(name)
    if predictions:
        counts: Counts = {}
        for row in read_jsonl(predictions, Prediction, "Run fab eval.generate again."):
            counts.setdefault(row.task, []).append((row.prompt_tokens, row.completion_tokens))
        return predictions.as_posix(), counts
    if name in snapshots.registry():
        return count_snapshot(name)
    return None, {}


def newest_predictions(name: str) -> Path | None:
    try:
        path = project.reports(project.find_run(name, None)) / "predictions.jsonl"
    except Stop:
        return None
    return path if path.is_file() else None


def count_snapshot(name: str) -> tuple[str, Counts]:
    from transformers import AutoTokenizer

    from potstill import prompt

    try:
        base = runs.read(project.find_run(name, None)).base.path
    except Stop:
        base = (project.MODELS / "nano").as_posix()
    _, version = snapshots.newest(name)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    counts: Counts = {}
    for example in track(snapshots.read(version.test), f"tokens of {name}", version.test.rows):
        rendered = prompt.render(example, tokenizer)
        counts.setdefault(example.task, []).append((len(rendered.prompt_ids), len(rendered.completion_ids)))
    return version.test.file, counts


def project_task(name: str, task: str, calls: int, source: str | None, counts: list[tuple[int, int]]) -> dict[str, Any]:
    """One row of the table; token figures are per call, null where nothing was measured."""
    prompts, completions = [p for p, _ in counts], [c for _, c in counts]
    totals = [p + c for p, c in counts]
    mean = sum(totals) / len(totals) if totals else None
    return {
        "workload": name,
        "task": task,
        "source": source,
        "n": len(counts),
        "prompt_tokens": figures(prompts),
        "completion_tokens": figures(completions),
        "tokens": figures(totals),
        "calls_per_day": calls,
        "tokens_per_day": None if mean is None else math.ceil(mean * calls),
    }


def figures(values: list[int]) -> dict[str, float] | None:
    """Mean, and p50 and p95 by nearest rank."""
    if not values:
        return None
    ranked = sorted(values)
    p50, p95 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.5, 0.95))
    return {"mean": round(sum(values) / len(values), 1), "p50": p50, "p95": p95}


def against(budget: int, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """The projection: totals, each task's share of the budget, and how many more calls of it a day would still fit."""
    total = sum(task["tokens_per_day"] or 0 for task in tasks)
    rows = []
    for task in tasks:
        tokens, per_call = task["tokens_per_day"], task["tokens"]
        share = None if tokens is None else round(tokens / budget, 4)
        headroom = None if per_call is None else max(0, math.floor((budget - total) / per_call["mean"]))
        rows.append(task | {"share_of_budget": share, "headroom_calls": headroom})
    blind = [task for task in tasks if task["calls_per_day"] and not task["n"]]
    verdict = "over" if total > budget else "unmeasured" if blind else "within"
    return {
        "daily_token_budget": budget,
        "tokens_per_day": total,
        "share_of_budget": round(total / budget, 4),
        "verdict": verdict,
        "tasks": rows,
    }


def show(result: dict[str, Any]) -> None:
    total, budget, share = result["tokens_per_day"], result["daily_token_budget"], result["share_of_budget"]
    title = f"tokens a day: {total:,} of {budget:,} ({share:.1%}), {result['verdict']}"
    table = Table(show_edge=False, title=title)
    table.add_column("task")
    for column in (
        "n",
        "prompt p50/p95",
        "completion p50/p95",
        "mean/call",
        "calls/day",
        "tokens/day",
        "share",
        "more calls",
    ):
        table.add_column(column, justify="right")
    for task in result["tasks"]:
        measured = task["n"] > 0
        cells = ["-"] * 7
        if measured:
            cells = [f"{task[kind]['p50']}/{task[kind]['p95']}" for kind in ("prompt_tokens", "completion_tokens")]
            cells += [f"{task['tokens']['mean']:,.1f}", "", f"{task['tokens_per_day']:,}"]
            cells += [f"{task['share_of_budget']:.1%}", f"{task['headroom_calls']:,}"]
        cells[3] = f"{task['calls_per_day']:,}"
        table.add_row(f"{task['workload']} {task['task']}", str(task["n"]), *cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    cli.run(main)
