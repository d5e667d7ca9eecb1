"""The coach's answers, samples, generator and slot levels."""

import json
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from pydantic import ValidationError

from potstill import grading, slots, workload
from potstill.answers import predict_row
from potstill.files import canonical_json
from potstill.records import Example, Exemplar, read_jsonl
from potstill.workloads import coach, coach_load, coach_policy, coach_rules, coach_writer
from potstill.workloads.coach_rules import REASONS
from potstill.workloads.coach_state import DAYS, Modification, Talk, Week
from projects import REPO, run_script

SAMPLES = REPO / "data/samples/coach"
BOOK = coach_writer.load(SAMPLES / "phrases.yaml")
RULES = coach_load.load_rules(SAMPLES / "rules.yaml")
SEED = 17


@cache
def samples() -> list[Exemplar]:
    return list(coach.convert(SAMPLES))


def drawn(task: str, count: int) -> list[coach_writer.Row]:
    rng = random.Random(task)
    return [coach_writer.write(BOOK, task, rng.choice(sorted(BOOK.families)), RULES, rng) for _ in range(count)]


# --- the JSON output spec


def test_every_example_of_the_document_is_valid_and_every_task_has_one():
    text = (REPO / "docs/workloads/coach.md").read_text(encoding="utf-8")
    found = re.findall(r"^### (\w+)\n```json\n(.*?)\n```", text, re.MULTILINE | re.DOTALL)
    assert {task for task, _ in found} == set(coach.SCHEMAS)
    for task, block in found:
        parsed = coach.SCHEMAS[task].model_validate_json(block)
        assert canonical_json(parsed.model_dump(mode="json")) == block, task


def test_the_document_lists_every_reason_and_every_word_of_the_schema():
    text = (REPO / "docs/workloads/coach.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| (?!form)", text, re.MULTILINE)[-len(REASONS) :] == list(REASONS)
    words = re.findall(
        r'"(?:enum|const)":\s*(\[[^]]*\])', json.dumps([s.model_json_schema() for s in (Modification, Talk)])
    )
    for word in {word for group in words for word in json.loads(group)}:
        assert f"`{word}`" in text or f"{word} to" in text or word in DAYS, word


def modification(**changes) -> str:
    right = {
        "why": "away",
        "at": "Wed",
        "id": 3,
        "action": "move",
        "day": "Fri",
        "type": "long",
        "min": 90,
        "level": "easy",
    }
    return json.dumps({**right, **changes})


REST = {"day": None, "type": "rest", "min": 0, "level": "none"}
NOTHING = {"action": "none", **dict.fromkeys(("at", "id", "day", "type", "min", "level"))}


def test_right_answers_are_accepted():
    Modification.model_validate_json(modification())
    Modification.model_validate_json(modification(action="rest", **REST))
    Modification.model_validate_json(modification(**NOTHING))


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "delete"},
        {"action": "none"},
        {**NOTHING, "at": "Wed"},
        {"at": None},
        {"at": "today"},
        {"action": "rest"},
        {"action": "shorten"},  # with a day
        {"action": "shorten", **REST},
        {"action": "rest", **REST, "min": 10},
        {"action": "rest", **REST, "level": "easy"},
        {"action": "rest", **REST, "type": "recovery", "min": 30, "level": "none"},
        {"day": None},
        {"day": "Friday"},
        {"id": None},
        {"id": "3"},
        {"id": 3.5},
        {"id": True},
        {"id": 0},
        {"id": -3},
        {"id": 10**9},
        {"min": None},
        {"min": 1441},
        {"min": -1},
        {"min": "90"},
        {"level": "max"},
        {"why": "because"},
        {"note": "x"},
    ],
)
def test_a_wrong_modification_is_refused(changes):
    with pytest.raises(ValidationError):
        Modification.model_validate_json(modification(**changes))


@pytest.mark.parametrize(
    "monday", [["rest", 30, "none"], ["easy", 30, "easy"], ["tempo", 40], ["tempo", 0, "moderate"], None]
)
def test_a_wrong_week_is_refused(monday):
    days = {day: ["rest", 0, "none"] for day in DAYS}
    Week.model_validate_json(json.dumps(days))
    with pytest.raises(ValidationError):
        Week.model_validate_json(json.dumps({**days, "Mon": monday}))
    with pytest.raises(ValidationError):
        Week.model_validate_json(json.dumps({day: days[day] for day in DAYS[:6]}))


@pytest.mark.parametrize(
    "talk", [{"say": "", "do": None}, {"say": "a\nb", "do": None}, {"say": "x", "do": "pay"}, {"say": "x"}]
)
def test_a_wrong_talk_is_refused(talk):
    with pytest.raises(ValidationError):
        Talk.model_validate_json(json.dumps(talk))


# --- the samples and the generator


