"""Asks a run's model, or its packaged artifact, and checks every answer against the schema.

Run: python -m scripts.eval.chat -r <run> [--artifact gguf-q8_0] [--task t1_parse] [--message "..."] [--compare]
     python -m scripts.eval.chat -r <run> --example <id>        (a row of the run's snapshots, beside its reference)
Answers appear as they are made. Without --message and --example it reads a line at a time until the input ends. The
system text is the one the run was trained with. --compare asks the untuned base as well.
"""

import contextlib
import sys
from collections.abc import Iterator

from potstill import answers, asking, cli, grading, project, runs, slots, snapshots, workload
from potstill.asking import Ask
from potstill.records import Example
from potstill.runs import RunRecord
from potstill.stop import DATA, OK, USAGE, Stop
from potstill.workload import Workload


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument(
        "--artifact", help="a GGUF artifact of the package, run in llama.cpp, or base (default: the run's model)"
    )
    parser.add_argument("--task", help="default: the workload's first task")
    parser.add_argument("--compare", action="store_true", help="ask the untuned base as well")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--message", help="ask this once, and end: 0 when the answer is valid, 65 when not")
    what.add_argument("--example", metavar="ID", help="ask a row of the snapshots, and compare with its reference")
    arguments = parser.parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    record = runs.require_trained(run)
    job = workload.load(record.workload)
    example = find(record, arguments.example) if arguments.example else None
    task = example.task if example else arguments.task or next(iter(job.settings.tasks))
    if task not in job.settings.tasks:
        raise Stop(f"{job.name} has no task {task!r}; it has {', '.join(job.settings.tasks)}.", USAGE)
    system = example.system if example else asking.system_of(record, job)
    named = [arguments.artifact or "tuned", *([asking.BASE] if arguments.compare else [])]
    with contextlib.ExitStack() as opened:
        limit = job.settings.tasks[task].max_new_tokens
        models = {
            name: opened.enter_context(asking.open_model(run, None if name == "tuned" else name, system, limit))
            for name in dict.fromkeys(named)
        }
        if example:
            valid = [beside(job, example, *model) for model in models.items()]
            return OK if valid[0] else DATA
        if arguments.message is not None:
            return OK if show(job, task, models, arguments.message) else DATA
        for message in typed(task):
            show(job, task, models, message)
    return OK


def find(record: RunRecord, id: str) -> Example:
    for split in snapshots.SPLITS:
        for example in snapshots.read(record.snapshots[split]):
            if example.id == id:
                return example
    raise Stop(f"no row {id!r} in the snapshots of {record.run}; reports/{record.run}/report.md names some.", DATA)


def typed(task: str) -> Iterator[str]:
    """Lines as the user types them, until the input ends."""
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            print(f"{task}> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def show(job: Workload, task: str, models: dict[str, Ask], message: str) -> bool:
    """Prints every model's answer and whether it is valid; returns that of the first."""
    found = []
    for name, ask in models.items():
        if len(models) > 1:
            print(f"-- {name}")
        found.append(verdict(job, task, spoken(ask, message)))
    return found[0]


def spoken(ask: Ask, message: str) -> str:
    """Prints an answer as it comes; control characters of a model's output never reach the terminal."""
    pieces = []
    for piece in ask(message):
        print("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in piece), end="", flush=True)
        pieces.append(piece)
    print()
    return "".join(pieces)


def verdict(job: Workload, task: str, output: str) -> bool:
    answer = answers.parse(output)
    if not answer.valid_json:
        print("not valid JSON")
        return False
    _, problem = job.check(task, answer.parsed)
    print(f"breaks the schema: {problem}" if problem else "valid")
    return not problem


def beside(job: Workload, example: Example, name: str, ask: Ask) -> bool:
    """Prints an answer to an example, slot by slot beside the reference; returns whether the answer is valid."""
    print(f"-- {name}")
    output = spoken(ask, example.prompt)
    valid = verdict(job, example.task, output)
    prediction = answers.uncounted(job, example, output, name)
    levels = slots.load_levels(project.CONFIGS / "judge_slots.yaml")
    for grade in grading.grade(example, prediction, levels, job.levels):
        passed = grade.decided.passed if grade.decided else None
        mark = {True: "ok", False: "WRONG", None: "for the judge" if grade.question else "no score"}[passed]
        line = f"{mark:14} {grade.slot}: want {slots.text(value(grade.reference))}"
        print(line if passed else f"{line}, got {slots.text(value(grade.candidate))}")
    return valid


def value(found: object) -> object:
    return "(absent)" if found is grading.ABSENT else found


if __name__ == "__main__":
    cli.run(main)
