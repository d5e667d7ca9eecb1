"""docs/slots.md: every example in it is true."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill import grading, slots
from potstill.records import Example, Prediction, SlotSpec, Verdict

DOC = Path(__file__).parents[2] / "docs" / "slots.md"
LEVELS = slots.load_levels(Path(__file__).parents[2] / "configs" / "judge_slots.yaml")
BLOCKS = re.findall(r"```(yaml|python)\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
PARSED = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
LEVEL_BLOCKS = [block for block in PARSED if "cases" in block]
LIST_BLOCKS = [block for block in PARSED if "reference" in block]


def score_answer(
    slots: dict[str, Any], reference: Any, candidate: Any, metadata: Any = None, own: Any = None
) -> list[Verdict]:
    """The verdicts of one valid answer, as fab eval.judge writes them."""
    import json

    specs = {name: SlotSpec.model_validate(spec) for name, spec in slots.items()}
    row = {"id": "r", "task": "t", "system": "", "prompt": "", "schema_version": "1", "source_sha256": "0" * 64}
    example = Example(**row, response=json.dumps(reference), slots=specs, metadata=metadata or {})
    answer = {"id": "r", "task": "t", "output": "", "valid_json": True, "valid_schema": True, "repaired": False}
    answer |= {"prompt_tokens": 1, "completion_tokens": 1, "latency_ms": 1.0, "finish_reason": "stop", "backend": "x"}
    prediction = Prediction.model_validate(answer | {"parsed": candidate})
    grades = grading.grade(example, prediction, LEVELS, own or {})
    return [grading.verdict(grade, None, "rule") for grade in grades]


def given(value: Any) -> dict[str, Any]:
    return {} if value == "absent key" else {"a": value}


def test_the_document_has_examples_of_both_kinds():
    assert len(LEVEL_BLOCKS) >= 14
    assert len(LIST_BLOCKS) >= 3


@pytest.mark.parametrize("block", LEVEL_BLOCKS, ids=lambda block: str(block["slot"]))
def test_a_level_scores_as_the_document_says(block):
    for reference, candidate, want in block["cases"]:
        [found] = score_answer({"a": block["slot"]}, given(reference), given(candidate), block.get("metadata"))
        got = "error" if found.status == "error" else found.score
        assert got == (want if want == "error" else pytest.approx(want)), (reference, candidate, found.reason)


@pytest.mark.parametrize("block", LIST_BLOCKS, ids=lambda block: str(block["slots"]))
def test_lists_are_aligned_as_the_document_says(block):
    verdicts = score_answer(block["slots"], block["reference"], block["candidate"])
    assert sorted(v.slot for v in verdicts if not v.passed) == sorted(block["failed"])
    assert any(verdict.passed for verdict in verdicts)


def test_the_levels_and_the_counts_in_python_run():
    names: dict[str, Any] = {"score_answer": score_answer}
    for code in [text for kind, text in BLOCKS if kind == "python"]:
        exec(code, names)  # noqa: S102
    verdicts = score_answer(
        {"a": {"level": "anls", "threshold": 0.5}}, {"a": "hello world"}, {"a": "hello word"}, own=names["LEVELS"]
    )
    assert verdicts[0].passed
    assert 0.9 < verdicts[0].score < 1
    assert not score_answer({"a": {"level": "anls"}}, {"a": "hello"}, {"a": "other"}, own=names["LEVELS"])[0].score