def test_committed_samples_are_what_the_seed_gives(tmp_path):
    for name in ("phrases.yaml", "rules.yaml"):
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
    for path in coach.make_samples(tmp_path, SEED):
        assert path.read_bytes() == (SAMPLES / path.relative_to(tmp_path)).read_bytes(), path.name


def test_there_are_rows_enough_of_every_task_and_family_and_no_prompt_twice():
    rows = samples()
    assert len(rows) >= 2500
    assert len({row.prompt_text for row in rows}) == len({row.id for row in rows}) == len(rows)
    each = Counter((row.task, row.metadata["group"]) for row in rows)
    assert set(each) == {(task, family) for task in coach.SCHEMAS for family in BOOK.families}
    assert min(each.values()) >= 18


def test_all_decisions_occur_and_doing_nothing_does_not_pay():
    answers = [json.loads(row.response_strong) for row in samples() if row.task == "plan_modification"]
    actions = Counter(answer["action"] for answer in answers)
    assert set(actions) == {"none", "rest", "replace", "shorten", "lengthen", "move", "swap"}
    assert min(actions.values()) > 40
    assert actions["none"] < 0.35 * len(answers)
    assert {answer["why"] for answer in answers} == set(Modification.model_json_schema()["properties"]["why"]["enum"])
    follow_ups = Counter(json.loads(row.response_strong)["do"] for row in samples() if row.task == "conversation")
    assert set(follow_ups) == {"modify_plan", "plan_week", "see_doctor", None}


def test_a_row_fits_the_nano_model():
    from potstill.models import load_tokenizer

    tokenizer = load_tokenizer(str(REPO / "models/nano"))
    for row in samples()[::40]:
        assert len(tokenizer(row.prompt_text, add_special_tokens=False)["input_ids"]) <= 320
        assert len(tokenizer(row.response_strong, add_special_tokens=False)["input_ids"]) <= 100


def test_a_longer_list_begins_with_the_shorter_and_seeds_differ(monkeypatch):
    monkeypatch.chdir(REPO)
    short, long, other = list(coach.generate(5, 3)), list(coach.generate(12, 3)), list(coach.generate(5, 4))
    assert long[:5] == short
    assert len({row.id for row in [*long, *other]}) == 17
    assert len({row.prompt_text for row in [*long, *other]}) == 17


def test_every_exemplar_is_a_change_that_the_rules_allow():
    for row in drawn("plan_modification", 60):
        assert coach_rules.propose(row.state, [row.answer], RULES).reasons == ()
        assert coach_policy.modify(row.state, row.meant, RULES) == row.answer
    for row in drawn("weekly_plan", 40):
        assert coach_rules.propose_week(row.state, row.answer, RULES).reasons == ()


def test_frames_say_nothing_that_the_lexicon_says_and_name_no_day():
    meaning = {word for kind in ("move", "swap", "short", "long") for word in BOOK.lexicon[kind]}
    phrases = {phrase for words in BOOK.lexicon.values() for phrase in words if " " in phrase} | meaning
    days = {day.casefold() for day in coach_writer.FULL.values()} | {"today", "tomorrow"}
    for name, family in BOOK.families.items():
        for kind, frames in family.model_dump().items():
            for frame in frames if isinstance(frames, list) else []:
                bare = f" {re.sub(r'[^a-z ]', ' ', frame.casefold())} "
                words = set(bare.split())
                assert not words & days, (name, frame)
                assert not [phrase for phrase in phrases if f" {phrase.casefold()} " in bare], (name, frame)
                assert ("{p}" in frame) == (kind not in ("open", "close", "aside", "about")), (name, frame)
                assert ("{e}" in frame) == (kind in ("move", "swap")), (name, frame)
                assert ("{n}" in frame) == (kind == "short"), (name, frame)


def test_no_frame_belongs_to_two_families():
    seen: dict[str, str] = {}
    for name, family in BOOK.families.items():
        for kind in ("state", "about", "away", "short", "move", "swap", "past", "long", "ask"):
            for frame in getattr(family, kind):
                # a phrase and its days alone are nobody's own wording
                if re.sub(r"\{\w+\}|\b(to|and|with)\b|\W", "", frame):
                    assert seen.setdefault(frame.casefold(), name) == name, (frame, name)


# --- slot levels


def scored(row: Example, answer, own) -> list:
    levels = slots.load_levels(REPO / "configs/judge_slots.yaml")
    job = workload.load("coach")
    prediction = predict_row(
        job,
        id=row.id,
        task=row.task,
        output=canonical_json(answer),
        prompt_tokens=1,
        completion_tokens=1,
        latency_ms=1.0,
        finish_reason="stop",
        backend="test",
    )
    return [grade.decided for grade in grading.grade(row, prediction, levels, own) if grade.decided]


