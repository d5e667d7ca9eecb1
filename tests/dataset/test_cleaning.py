import json
from types import SimpleNamespace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from potstill import cleaning
from potstill.records import Example, Exemplar, Reject, SlotSpec
from potstill.workload import Split, Task, Workload, WorkloadConfig


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    size: Literal["small", "large"] | None
    price: float | None


SETTINGS = WorkloadConfig(
    schema_version="1",
    system_prompt="system.txt",
    demo_message="",
    tasks={"parse": Task(max_new_tokens=9, calls_per_day=1, slots={"size": SlotSpec(level="exact")})},
    split=Split(group="group", stratify=["task"], val=0.1, test=0.1, seed=0),
)


def job() -> Workload:
    made = Workload("shop", SETTINGS, SimpleNamespace(SCHEMAS={"parse": Answer}))
    made.system_prompt = "Answer in JSON."
    return made


def exemplar(
    id: str = "1", prompt: str = "a small one", response: str = '{"price":2,"size":"small"}', **more
) -> Exemplar:
    return Exemplar(id=id, task="parse", prompt_text=prompt, response_strong=response, **more)


def test_an_answer_is_made_canonical():
    example = cleaning.clean_row(job(), exemplar(response='{ "price": 2, "size": "small" }'))
    assert isinstance(example, Example)
    # schema order, compact, a number where a number is due
    assert example.response == '{"size":"small","price":2.0}'
    assert example.system == "Answer in JSON."
    assert example.slots == {"size": SlotSpec(level="exact")}


def test_a_rows_own_system_text_and_slots_win():
    row = exemplar(system_prompt="Mine", slot_specs={"price": SlotSpec(level="numeric_tol", tolerance=1.0)})
    example = cleaning.clean_row(job(), row)
    assert example.system == "Mine"
    assert set(example.slots) == {"size", "price"}


def test_an_answer_inside_a_json_string_is_unwrapped():
    assert isinstance(cleaning.clean_row(job(), exemplar(response=json.dumps('{"size":null,"price":null}'))), Example)


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (exemplar(prompt=" \n\t\x00 "), "empty_prompt", "empty"),
        (exemplar(response="Four. Lovely."), "invalid_json", "not JSON"),
        (exemplar(response='"Four. Lovely."'), "invalid_json", "not JSON"),
        (exemplar(response='{"size":"huge","price":1}'), "schema_violation", "size"),
        (exemplar(response='{"size":null}'), "schema_violation", "price: Field required"),
        (exemplar(response='{"size":null,"price":1,"edge":2}'), "schema_violation", "edge"),
        (exemplar(response='{"size":null,"price":NaN}'), "schema_violation", "JSON"),
        (exemplar(metadata={"consent": False}), "no_consent", "consent"),
        (exemplar(slot_specs={"colour": SlotSpec(level="exact")}), "unknown_slot", "colour"),
    ],
)
def test_a_dropped_row_keeps_a_stable_reason(row: Exemplar, reason: str, detail: str):
    result = cleaning.clean_row(job(), row)
    assert isinstance(result, Reject)
    assert result.reason == reason
    assert result.reason in cleaning.REASONS
    assert detail in result.detail


def test_a_reject_never_repeats_the_offending_value():
    result = cleaning.clean_row(job(), exemplar(response='{"size":"sk-secret","price":1}'))
    assert "sk-secret" not in result.model_dump_json()


def test_duplicates_and_conflicts_are_told_apart():
    other = '{"size":"large","price":2}'
    rows = [
        exemplar("a"),
        exemplar("b", prompt="a small one "),
        exemplar("c", response=other),
        exemplar("d", prompt="x"),
    ]
    results = list(cleaning.clean(job(), rows))
    assert [getattr(r, "reason", "kept") for r in results] == ["kept", "duplicate", "conflicting_answer", "kept"]
    assert results[1].detail == "equal to a"


responses = st.sampled_from(['{"size":null,"price":1}', '{"size":"small","price":1}', "{}", "no", "[]", "null"])


@given(st.lists(st.tuples(st.text(max_size=3), responses)))
def test_rows_in_are_rows_kept_and_rejected(pairs):
    rows = [exemplar(str(n), prompt=prompt, response=response) for n, (prompt, response) in enumerate(pairs)]
    results = list(cleaning.clean(job(), rows))
    assert [r.id for r in results] == [r.id for r in rows]


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str):
    once = cleaning.normalise(text)
    assert cleaning.normalise(once) == once
    once.encode("utf-8")
