"""How fast one side of a comparison answers, a prompt at a time, and how large it is."""

import time
from pathlib import Path

from potstill import asking, grading, models, project
from potstill.intervals import quantile
from potstill.progress import track
from potstill.records import Example, Record
from potstill.runs import RunRecord
from potstill.stop import USAGE, Stop


class Speed(Record):
    """Of `samples` prompts, one after the other. `latency_ms` is until an answer's end; `tokens_per_s` of the answers,
    in the base's tokens, over that time, reading the prompt included. `bytes` is what has to be shipped."""

    samples: int
    latency_ms: dict[str, float]
    tokens_per_s: float
    answers_per_s: float
    load_s: float
    bytes: int


def measure(record: RunRecord, answers: str, examples: list[Example], limits: dict[str, int]) -> Speed:
    """Times the model of a run's answers: `merged`, `base`, or a GGUF artifact. Raises Stop 2 for any other.

    `limits` has the most tokens of an answer, by task. The first prompt is asked twice and counted once: a first answer
    pays for what the others find done.
    """
    folder = place(record, answers)
    tokenizer = models.load_tokenizer(record.base.path)
    began, waits, made = time.perf_counter(), [], 0
    artifact = None if answers == grading.TUNED else answers
    # rows may bring system texts of their own; the time does not depend on which
    with asking.open_model(record.run, artifact, examples[0].system, max(limits.values())) as ask:
        "".join(ask(examples[0].prompt))
        load_s = time.perf_counter() - began
        for example in track(examples, f"time {record.run}:{answers}", len(examples)):
            started = time.perf_counter()
            text = "".join(ask(example.prompt))
            waits.append((time.perf_counter() - started) * 1000)
            made += len(tokenizer(text, add_special_tokens=False)["input_ids"])
    return Speed(
        samples=len(examples),
        latency_ms={"p50": quantile(waits, 0.5), "p95": quantile(waits, 0.95)},
        tokens_per_s=made / sum(waits) * 1000,
        answers_per_s=len(waits) / sum(waits) * 1000,
        load_s=load_s,
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def place(record: RunRecord, answers: str) -> Path:
    """The folder of what answered."""
    run = project.run_folder(record.run)
    if answers == grading.TUNED:
        return run / ("model" if record.mode == "full" else "adapter")
    if answers == "base":
        return Path(record.base.path)
    folder = run / "package" / answers
    if not sorted(folder.glob("*.gguf")):
        raise Stop(f"{answers} cannot be timed here: --samples times merged, base and GGUF artifacts.", USAGE)
    return folder
