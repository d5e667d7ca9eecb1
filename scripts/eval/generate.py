"""Answers a snapshot with a run's model: greedy, unconstrained, batched; killed, it goes on where it was.

Run: python -m scripts.eval.generate -r <run> [--backend merged|base|null] [--split test] [--limit N] [--filter K=V]
merged is the trained model; base the model it was trained from; null answers nothing, which is what guessing scores.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import answers, cli, models, progress, project, prompt, runs, snapshots, workload
from potstill.files import canonical_json, sha256_text, stage_lock
from potstill.ledger import Ledger
from potstill.records import Example, Prediction, write_jsonl
from potstill.runs import RunRecord
from potstill.stop import DATA, USAGE, Stop
from potstill.workload import Workload

BACKENDS = ("merged", "base", "null")
# prompts of one entry of the ledger, all threads together
BATCH = 64


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument("--backend", choices=BACKENDS, default="merged")
    parser.add_argument("--split", choices=snapshots.SPLITS, default="test")
    parser.add_argument("--limit", type=int, help="only the first N rows")
    parser.add_argument("--filter", metavar="KEY=VALUE", help="only rows with this task, or this metadata value")
    arguments = parser.parse_args(argv)
    record = runs.require_trained(project.find_run(cli.workload_name(arguments), arguments.run))
    job = workload.load(record.workload)
    examples = select(snapshots.read(record.snapshots[arguments.split]), arguments.filter, arguments.limit)
    out = predictions_path(record.run, arguments.backend, arguments.split)
    with stage_lock(out.parent, f"generate.{arguments.backend}"):
        count = write_jsonl(out, answer(record, job, examples, arguments.backend, out))
    print(f"{record.run}: {count} answers by {arguments.backend}")
    cli.done([out], f"fab eval.judge -r {record.run}")


def predictions_path(run: str, backend: str, split: str) -> Path:
    name = [part for part in ("predictions", split if split != "test" else "", backend if backend != "merged" else "")]
    return project.reports(run) / (".".join(part for part in name if part) + ".jsonl")


def select(examples: Iterator[Example], condition: str | None, limit: int | None) -> list[Example]:
    key, separator, value = (condition or "").partition("=")
    if condition is not None and not (key and separator):
        raise Stop(f"--filter {condition!r}: want key=value, for example task=t1_parse", USAGE)
    kept = [e for e in examples if not key or str({"task": e.task, **e.metadata}.get(key)) == value]
    if not kept:
        raise Stop(f"no row of the snapshot has {condition}. Run fab dataset.stats for what there is.", DATA)
    return kept[:limit]


def answer(record: RunRecord, job: Workload, examples: list[Example], backend: str, out: Path) -> Iterator[Prediction]:
    """Yields the predictions in the snapshot's order. The ledger holds what is done until the file is written."""
    if backend == "null":
        yield from (null_prediction(job, example) for example in examples)
        return
    ledger_path = out.with_name(f".{out.stem}.ledger")
    model, tokenizer = load(record, backend)
    rendered = {e.id: prompt.prompt_ids(e.system, e.prompt, tokenizer) for e in examples}
    by_id = {e.id: e for e in examples}
    fingerprint = sha256_text(canonical_json([record.model_dump(), backend, list(by_id)]))
    with Ledger(ledger_path, fingerprint, restart=not matches(ledger_path, fingerprint), alone=True) as ledger:
        # answers of like length end together, so a batch wastes little
        ledger.add((e.id, {}) for e in sorted(examples, key=lambda e: (e.task, len(rendered[e.id]))))
        done = ledger.counts()["done"]
        with_bar = progress.track(batches(ledger), f"generate {backend}", -(-(len(examples) - done) // BATCH))
        for ids in with_bar:
            ledger.finish_many(generate_batch(job, [by_id[i] for i in ids], rendered, model, tokenizer, backend))
        results = dict(ledger.results())
        yield from (Prediction.model_validate(results[e.id]) for e in examples)
    for leftover in ledger_path.parent.glob(f"{ledger_path.name}*"):
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
    job: Workload, batch: list[Example], rendered: dict[str, list[int]], model: Any, tokenizer: Any, backend: str
) -> list[tuple[str, dict[str, Any]]]:
    limit = max(job.settings.tasks[e.task].max_new_tokens for e in batch)
    rows = []
    for generated in models.generate(model, tokenizer, [rendered[e.id] for e in batch], limit):
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
            backend=f"transformers {backend}",
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
