"""Reads a model's output: strict JSON first, repaired JSON apart, schema last. The output is hostile input."""

import json
from dataclasses import dataclass
from typing import Any

from potstill.files import canonical_json
from potstill.records import Example, Prediction
from potstill.workload import Workload

# a deeply nested answer would exhaust the parser's stack before any schema could refuse it
MAX_DEPTH = 64


@dataclass(frozen=True)
class Answer:
    """`parsed` is null when there is no JSON value even after repair. `valid_json` is about the text as it came."""

    parsed: Any
    valid_json: bool
    repaired: bool


def parse(output: str) -> Answer:
    """Parses an answer. Strict means: one JSON value, no prose around it, no NaN, no repeated key."""
    if _depth(output) > MAX_DEPTH:
        return Answer(None, False, False)
    try:
        value = json.loads(output, object_pairs_hook=_unique, parse_constant=_refuse)
        # an escaped lone surrogate or a number beyond a float parses, but can be written into no file
        if _writable(value):
            return Answer(value, True, False)
    except ValueError:
        pass
    import json_repair

    repaired = json_repair.loads(output)
    # json_repair answers "" for text without any JSON
    if not isinstance(repaired, dict | list) or not repaired or not _writable(repaired):
        return Answer(None, False, False)
    return Answer(repaired, False, True)


def predict_row(
    workload: Workload,
    *,
    id: str,
    task: str,
    output: str,
    prompt_tokens: int,
    completion_tokens: int,
    latency_ms: float,
    finish_reason: Any,
    backend: str,
) -> Prediction:
    """The prediction row of one output. `valid_schema` needs a strictly valid answer; a repaired one is not valid."""
    answer = parse(output)
    checked, _ = workload.check(task, answer.parsed) if answer.parsed is not None else (None, "")
    return Prediction(
        id=id,
        task=task,
        output=output,
        parsed=answer.parsed,
        valid_json=answer.valid_json,
        valid_schema=answer.valid_json and checked is not None,
        repaired=answer.repaired,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        latency_ms=latency_ms,
        finish_reason=finish_reason,
        backend=backend,
    )


def uncounted(workload: Workload, example: Example, output: str, backend: str) -> Prediction:
    """The prediction row of an output that is only graded: its tokens and its time were not counted."""
    return predict_row(
        workload,
        id=example.id,
        task=example.task,
        output=output,
        prompt_tokens=0,
        completion_tokens=0,
        latency_ms=0.0,
        finish_reason="stop",
        backend=backend,
    )


def _writable(value: Any) -> bool:
    try:
        canonical_json(value).encode()
    except ValueError:
        return False
    return True


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
