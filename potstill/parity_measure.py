"""Measures one artifact in one engine against the merged model, as scripts/package/parity.py does for each."""

from pathlib import Path
from typing import Any, NamedTuple

from potstill import answers, package, parity, parity_engines, parity_forced, parity_slots, token_lock, workload
from potstill.files import sha256_file
from potstill.package import PackageConfig
from potstill.parity import SHOWN, ArtifactParity, Divergence, Pair
from potstill.parity_engines import Answered, Engine, Questions
from potstill.records import Example, Prediction, write_jsonl
from potstill.runs import RunRecord

Rows = dict[str, Prediction]


class Bench(NamedTuple):
    """What every artifact is measured against."""

    record: RunRecord
    settings: PackageConfig
    examples: list[Example]
    merged: Rows
    questions: Questions
    reference: parity_forced.Reference
    grader: parity_slots.Grader


def measure(bench: Bench, kind: str, engine: Engine, out: Path) -> tuple[ArtifactParity, Rows]:
    """Answers all examples with one artifact in one engine, writes its predictions, and compares."""
    folder, limits = package.folder(bench.record.run) / kind, bench.settings.artifacts[kind]
    answered = parity_engines.ask(engine, folder, bench.questions)
    own = predict(bench, answered, f"{engine} {kind}")
    name = parity_engines.name_of(kind, engine)
    write_jsonl(out / f"predictions.{name}.jsonl", own)
    both = [(row, bench.merged[row.id]) for row in own]
    same_ids, mismatch = tokens(bench, answered, kind, engine)
    file = weights(folder)
    result = ArtifactParity(
        artifact=kind,
        engine=engine,
        engine_version=answered.version,
        file=str(file),
        bytes=sum(path.stat().st_size for path in (folder.rglob("*") if file == folder else [file]) if path.is_file()),
        sha256=None if file == folder else sha256_file(file),
        n=len(own),
        same_output=sum(row.output == other.output for row, other in both) / len(own),
        same_json=sum(parity.equal_json(*rows) for rows in both) / len(own),
        min_same_json=limits.min_same_json,
        slots=bench.grader.compare(both),
        max_slot_drop=limits.max_slot_drop,
        same_prompt_ids=same_ids,
        first_token_mismatch=mismatch,
        forced=parity_forced.measure(bench.reference, bench.questions.prompts, answered, bench.settings.forced_rows),
        passed=True,
        reasons=[],
        divergences=[diverge(bench, *rows) for rows in both if rows[0].output != rows[1].output][:SHOWN],
        load_ms=answered.load_ms,
        peak_bytes=answered.peak_bytes,
        prompt_tokens_per_s=answered.prompt_tokens_per_s,
        decode_tokens_per_s=answered.decode_tokens_per_s,
        answers_per_s=answered.answers_per_s,
    )
    reasons = over(result)
    return result.model_copy(update={"passed": not reasons, "reasons": reasons}), {row.id: row for row in own}


def predict(bench: Bench, answered: Answered, backend: str) -> list[Prediction]:
    job = workload.load(bench.record.workload)
    return [
        answers.predict_row(
            job,
            id=example.id,
            task=example.task,
            output=answer.text,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            latency_ms=answer.latency_ms,
            finish_reason=answer.finish_reason,
            backend=backend,
        )
        for example, answer in zip(bench.examples, answered.answers, strict=True)
    ]


def tokens(bench: Bench, answered: Answered, kind: str, engine: str) -> tuple[float | None, Any]:
    """The share of prompts that the engine reads as the same token ids, and the first that it does not."""
    if answered.read is None:
        return None, None
    wanted = bench.questions.prompts
    of = [(example.id, "prompt") for example in bench.examples]
    rendered = token_lock.Texts(of, bench.questions.texts, wanted)
    same = sum(a == b for a, b in zip(wanted, answered.read, strict=True)) / len(wanted)
    return same, token_lock.compare(kind, engine, rendered, answered.read, bench.questions.tokenizer)


def diverge(bench: Bench, own: Prediction, merged: Prediction) -> Divergence:
    tokenizer = bench.questions.tokenizer
    at, wanted, found = parity.diverge(own.output, merged.output, tokenizer)
    row = next(number for number, example in enumerate(bench.examples) if example.id == own.id)
    gap = bench.reference.gap(bench.questions.prompts[row], wanted, at, token_lock.item(found, at))
    return parity.divergence(own, merged, tokenizer, gap)


def over(result: ArtifactParity) -> list[str]:
    """In what an artifact is over its limits."""
    found = [token_lock.explain(result.first_token_mismatch)] if result.first_token_mismatch is not None else []
    if result.min_same_json is not None and result.same_json < result.min_same_json:
        found.append(f"the same JSON on {result.same_json:.1%} of the rows, want {result.min_same_json:.1%}")
    drop, most = result.slots.drop, result.max_slot_drop
    if most is not None and drop is not None and drop > most:
        found.append(f"slot accuracy {100 * drop:.2f} points below the merged model's, want at most {100 * most:.2f}")
    return found


def pairs(bench: Bench, results: dict[str, ArtifactParity], given: dict[str, Rows]) -> list[Pair]:
    """The engines of one artifact, compared with each other."""
    found = []
    for name, result in results.items():
        if name != result.artifact and result.artifact in results:
            rows = [(row, given[name][id]) for id, row in given[result.artifact].items()]
            apart = next((pair for pair in rows if pair[0].output != pair[1].output), None)
            first = diverge(bench, apart[1], apart[0]) if apart is not None else None
            found.append(parity.pair(result.artifact, name, rows, first))
    return found


def weights(folder: Path) -> Path:
    """The one file of weights, or the folder where there are several."""
    found = [*folder.glob("*.gguf"), *folder.glob("*.safetensors")]
    return found[0] if len(found) == 1 else folder
