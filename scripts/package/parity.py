"""Asks every GGUF artifact of a package the test snapshot, in llama.cpp, and compares with the merged model's answers.

Run: python -m scripts.package.parity -r <run>        (after eval.generate and package.export)
Writes reports/<run>/parity.json and predictions.<artifact>.jsonl, which eval.judge can score.
Exits 100, naming the artifact, when one is below its min_same_json or reads a prompt as other tokens.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from potstill import (
    answers,
    cli,
    llama,
    manifest,
    models,
    package,
    progress,
    project,
    prompt,
    runs,
    snapshots,
    workload,
)
from potstill.files import sha256_file, stage_lock, write_json
from potstill.package import GGUF_TYPES, PackageConfig
from potstill.records import Example, Prediction, Record, read_jsonl, write_jsonl
from potstill.runs import RunRecord
from potstill.stop import DATA, OK, REJECT, Stop
from potstill.workload import Workload

# enough prompts, one after the other, to time a single stream
TIMED = 8
SHOWN = 20


class Divergence(Record):
    """Where an answer leaves the merged model's: the index of the first token that differs, and both tokens.

    A token is null where one answer ends.
    """

    id: str
    token: int
    merged: str | None
    artifact: str | None


class TokenMismatch(Record):
    id: str
    token: int
    huggingface: int | None
    llama_cpp: int | None


class ArtifactParity(Record):
    """Shares are of `n` test rows. Speeds are of one stream, in tokens per second; `answers_per_s` is of all slots."""

    file: str
    bytes: int
    sha256: str
    n: int
    same_output: float
    same_json: float
    min_same_json: float | None
    same_prompt_ids: float
    first_token_mismatch: TokenMismatch | None
    passed: bool
    # the first few rows that differ
    divergences: list[Divergence] = Field(max_length=SHOWN)
    load_ms: float
    prompt_tokens_per_s: float
    decode_tokens_per_s: float
    answers_per_s: float


class Parity(Record):
    run: str
    snapshot: str
    context: int
    slots: int
    threads: int
    artifacts: dict[str, ArtifactParity]


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parser(__doc__, run=True, config="").parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    record = runs.require_trained(run)
    config = arguments.config or workload.load(record.workload).settings.package_config
    settings = package.load_config(config, arguments.override)
    folder, out = package.folder(run), project.reports(run)
    if problems := manifest.verify(folder):
        raise Stop(f"{folder}/{problems[0]}. Run fab package.export -r {run}.", DATA)
    kinds = [kind for kind in settings.artifacts if kind in GGUF_TYPES and (folder / kind).is_dir()]
    if not kinds:
        raise Stop(f"{folder} has no GGUF artifact of configs/package/{config}.yaml. Export again.", DATA)
    examples, merged = rows(record, out)
    with stage_lock(out, "parity"):
        results = {kind: measure(record, settings, kind, examples, merged, out) for kind in kinds}
        parity = Parity(
            run=run,
            snapshot=record.snapshot,
            context=settings.num_ctx,
            slots=settings.slots,
            threads=llama.THREADS,
            artifacts=results,
        )
        write_json(out / "parity.json", parity.model_dump())
    show(results)
    cli.done([out / "parity.json", *(out / f"predictions.{kind}.jsonl" for kind in kinds)], f"fab eval.judge -r {run}")
    return OK if all(result.passed for result in results.values()) else REJECT


def rows(record: RunRecord, out: Path) -> tuple[list[Example], dict[str, Prediction]]:
    """The test rows that the merged model has answered, and its answers by id."""
    mend = f"Run fab eval.generate -r {record.run}."
    merged = {row.id: row for row in read_jsonl(out / "predictions.jsonl", Prediction, mend)}
    examples = [example for example in snapshots.read(record.snapshots["test"]) if example.id in merged]
    if not examples:
        raise Stop(f"{out}/predictions.jsonl answers no row of the test snapshot. {mend}", DATA)
    return examples, merged


def measure(
    record: RunRecord,
    settings: PackageConfig,
    kind: str,
    examples: list[Example],
    merged: dict[str, Prediction],
    out: Path,
) -> ArtifactParity:
    """Answers all examples with one artifact, writes its predictions, and compares."""
    job, tokenizer = workload.load(record.workload), models.load_tokenizer(record.base.path)
    path = package.folder(record.run) / kind / package.gguf_name(record.run, kind)
    prompts = [prompt.prompt_ids(example.system, example.prompt, tokenizer) for example in examples]
    limits = [job.settings.tasks[example.task].max_new_tokens for example in examples]
    with llama.serve(path, settings.num_ctx, parallel=settings.slots) as server:
        mismatches = [
            mismatch
            for example, ids in zip(examples, prompts, strict=True)
            if (mismatch := tokens_differ(example, ids, llama.tokenize(server, text_of(example, tokenizer))))
        ]
        answered = llama.generate(server, prompts, limits)
        generated = list(progress.track(answered, f"parity {kind}", len(prompts)))
        timed = [next(llama.generate(server, [p], n)) for p, n in list(zip(prompts, limits, strict=True))[:TIMED]]
        load_ms = server.load_ms
    own = [predict(job, example, answer, kind) for example, answer in zip(examples, generated, strict=True)]
    write_jsonl(out / f"predictions.{kind}.jsonl", own)
    differing = [prediction for prediction in own if prediction.output != merged[prediction.id].output]
    same_json = sum(equal_json(prediction, merged[prediction.id]) for prediction in own) / len(own)
    wanted = settings.artifacts[kind].min_same_json
    return ArtifactParity(
        file=str(path),
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        n=len(own),
        same_output=1 - len(differing) / len(own),
        same_json=same_json,
        min_same_json=wanted,
        same_prompt_ids=1 - len(mismatches) / len(own),
        first_token_mismatch=mismatches[0] if mismatches else None,
        passed=not mismatches and (wanted is None or same_json >= wanted),
        divergences=[diverge(p, merged[p.id], tokenizer) for p in differing[:SHOWN]],
        load_ms=load_ms,
        prompt_tokens_per_s=sum(t.prompt_tokens for t in timed) / sum(t.prompt_ms for t in timed) * 1000,
        decode_tokens_per_s=sum(t.completion_tokens for t in timed) / sum(t.decode_ms for t in timed) * 1000,
        answers_per_s=settings.slots * len(own) / sum(g.latency_ms for g in generated) * 1000,
    )


def text_of(example: Example, tokenizer: Any) -> str:
    messages = prompt.messages(example.system, example.prompt)
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def tokens_differ(example: Example, wanted: list[int], found: list[int]) -> TokenMismatch | None:
    if wanted == found:
        return None
    at = first_difference(wanted, found)
    return TokenMismatch(id=example.id, token=at, huggingface=item(wanted, at), llama_cpp=item(found, at))


def predict(job: Workload, example: Example, answer: llama.Generated, kind: str) -> Prediction:
    return answers.predict_row(
        job,
        id=example.id,
        task=example.task,
        output=answer.text,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        latency_ms=answer.latency_ms,
        finish_reason=answer.finish_reason,
        backend=f"llama.cpp {kind}",
    )


def equal_json(one: Prediction, other: Prediction) -> bool:
    """Whether both parsed to the same value, the order of keys aside; text without any JSON must be the same text."""
    if one.parsed is None or other.parsed is None:
        return one.output == other.output
    # as text, because Python takes true, 1 and 1.0 for equal
    return json.dumps(one.parsed, sort_keys=True) == json.dumps(other.parsed, sort_keys=True)


def diverge(own: Prediction, merged: Prediction, tokenizer: Any) -> Divergence:
    found, wanted = (tokenizer.tokenize(p.output, add_special_tokens=False) for p in (own, merged))
    at = first_difference(wanted, found)
    return Divergence(id=own.id, token=at, merged=item(wanted, at), artifact=item(found, at))


def first_difference(one: list[Any], other: list[Any]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def item(values: list[Any], at: int) -> Any:
    return values[at] if at < len(values) else None


def show(results: dict[str, ArtifactParity]) -> None:
    print(f"{'artifact':<12} {'n':>5} {'same text':>9} {'same JSON':>9} {'same ids':>8} {'decode/s':>8} {'MB':>7}")
    for kind, r in results.items():
        shares = f"{r.same_output:>9.1%} {r.same_json:>9.1%} {r.same_prompt_ids:>8.1%}"
        print(f"{kind:<12} {r.n:>5} {shares} {r.decode_tokens_per_s:>8.0f} {r.bytes / 1e6:>7.1f}")
    for kind, r in results.items():
        if r.min_same_json is not None and r.same_json < r.min_same_json:
            print(f"{kind}: the same JSON on {r.same_json:.1%} of the rows, want {r.min_same_json:.1%}")
        if r.first_token_mismatch is not None:
            at = r.first_token_mismatch
            print(
                f"{kind}: llama.cpp reads the prompt of {at.id} as other tokens from token {at.token} on: "
                f"{at.llama_cpp}, want {at.huggingface}"
            )


if __name__ == "__main__":
    cli.run(main)
