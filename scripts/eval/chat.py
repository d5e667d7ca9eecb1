"""Asks a run's model, or its packaged artifact, and checks every answer against the schema.

Run: python -m scripts.eval.chat -r <run> [--artifact gguf-q8_0] [--task t1_parse] [--message "..."]
Without --message it reads a line at a time until the input ends. The system text is the one the run was trained with.
"""

import sys
from collections.abc import Iterator

from potstill import answers, asking, cli, project, runs, workload
from potstill.stop import DATA, OK, USAGE, Stop
from potstill.workload import Workload


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument(
        "--artifact", help="a GGUF artifact of the package, run in llama.cpp (default: the run's model)"
    )
    parser.add_argument("--task", help="default: the workload's first task")
    parser.add_argument("--message", help="ask this once, and end: 0 when the answer is valid, 65 when not")
    arguments = parser.parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    record = runs.require_trained(run)
    job = workload.load(record.workload)
    task = arguments.task or next(iter(job.settings.tasks))
    if task not in job.settings.tasks:
        raise Stop(f"{job.name} has no task {task!r}; it has {', '.join(job.settings.tasks)}.", USAGE)
    limit = job.settings.tasks[task].max_new_tokens
    with asking.open_model(run, arguments.artifact, asking.system_of(record, job), limit) as ask:
        if arguments.message is not None:
            return OK if show(job, task, ask(arguments.message)) else DATA
        for message in typed(task):
            show(job, task, ask(message))
    return OK


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


def show(job: Workload, task: str, output: str) -> bool:
    """Prints an answer and whether it is valid; control characters of a model's output never reach the terminal."""
    print("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in output))
    answer = answers.parse(output)
    if not answer.valid_json:
        print("not valid JSON")
        return False
    _, problem = job.check(task, answer.parsed)
    print(f"breaks the schema: {problem}" if problem else "valid")
    return not problem


if __name__ == "__main__":
    cli.run(main)
