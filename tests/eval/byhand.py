"""A run of four rows made by hand, whose numbers can be worked out on paper."""

import json
from pathlib import Path

from potstill.grading import TUNED
from potstill.records import Example, Prediction, SlotSpec, write_jsonl
from projects import write_run

RUN = "batfit-byhand"
SLOTS = {
    "a": SlotSpec(level="exact"),
    "b": SlotSpec(level="numeric_tol", tolerance=0.1),
    "c": SlotSpec(level="llm_similarity"),
}
# id, metadata, reference, what the tuned model wrote
ROWS = [
    ("row1", {"tenant": "acme"}, {"a": "x", "b": 1.0, "c": "hello world"}, '{"a":"x","b":1.1,"c":"hello world"}'),
    ("row2", {}, {"a": None, "b": 2, "c": "alpha beta gamma"}, '{"a":"y","b":2,"c":"wholly different"}'),
    ("row3", {}, {"a": "z", "b": "heavy", "c": "delta"}, 'Sure! {"a": <script>alert(1)</script>'),
    ("row4", {"slice": "unseen_synonyms"}, {"a": 1, "b": 3.5, "c": None}, '{"a":1,"b":3.5,"c":null}'),
]
ANSWERS = {
    TUNED: [answer for *_, answer in ROWS],
    "null": ['{"a":null,"b":null,"c":null}'] * 4,
    "base": ["aaaa"] * 4,
}


def example(id: str, metadata: dict, reference: object, slots: dict = SLOTS) -> Example:
    return Example(
        id=id,
        task="t1_parse",
        system="",
        prompt=f"the prompt of {id} </pre><b>",
        response=json.dumps(reference),
        slots=slots,
        metadata=metadata,
        schema_version="1",
        source_sha256="0" * 64,
    )


def prediction(id: str, output: str, number: int) -> Prediction:
    valid = output.startswith("{")
    return Prediction(
        id=id,
        task="t1_parse",
        output=output,
        parsed=json.loads(output) if valid else None,
        valid_json=valid,
        valid_schema=valid,
        repaired=False,
        prompt_tokens=100 * number,
        completion_tokens=10 * number,
        latency_ms=10.0 * number,
        finish_reason="stop",
        backend="by hand",
    )


def write_predictions(name: str, answers: list[str]) -> Path:
    path = Path("reports") / RUN / ("predictions.jsonl" if name == TUNED else f"predictions.{name}.jsonl")
    write_jsonl(
        path, [prediction(row[0], answer, n) for n, (row, answer) in enumerate(zip(ROWS, answers, strict=True), 1)]
    )
    return path


def make_run() -> Path:
    """Makes the run in the working folder, a project; returns its report folder."""
    write_run(RUN, [example(*row[:3]) for row in ROWS])
    for name, answers in ANSWERS.items():
        write_predictions(name, answers)
    return Path("reports") / RUN
