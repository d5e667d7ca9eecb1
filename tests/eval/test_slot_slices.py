"""potstill/slicing.py and eval_grounding.py: which rows are in a slice, and which values stand in the prompt."""

from typing import Any

import pytest
from byhand import example, prediction

from potstill.eval_grounding import Grounded, grounded, grounding_rate
from potstill.grading import Row
from potstill.records import Prediction
from potstill.slicing import MAX_DOMAINS, slices_of

PROMPT = 'The "Explorer" bag, 1.299,00 €, SKU EX-1, since 4 March 2025. Colours: Red or blue.'


def graded(number: int, metadata: dict[str, Any], task: str = "t1_parse") -> Row:
    made = example(f"row{number}", metadata, {"a": 1}).model_copy(update={"task": task})
    return Row(made, prediction(made.id, '{"a":1}', 1), [])


def answered(answer: Any, metadata: Any = None) -> tuple:
    row = example("row", metadata or {}, {}).model_copy(update={"prompt": PROMPT})
    made = prediction("row", '{"a":1}', 1)
    return row, Prediction.model_validate(made.model_dump() | {"parsed": answer})


def test_rows_are_grouped_by_task_tenant_domain_and_language():
    rows = [
        graded(1, {"tenant": "acme", "language": "de", "domain": "a.example"}),
        graded(2, {"tenant": "", "language": "en", "domain": "b.example"}, "t2_repair"),
        graded(3, {"tenant": 7, "language": None, "domain": ["x"]}),
    ]
    found = {name: [row.example.id for row in own] for name, own in slices_of(rows).items()}
    assert found == {
        "task=t1_parse": ["row1", "row3"],
        "task=t2_repair": ["row2"],
        "tenant=7": ["row3"],
        "tenant=acme": ["row1"],
        "domain=a.example": ["row1"],
        "domain=b.example": ["row2"],
        "language=de": ["row1"],
        "language=en": ["row2"],
    }
    assert list(found) == [name for kind in ("task", "tenant", "domain", "language") for name in found if kind in name]


def test_domains_are_left_out_where_there_are_too_many():
    rows = [graded(n, {"domain": f"shop{n}.example"}) for n in range(MAX_DOMAINS)]
    assert len(slices_of(rows)) == 1 + MAX_DOMAINS
    assert list(slices_of([*rows, graded(99, {"domain": "another.example"})])) == ["task=t1_parse"]
    assert slices_of([]) == {}


def test_values_of_an_answer_are_looked_up_in_its_prompt():
    answer = {"name": "Explorer", "sku": "EX-1", "date": "2025-03-04", "colours": ["red", "green"], "gone": None}
    assert grounded(*answered(answer | {"sold": True, "note": ""})) == Grounded(4, 5)
    assert grounding_rate(*answered(answer)) == 4 / 5
    assert grounding_rate(*answered(answer), skip=["colours[]"]) == 1
    assert grounding_rate(*answered(answer), skip=["colours"]) == 1
    assert grounding_rate(*answered({"gone": None, "sold": False})) is None


def test_the_language_of_the_row_decides_between_readings():
    assert grounding_rate(*answered({"price": 1299})) == 1
    assert grounding_rate(*answered({"date": "04.03.2025"})) == 0
    assert grounding_rate(*answered({"date": "04.03.2025"}, {"language": "de"})) == 1


@pytest.mark.parametrize(
    "value", [["x" * 20] * 100_000, "1," * 50_000, float("inf"), 10**400, {"a": {"b": [[[[77]]]]}}]
)
def test_a_hostile_answer_is_looked_up_in_bounded_time(value):
    found = grounded(*answered({"a": value}))
    assert found.found == 0
    assert 1 <= found.values <= 1_000


def test_an_answer_that_is_no_json_has_no_values():
    row, made = answered({"name": "Explorer"})
    assert grounding_rate(row, made.model_copy(update={"valid_json": False})) is None
    assert grounding_rate(row, made.model_copy(update={"valid_schema": False})) == 1
