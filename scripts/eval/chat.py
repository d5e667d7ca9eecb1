"""Asks a run's model, or its packaged artifact, and checks every answer against the schema.

Run: python -m scripts.eval.chat -r <run> [--artifact gguf-q8_0] [--task t1_parse] [--message "..."]
Without --message it reads a line at a time until the input ends. The system text is the one the run was trained with.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from potstill import answers, cli, llama, models, project, prompt, runs, workload
from potstill.files import sha256_file
from potstill.records import Example, read_jsonl
from potstill.runs import RunRecord
from potstill.stop import DATA, OK, USAGE, Stop
from potstill.workload import Workload

CONTEXT = 4096
# one answer to a message the user has just typed
Ask = Callable[[str], str]


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
    system = system_of(record, job)
    open_model = (
        packaged(run, arguments.artifact, system, limit) if arguments.artifact else in_process(run, system, limit)
    )
    with open_model as ask:
        if arguments.message is not None:
            return OK if show(job, task, ask(arguments.message)) else DATA
        for message in typed(task):
            show(job, task, ask(message))
    return OK


def system_of(record: RunRecord, job: Workload) -> str:
    """The system text of all train rows; the workload's own where they differ or the snapshot is not here."""
    snapshot = record.snapshots["train"]
    path = Path(snapshot.file)
    if not path.is_file() or sha256_file(path) != snapshot.sha256:
        return job.system_prompt
    texts = {example.system for example in read_jsonl(path, Example)}
    return texts.pop() if len(texts) == 1 else job.system_prompt


@contextlib.contextmanager
def in_process(run: str, system: str, max_new_tokens: int) -> Iterator[Ask]:
    import torch

    model, tokenizer = models.load_merged(run, torch.float32)

    def ask(message: str) -> str:
        ids = prompt.prompt_ids(system, message, tokenizer)
        (generated,) = models.generate(model, tokenizer, [ids], max_new_tokens)
        return tokenizer.decode(generated.ids, skip_special_tokens=True)

    yield ask


@contextlib.contextmanager
def packaged(run: str, artifact: str, system: str, max_new_tokens: int) -> Iterator[Ask]:
    """The artifact in llama.cpp, which renders the chat template itself."""
    folder = project.run_folder(run) / "package" / artifact
    files = sorted(folder.glob("*.gguf"))
    if not files:
        known = ", ".join(sorted(p.parent.name for p in folder.parent.glob("*/*.gguf"))) or "none"
        raise Stop(f"{folder} holds no GGUF; artifacts that do: {known}. Run fab package.export -r {run}.", DATA)
    with llama.serve(files[0], context=CONTEXT, parallel=1) as server:
        yield lambda message: llama.chat(server, prompt.messages(system, message), max_new_tokens)


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