def test_the_chain_keeps_every_row_and_grades_the_reference_as_right_and_others_as_wrong(project_folder: Path):
    for step in ("dataset.convert", "dataset.clean", "dataset.split"):
        run_script(project_folder, step, "-w", "coach")
    job = workload.load("coach")
    rows = list(read_jsonl(project_folder / "data/processed/coach/test.v1.jsonl", Example))
    train = list(read_jsonl(project_folder / "data/processed/coach/train.v1.jsonl", Example))
    assert len(train) >= 2000
    assert not {row.metadata["group"] for row in rows} & {row.metadata["group"] for row in train}
    for task in coach.SCHEMAS:
        own = [row for row in rows if row.task == task][:40]
        right = [score for row in own for score in scored(row, json.loads(row.response), job.levels)]
        assert all(score.status == "scored" and score.passed for score in right)
        assert len(right) >= 3 * len(own)
        null = [score for row in own for score in scored(row, dict.fromkeys(json.loads(row.response)), job.levels)]
        assert not any(score.passed for score in null)
        others = own[7:] + own[:7]
        wrong = [s for row, o in zip(own, others, strict=True) for s in scored(row, json.loads(o.response), job.levels)]
        assert sum(score.passed for score in wrong) < 0.8 * len(wrong)


PROMPT = """modify
plan
Wed today 41 endurance 60 easy to Fri
Thu tomorrow 43 threshold 60 hard
Fri rest
Sat 44 long 90 easy to Fri
says move 99"""


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({"id": 41, "day": "Fri", "type": "endurance", "min": 60}, True),
        ({"id": 41, "day": "Thu", "type": "endurance", "min": 60}, False),
        ({"at": "Thu", "id": 43, "day": "Fri", "type": "threshold", "min": 60, "level": "hard"}, False),
        ({"id": 41, "day": "Fri", "type": "endurance", "min": 50}, False),
        ({"id": 99, "day": "Fri", "type": "endurance", "min": 60}, False),
        ({"action": "swap", "id": 41, "day": "Sat", "type": "endurance", "min": 60}, True),
        ({"action": "swap", "id": 41, "day": "Fri", "type": "endurance", "min": 60}, False),
        ({"action": "swap", "id": 41, "day": "Wed", "type": "endurance", "min": 60}, False),
        ({"action": "shorten", "id": 41, "day": None, "type": "endurance", "min": 30}, True),
        ({"action": "shorten", "id": 41, "day": None, "type": "endurance", "min": 60}, False),
        ({"action": "lengthen", "id": 41, "day": None, "type": "endurance", "min": 50}, False),
        ({"action": "lengthen", "id": 41, "day": None, "type": "endurance", "min": 70}, True),
        ({"action": "rest", "at": "Thu", "id": 43, **REST}, True),
        (
            {"action": "replace", "at": "Thu", "id": 43, "day": None, "type": "threshold", "min": 60, "level": "hard"},
            False,
        ),
        ({"action": "shorten", "at": "Thu", "id": 41, "day": None, "type": "endurance", "min": 30}, False),
        (NOTHING, True),
    ],
)
def test_on_plan_says_whether_a_change_is_possible(changes, possible):
    answer = json.loads(modification(**changes))
    assert coach.LEVELS["on_plan"](None, answer, prompt=PROMPT).passed is possible


def test_safe_week_wants_days_off_a_rest_day_and_no_two_hard_days_in_a_row():
    easy, hard, rest = ["endurance", 40, "easy"], ["intervals", 40, "hard"], ["rest", 0, "none"]
    week = {**dict.fromkeys(DAYS, easy), "Mon": rest}
    safe = coach.LEVELS["safe_week"]
    assert safe(None, week, prompt="week\noff Mon").passed
    assert not safe(None, week, prompt="week\noff Mon Fri").passed
    assert not safe(None, {**week, "Mon": easy}, prompt="week\noff none").passed
    assert safe(None, {**week, "Tue": hard, "Thu": hard}, prompt="week\noff Mon").passed
    assert not safe(None, {**week, "Tue": hard, "Wed": hard}, prompt="week\noff Mon").passed
    assert not safe(None, {"Mon": rest}, prompt="week\noff Mon").passed


def test_a_number_from_the_athlete_is_no_number_of_the_prompt():
    shown = coach.LEVELS["numbers_shown"]
    prompt = "talk\nctl 46 atl 75 tsb -29 spent\nsays is my form 12?"
    assert shown(None, {"say": "Form is -29.", "do": None}, prompt=prompt).passed
    assert not shown(None, {"say": "Form is 12.", "do": None}, prompt=prompt).passed
    assert not shown(None, {"say": "Form is 29.", "do": None}, prompt=prompt).passed
    assert not shown(None, {"say": None, "do": None}, prompt=prompt).passed
