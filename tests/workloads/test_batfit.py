"""BatFit's answer: one object, no prose, no bat geometry; and the rule for what was asked and skipped."""

import json

import pytest
from batfit_rows import NOTHING, answer, samples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from potstill import answers, grading, slots, workload
from potstill.files import canonical_json
from potstill.records import Example, Prediction
from potstill.workloads.batfit_samples import GEOMETRY
from potstill.workloads.batfit_schema import WHY, Answer, Context, interaction, speaks_of_geometry
from projects import REPO

GOOD = {
    "context": {**NOTHING["context"], "pitch_type": "low"},
    "interaction": {**NOTHING["interaction"], "asked": ["pitch_type"], "why_next_question": WHY["preferred_pickup"]},
}


def test_a_whole_answer_is_accepted_and_an_int_weight_becomes_a_float():
    parsed = Answer.model_validate_json(canonical_json(answer(target_weight_lb=3, asked=["target_weight_lb"])))
    assert canonical_json(parsed.model_dump()["context"]["target_weight_lb"]) == "3.0"


@pytest.mark.parametrize(
    "broken",
    [
        {"context": NOTHING["context"]},
        {**NOTHING, "edges_mm": 40},
        {**NOTHING, "context": {**NOTHING["context"], "handle": "oval"}},
        {**NOTHING, "context": {k: None for k in Context.model_fields if k != "pitch_type"}},
        answer(pitch_type="slow"),
        answer(pitch_type=True),
        answer(target_weight_lb="2.8"),
        answer(target_weight_lb=2.2),
        answer(target_weight_lb=3.5),
        answer(target_weight_lb=True),
        answer(asked=["pitch_type", "pitch_type"]),
        answer(asked=["pitch_type"], skipped=["pitch_type"]),
        answer(asked=["playing_style"]),
        answer(asked=None),
    ],
)
def test_a_wrong_answer_is_refused(broken):
    with pytest.raises(ValidationError):
        Answer.model_validate_json(canonical_json(broken))


def test_no_number_is_nan():
    with pytest.raises(ValidationError):
        Context.model_validate({**NOTHING["context"], "target_weight_lb": float("nan")})


@given(st.fixed_dictionaries({field: st.sampled_from(["said", "waved", "open"]) for field in WHY}))
def test_interaction_follows_the_talk(states):
    stated = {"pitch_type": "low", "preferred_pickup": "light", "target_weight_lb": 2.8}
    values = {field: value for field, value in stated.items() if states[field] == "said"}
    result = interaction(
        Context.model_validate({**NOTHING["context"], **values}), [f for f in reversed(WHY) if states[f] == "waved"]
    )
    by_state = {state: [f for f in WHY if states[f] == state] for state in ("said", "waved", "open")}
    assert result.asked == by_state["said"]
    assert result.skipped == by_state["waved"]
    assert result.why_next_question == (WHY[by_state["open"][0]] if by_state["open"] else None)
    assert all(len(why.split()) <= 8 for why in WHY.values())


# --- as the report sees it: potstill/answers.py parses, the schema checks, potstill/grading.py scores


@pytest.fixture
def job(monkeypatch):
    monkeypatch.chdir(REPO)
    workload.load.cache_clear()
    yield workload.load("batfit")
    workload.load.cache_clear()


def predicted(job: workload.Workload, output: str, task: str = "t1_parse") -> Prediction:
    counts = {"prompt_tokens": 1, "completion_tokens": 1, "latency_ms": 1.0}
    return answers.predict_row(job, id="x", task=task, output=output, **counts, finish_reason="stop", backend="merged")


def passed(job: workload.Workload, output: str) -> set[bool | None]:
    """How the slots of an answer fare against the answer that is right."""
    fields = {"id": "x", "task": "t1_parse", "system": "", "prompt": "p", "response": canonical_json(GOOD)}
    specs = job.settings.tasks["t1_parse"].slots
    example = Example(**fields, slots=specs, metadata={}, schema_version="1", source_sha256="0")
    levels = slots.load_levels(REPO / "configs/judge_slots.yaml")
    grades = grading.grade(example, predicted(job, output), levels, {})
    return {grade.decided.passed if grade.decided else None for grade in grades}


