"""Answers a snapshot with a run's model, or with a model behind an endpoint; killed, it goes on where it was.

Run: python -m scripts.eval.generate -r <run> [--backend merged|base|null] [--split test] [--limit N] [--filter K=V]
     python -m scripts.eval.generate -r <run> --model openai/gpt-4o-mini [--taught] [--answers strong] [--max-cost 2]
merged is the trained model; base the model it was trained from; null answers nothing, which is what guessing scores.
Greedy, and free unless --constrained holds every answer to the task's JSON Schema.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import (
    answers,
    cli,
    endpoint,
    grading,
    models,
    paid,
    progress,
    project,
    prompt,
    runs,
    snapshots,
    teacher,
    workload,
)
from potstill.files import canonical_json, sha256_text, stage_lock
from potstill.ledger import Ledger
from potstill.records import Example, Prediction, write_jsonl
from potstill.runs import RunRecord
from potstill.stop import DATA, UNAVAILABLE, USAGE, Stop
from potstill.workload import Workload

BACKENDS = ("merged", "base", "null")
# prompts of one entry of the ledger, all threads together
BATCH = 64


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument("--backend", choices=BACKENDS, help="default: merged")
    parser.add_argument("--split", choices=snapshots.SPLITS, default="test")
    parser.add_argument("--limit", type=int, help="only the first N rows")
    parser.add_argument("--filter", metavar="KEY=VALUE", help="only rows with this task, or this metadata value")
    parser.add_argument("--constrained", action="store_true", help="hold answers to the task's JSON Schema")
    parser.add_argument("--answers", help="their name; default: made of --backend or --model, and of --constrained")
    remote = parser.add_argument_group("a model behind an endpoint")
    paid.add_options(remote)
    remote.add_argument("--taught", action="store_true", help="give it dataset.generate's instructions: a strong model")
    remote.add_argument("--retry-errors", action="store_true", help="ask again where the last try ended in an error")
    arguments = parser.parse_args(argv)
    paid.check(arguments)
    if arguments.model and arguments.backend:
        raise Stop(f"--backend {arguments.backend} and --model are two different models. Give one of them.", USAGE)
    arguments.backend = arguments.backend or "merged"
    record = runs.read(project.find_run(cli.workload_name(arguments), arguments.run))
    if not arguments.model:
        runs.require_trained(record.run)
    job = workload.load(record.workload)
    examples = select(snapshots.read(record.snapshots[arguments.split]), arguments.filter, arguments.limit)
    name = name_of(arguments)
    out = project.reports(record.run) / grading.file_of(name)
    with stage_lock(out.parent, f"generate.{name}"):
        if arguments.model:
            found = list(answer_remotely(job, examples, arguments, out))
        else:
            found = list(answer(record, job, examples, arguments.backend, out, arguments.constrained))
        count = write_jsonl(out, found)
        # only now: a kill before the file is whole must cost nothing
        if count == len(examples):
            remove_ledger(out)
    print(f"{record.run}: {count} answers by {arguments.model or arguments.backend}")
    cli.done([out], f"fab eval.judge -r {record.run}")
    if count < len(examples):
        raise Stop(
            f"{len(examples) - count} rows got no answer; those that did are written. "
            "Run this again with --retry-errors, or judge what is there with --partial.",
            UNAVAILABLE,
        )


def name_of(arguments: argparse.Namespace) -> str:
    """The answers' name: `merged` has none of its own in file names; other splits stand in front."""
    made = re.sub(r"[^a-z0-9]+", "-", arguments.model.lower()).strip("-") if arguments.model else arguments.backend
    name = arguments.answers or made + ("-constrained" if arguments.constrained else "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise Stop(f"--answers {name!r}: want lower-case letters, digits, - and _, at most 64", USAGE)
    if arguments.answers and arguments.answers in (*BACKENDS, *snapshots.SPLITS):
        raise Stop(f"--answers {name!r} means something else already", USAGE)
    if arguments.split == "test":
        return name
    return arguments.split if name == grading.TUNED else f"{arguments.split}.{name}"


def select(examples: Iterator[Example], condition: str | None, limit: int | None) -> list[Example]:
    key, separator, value = (condition or "").partition("=")
    if condition is not None and not (key and separator):
        raise Stop(f"--filter {condition!r}: want key=value, for example task=t1_parse", USAGE)
    kept = [e for e in examples if not key or str({"task": e.task, **e.metadata}.get(key)) == value]
    if not kept:
        raise Stop(f"no row of the snapshot has {condition}. Run fab dataset.stats for what there is.", DATA)
    return kept[:limit]


def answer(
    record: RunRecord, job: Workload, examples: list[Example], backend: str, out: Path, constrained: bool = False
) -> Iterator[Prediction]:
    """Yields the predictions in the snapshot's order. The ledger holds what is done until the file is written."""
    if backend == "null":
        yield from (null_prediction(job, example) for example in examples)
        return
    model, tokenizer = load(record, backend)
    rendered = {e.id: prompt.prompt_ids(e.system, e.prompt, tokenizer) for e in examples}
    by_id = {e.id: e for e in examples}
    inputs = canonical_json([record.model_dump(), backend, constrained, list(by_id)])
    with open_ledger(out, inputs) as ledger:
        # answers of like length end together, so a batch wastes little
        ledger.add((e.id, {}) for e in sorted(examples, key=lambda e: (e.task, len(rendered[e.id]))))
        done = ledger.counts()["done"]
        with_bar = progress.track(batches(ledger), f"generate {backend}", -(-(len(examples) - done) // BATCH))
        for ids in with_bar:
            batch = [by_id[i] for i in ids]
            ledger.finish_many(generate_batch(job, batch, rendered, (model, tokenizer), backend, constrained))
        results = dict(ledger.results())
        yield from (Prediction.model_validate(results[e.id]) for e in examples)


def answer_remotely(
    job: Workload, examples: list[Example], arguments: argparse.Namespace, out: Path
) -> Iterator[Prediction]:
    """Yields the predictions of what was answered, in the snapshot's order, whatever stopped the asking.

    Raises Stop 100 when the cap, and 75 when the day's tokens are used up: what is answered stays in the ledger.
    """
    asked = endpoint.questions(job, examples, arguments.taught, arguments.constrained)
    settings = paid.settings(arguments, max(question.max_tokens or 0 for question in asked))
    paid.estimate(settings, asked, (example.response for example in examples))
    with open_ledger(out, endpoint.inputs(settings, asked)) as ledger:
        if arguments.retry_errors:
            ledger.retry_failed()
        ledger.add((question.key, {}) for question in asked)
        left = ledger.counts()["todo"]
        print(f"{len(asked) - left} of {len(asked)} prompts are answered already, or failed")
        if left and not arguments.yes:
            paid.confirm()
        with teacher.finishing() as halt:
            for _ in progress.track(endpoint.ask(ledger, settings, asked, halt), "ask", left):
                pass
        results, failed = dict(ledger.results()), dict(ledger.failures())
        yield from (endpoint.prediction(job, e, results[e.id], settings.model) for e in examples if e.id in results)
    for key, reason in list(failed.items())[:3]:
        print(f"no answer to {key}: {reason}")


def ledger_path(out: Path) -> Path:
    return out.with_name(f".{out.stem}.ledger")


def open_ledger(out: Path, inputs: str) -> Ledger:
    """The ledger of unfinished work on just these inputs, or a new one."""
    path, fingerprint = ledger_path(out), sha256_text(inputs)
    return Ledger(path, fingerprint, restart=not matches(path, fingerprint), alone=True)


def remove_ledger(out: Path) -> None:
    path = ledger_path(out)
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()


def matches(path: Path, fingerprint: str) -> bool:
    """Whether unfinished work on just these inputs is there to go on with."""
    if not path.exists():
        return False
    try:
        Ledger(path, fingerprint).close()
    except Stop:
        return False
    return True


def batches(ledger: Ledger) -> Iterator[list[str]]:
    while items := ledger.claim(BATCH, lease_s=3600):
        yield [item.key for item in items]


def load(record: RunRecord, backend: str) -> tuple[Any, Any]:
    import torch

    # float32: what the weights were trained in, and free of rounding that a CPU's bf16 kernels differ in
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model, tokenizer = models.load_base(record, dtype) if backend == "base" else models.load_merged(record.run, dtype)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def generate_batch(
    job: Workload,
    batch: list[Example],
    rendered: dict[str, list[int]],
    loaded: tuple[Any, Any],
    backend: str,
    constrained: bool,
) -> list[tuple[str, dict[str, Any]]]:
    model, tokenizer = loaded
    limit = max(job.settings.tasks[e.task].max_new_tokens for e in batch)
    schemas = [job.schemas[e.task].model_json_schema() for e in batch] if constrained else None
    rows = []
    for generated in models.generate(model, tokenizer, [rendered[e.id] for e in batch], limit, schemas=schemas):
        example = batch[generated.index]
        prediction = answers.predict_row(
            job,
            id=example.id,
            task=example.task,
            output=tokenizer.decode(generated.ids, skip_special_tokens=True),
            prompt_tokens=len(rendered[example.id]),
            completion_tokens=len(generated.ids),
            latency_ms=generated.latency_ms,
            finish_reason=generated.finish_reason,
            backend=f"transformers {backend}{' constrained' if constrained else ''}",
        )
        rows.append((example.id, prediction.model_dump()))
    return rows


def null_prediction(job: Workload, example: Example) -> Prediction:
    return answers.predict_row(
        job,
        id=example.id,
        task=example.task,
        output=canonical_json(models.always_null(example)),
        prompt_tokens=0,
        completion_tokens=0,
        latency_ms=0.0,
        finish_reason="stop",
        backend="always-null",
    )


if __name__ == "__main__":
    cli.run(main)
