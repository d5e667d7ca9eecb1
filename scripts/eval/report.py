"""Turns verdicts into numbers: reports/<run>/report.json, report.md and report.html, and the headline on screen.

Run: python -m scripts.eval.report -r <run> [--gate] [--promote] [--baseline promoted|<run>[:<answers>]]
With --gate the exit code tells the verdict: 0 promote, 100 reject, 101 inconclusive. --promote is --gate, and on
promote moves the alias `promoted` of the workload's registered model to this run. --baseline names, and holds against
the run, every slot that is shown to be worse than there.
"""

from potstill import cli, comparing, gate, grading, measuring, project, promotion, report, runs
from potstill.comparing import Answers
from potstill.files import stage_lock, write_json, write_text
from potstill.metrics import Report
from potstill.stop import INCONCLUSIVE, OK, REJECT

EXIT = {"promote": OK, "reject": REJECT, "inconclusive": INCONCLUSIVE}


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument("--gate", action="store_true", help="exit 100 when the gate rejects, 101 when it cannot tell")
    parser.add_argument("--promote", action="store_true", help="--gate, and on promote make this the promoted run")
    parser.add_argument("--baseline", metavar="RUN[:ANSWERS]", help="an earlier run, or: promoted")
    arguments = parser.parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    folder = project.reports(run)
    limits = gate.load_limits()
    with stage_lock(folder, "eval.report"):
        baseline, note = find_baseline(run, arguments.baseline) if arguments.baseline else (None, None)
        found, rows = measuring.measure(run, limits, baseline)
        found.notes += [note] if note else []
        # everything is rendered before anything is written
        texts = {"report.html": report.html(found, rows), "report.md": report.markdown(found, rows)}
        for name, text in texts.items():
            write_text(folder / name, text)
        values = found.model_dump()
        first = {key: values[key] for key in ("run", "workload", "snapshot")}
        write_json(folder / "report.json", first | values)
        show(found)
        if arguments.promote and found.gate.verdict == "promote":
            before = promotion.promote(found)
            print(f"promoted {run} in workload {found.workload}, instead of {before or 'none'}")
    cli.done([folder / "report.json", *(folder / name for name in texts)], f"fab package.export -r {run}")
    return EXIT[found.gate.verdict] if arguments.gate or arguments.promote else OK


def find_baseline(run: str, given: str) -> tuple[Answers | None, str | None]:
    """The side to hold the run against; or none, and a note that says why."""
    name, _, answers = given.partition(":")
    workload = runs.read(run).workload
    if name == promotion.ALIAS:
        found = promotion.promoted(workload)
        if found is None:
            return None, f"no run of workload {workload} is promoted yet: there is no baseline"
        name = found
    if (name, answers or grading.TUNED) == (run, grading.TUNED):
        return None, f"{run} is the baseline itself"
    return comparing.read(project.find_run(workload, name), answers or grading.TUNED), None


def show(found: Report) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    section = report.headline(found)
    table = Table(box=box.SIMPLE_HEAD, title=Text(f"{found.run}, snapshot {found.snapshot}"), title_justify="left")
    for number, name in enumerate(section.head):
        table.add_column(Text(name), justify="right" if number else "left")
    for row in section.rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    # a pipe has no width: keep the table whole
    console.print(table) if console.is_terminal else Console(width=120).print(table)
    lines = [f"gate: {found.gate.verdict}", *(f"  {reason}" for reason in found.gate.reasons)]
    lines += [*report.judge_lines(found), *found.notes]
    for name, artifact in found.artifacts.items():
        if artifact.parity and (same := artifact.parity.get("same_json")) is not None:
            lines.append(f"{name}: the same JSON as the merged model on {same:.1%} of the rows")
    console.print(Text("\n".join(lines)), soft_wrap=True)


if __name__ == "__main__":
    cli.run(main)
