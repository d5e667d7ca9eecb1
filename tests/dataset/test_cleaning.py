import json
from types import SimpleNamespace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from potstill import cleaning, near
from potstill.records import Example, Exemplar, Reject, SlotSpec
from potstill.workload import Grounding, Html, Pii, Split, Task, Workload, WorkloadConfig


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


def through(rows: list[Exemplar]) -> list[Example | Reject]:
    """The rows as dataset.clean takes them: each cleaned on its own, then compared with those before it."""
    seen = near.Deduplicator(None)
    results = [cleaning.clean_row(job(), row) for row in rows]
    return [result if isinstance(result, Reject) else seen.check(result, None) or result for result in results]


def test_duplicates_and_conflicts_are_told_apart():
    other = '{"size":"large","price":2}'
    rows = [
        exemplar("a"),
        exemplar("b", prompt="a small one "),
        exemplar("c", response=other),
        exemplar("d", prompt="x"),
    ]
    results = through(rows)
    assert [getattr(r, "reason", "kept") for r in results] == ["kept", "duplicate", "conflicting_answer", "kept"]
    assert results[1].detail == "equal to a"


responses = st.sampled_from(['{"size":null,"price":1}', '{"size":"small","price":1}', "{}", "no", "[]", "null"])


@given(st.lists(st.tuples(st.text(max_size=3), responses)))
def test_rows_in_are_rows_kept_and_rejected(pairs):
    rows = [exemplar(str(n), prompt=prompt, response=response) for n, (prompt, response) in enumerate(pairs)]
    results = through(rows)
    assert [r.id for r in results] == [r.id for r in rows]


PAGE = (
    "<html><head><title>Small lamp</title><script>spy('a@b.example')</script></head><body><nav><a href='/'>Home</a>"
    "</nav><h1>Small lamp</h1><p class=price>$12.50</p><p>Ask jo.doe@lamps.com</p></body></html>"
)


class Lamp(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    price: float | None
    contact: str | None


def lamp_job(**blocks) -> Workload:
    slots = {
        "name": SlotSpec(level="exact"),
        "price": SlotSpec(level="numeric_tol"),
        "contact": SlotSpec(level="exact"),
    }
    task = Task(max_new_tokens=9, calls_per_day=1, slots=slots)
    made = Workload(
        "lamps",
        SETTINGS.model_copy(update={"tasks": {"parse": task}, **blocks}),
        SimpleNamespace(SCHEMAS={"parse": Lamp}),
    )
    made.system_prompt = "Answer in JSON."
    return made


def lamp(name: str = "Small lamp", price: float = 12.5, prompt: str = PAGE) -> Exemplar:
    answer = {"name": name, "price": price, "contact": "jo.doe@lamps.com"}
    return exemplar("lamp", prompt=prompt, response=json.dumps(answer))


def test_a_page_is_reduced_and_the_words_around_it_stay():
    prompt = f"Page of lamps.com, 2 < 3:\n{PAGE}\nAnswer with the lamp."
    example = cleaning.clean_row(lamp_job(html=Html()), lamp(prompt=prompt))
    assert isinstance(example, Example)
    assert example.prompt.startswith("Page of lamps.com, 2 < 3:\n")
    assert example.prompt.endswith("\nAnswer with the lamp.")
    assert "12.50" in example.prompt
    assert "spy" not in example.prompt
    assert example.metadata["reduction"] == {"raw_chars": len(prompt), "reduced_chars": len(example.prompt)}


def test_a_prompt_with_tag_openers_and_no_tag_is_left_alone():
    prompt = "<a " * 50_000
    example = cleaning.clean_row(lamp_job(html=Html()), lamp(prompt=prompt))
    assert isinstance(example, Example)
    assert example.prompt == prompt.strip()


def test_how_each_value_is_grounded_is_recorded():
    example = cleaning.clean_row(lamp_job(html=Html(), grounding=Grounding()), lamp())
    assert isinstance(example, Example)
    assert example.metadata["grounded"]["name"] == "exact"
    assert example.metadata["grounded"]["price"] in ("exact", "normalised", "typed")


@pytest.mark.parametrize("unfounded", ["flag", "reject"])
def test_a_value_the_page_never_had_is_flagged_or_rejected(unfounded: str):
    blocks = {"html": Html(), "grounding": Grounding(unfounded=unfounded)}
    result = cleaning.clean_row(lamp_job(**blocks), lamp(name="Golden chandelier"))
    if unfounded == "flag":
        assert isinstance(result, Example)
        assert result.metadata["grounded"]["name"] == "unfounded"
    else:
        assert isinstance(result, Reject)
        assert (result.reason, result.detail) == ("ungrounded_value", "name: not in the raw prompt")


def test_a_slot_said_in_other_words_can_be_left_out():
    blocks = {"grounding": Grounding(unfounded="reject", skip=["name"])}
    assert isinstance(cleaning.clean_row(lamp_job(**blocks), lamp(name="Golden chandelier")), Example)


def test_personal_data_gets_one_pseudonym_in_prompt_answer_and_metadata():
    row = lamp().model_copy(update={"metadata": {"source_url": "https://lamps.com/?from=jo.doe@lamps.com"}})
    example = cleaning.clean_row(lamp_job(html=Html(), pii=Pii()), row, bytes(32))
    assert isinstance(example, Example)
    pseudonym = json.loads(example.response)["contact"]
    assert pseudonym != "jo.doe@lamps.com"
    assert pseudonym in example.prompt
    assert pseudonym in example.metadata["source_url"]
    assert "jo.doe" not in example.model_dump_json()
    assert example.metadata["pii"] == {"email": 1}
    # another project's key, another pseudonym
    other = cleaning.clean_row(lamp_job(html=Html(), pii=Pii()), row, bytes([1]) * 32)
    assert pseudonym not in other.prompt
    # a shop's public address stays
    public = lamp_job(html=Html(), pii=Pii(allow=["jo.doe@lamps.com"]))
    assert "jo.doe@lamps.com" in cleaning.clean_row(public, row, bytes(32)).prompt


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str):
    once = cleaning.normalise(text)
    assert cleaning.normalise(once) == once
    once.encode("utf-8")