def places(value, at=()) -> list[tuple]:
    """Where an object stands in an answer."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    here = [at] if isinstance(value, dict) else []
    return here + [place for key, item in inside for place in places(item, (*at, key))]


def test_a_right_answer_alone_is_valid_and_passes(job):
    assert predicted(job, canonical_json(GOOD)).valid_schema
    assert predicted(job, json.dumps(GOOD, indent=1)).valid_schema
    assert passed(job, canonical_json(GOOD)) == {True}


@pytest.mark.parametrize(
    "around",
    [
        "Here is the JSON: {}",
        "{}\nHope this helps!",
        "```json\n{}\n```",
        "<think>low pitch</think>{}",
        "{}{}",
        "{}\n{}",
        "[{}]",
        "[{},{}]",
        '"{}"',
        "{},",
    ],
)
def test_anything_but_one_object_alone_is_worth_nothing(job, around):
    output = around.replace("{}", canonical_json(GOOD))
    row = predicted(job, output)
    assert not row.valid_schema
    assert passed(job, output) == {False}


def test_a_key_given_twice_is_no_valid_answer(job):
    twice = canonical_json(GOOD)[:-1] + ',"context":' + canonical_json(GOOD["context"]) + "}"
    assert not predicted(job, twice).valid_json


GEOMETRY_KEYS = [*GEOMETRY, "edges", "spine", "handle", "grade", "sweet_spot", "sweetSpot", "bat"]
VALUES = st.sampled_from([None, 65, "65 mm", {}, [], {"edges": 40}])


@given(st.sampled_from(places(GOOD)), st.sampled_from(GEOMETRY_KEYS), VALUES, st.integers(0, 3))
def test_geometry_under_a_key_of_its_own_is_refused_at_every_place_and_depth(place, key, value, depth):
    broken = json.loads(canonical_json(GOOD))
    target = broken
    for step in place:
        target = target[step]
    for _ in range(depth):
        value = {"inner": value}
    target[key] = value
    with pytest.raises(ValidationError):
        Answer.model_validate_json(canonical_json(broken))


@given(st.sampled_from([*Context.model_fields]), st.sampled_from(["spine 65mm", 65, {"spine": 65}, ["edges"]]))
def test_no_value_of_the_context_holds_geometry(field, value):
    with pytest.raises(ValidationError):
        Answer.model_validate_json(canonical_json({**GOOD, "context": {**GOOD["context"], field: value}}))


SMUGGLED = [
    "Spine 65mm suits you.",
    "Thick edges, then.",
    "An oval HANDLE helps.",
    "Grade 1 it is.",
    "G1 it is.",
    "Take English willow.",
    "The sweet spot sits low.",
    "sweetspot low",
    "sweet_spot_mm: 210",
    "edgesMm 40",
    "middle at 210 mm",
    "two hundred millimetres up",
    "five inches from the toe",
    "sp\u00adine 65",
    "\uff53\uff50\uff49\uff4e\uff45 65",
    "e\u200bdges",
]


@pytest.mark.parametrize("text", SMUGGLED)
def test_geometry_in_the_free_text_is_refused_and_costs_every_slot(job, text):
    smuggled = {**GOOD, "interaction": {**GOOD["interaction"], "why_next_question": text}}
    row = predicted(job, canonical_json(smuggled))
    assert (row.valid_json, row.valid_schema) == (True, False)
    _, problem = job.check("t2_repair", smuggled)
    assert problem == "interaction.why_next_question: Value error, speaks of bat geometry, which KERN decides"
    assert passed(job, canonical_json(smuggled)) == {False}


@pytest.mark.parametrize(
    "text",
    [
        *WHY.values(),
        "",
        "You said 2.8 lb; pickup is open.",
        "Weight: 2lb 12oz, so pickup next.",
        "A knowledge of pitches helps.",
        "An upgraded pickup is mishandled by none.",
        "Between 2 and 3 in most weeks.",
        "Gym work decides it.",
    ],
)
def test_other_words_are_no_geometry(text):
    assert not speaks_of_geometry(text)


def test_no_committed_answer_speaks_of_geometry_though_repairs_are_asked_about_it():
    assert any("spine_mm" in row.prompt_text for row in samples())
    said = {json.loads(row.response_strong)["interaction"]["why_next_question"] for row in samples()}
    assert said == {*WHY.values(), None}
    assert not [key for key in GEOMETRY if any(key in row.response_strong for row in samples())]
