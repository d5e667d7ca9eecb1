"""The workload: exemplars of the samples, personas of one's own, and the dataset steps in a project folder."""

import json
import random
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from potstill import grading, slots, workload
from potstill.files import canonical_json
from potstill.models import load_tokenizer
from potstill.records import Example, Exemplar, Prediction, read_jsonl
from potstill.stop import DATA, USAGE, Stop
from potstill.workloads import cricket, cricket_facts, cricket_match, cricket_names, cricket_simulator, cricket_writer
from potstill.workloads.cricket_simulator import Plan
from potstill.workloads.cricket_yaml import as_yaml
from scripts.dataset import clean, convert, split, stats
from tests.projects import REPO, make_project

SAMPLES = REPO / "data/samples/cricket"


@cache
def rows() -> list[Exemplar]:
    return list(cricket.convert(SAMPLES))


def line_of(row: Exemplar) -> str:
    return json.loads(row.response_strong)["line"]


# --- the exemplars


def test_every_answer_is_valid_and_canonical_and_ids_are_unique():
    assert len({row.id for row in rows()}) == len(rows()) >= 3500
    for row in rows():
        answer = cricket.Answer.model_validate_json(row.response_strong)
        assert canonical_json(answer.model_dump()) == row.response_strong
    assert len({row.prompt_text for row in rows()}) == len(rows())


def test_lines_vary_and_every_persona_calls_every_kind_of_ball():
    assert len({row.response_strong for row in rows()}) > 0.99 * len(rows())
    seen = Counter((row.metadata["persona"], row.metadata["kind"]) for row in rows())
    kinds = {kind for _, kind in seen}
    assert kinds == set(cricket_writer.Type.__args__)
    assert min(seen[persona, kind] for persona in ("benaud", "greig", "doshi") for kind in kinds) >= 1
    # without its names and numbers a line is not one of a few
    skeletons = set()
    for row in rows():
        ball = cricket_facts.read(row.prompt_text)
        skeletons.add(ball.pattern.sub("#", "".join("0" if c.isdigit() else c for c in line_of(row))))
    assert len(skeletons) > 0.5 * len(rows())


def test_personas_speak_at_their_own_length():
    mean = {}
    for persona in ("benaud", "greig", "doshi"):
        lengths = [len(line_of(row).split()) for row in rows() if row.metadata["persona"] == persona]
        mean[persona] = sum(lengths) / len(lengths)
    assert mean["benaud"] < 7 < 12 < min(mean["greig"], mean["doshi"])


def test_players_of_a_match_play_in_no_other():
    homes: dict[str, set[str]] = {}
    for path in cricket.matches(SAMPLES / "matches"):
        for ball in cricket_match.deliveries(path):
            for name in (ball.batter, ball.bowler, ball.non_striker):
                homes.setdefault(name.split()[-1].split("-")[0].removeprefix("O'"), set()).add(ball.match)
    assert len(homes) > 450
    assert [name for name, found in homes.items() if len(found) > 1] == []


def test_rows_are_short_enough_for_the_nano_base():
    tokenizer = load_tokenizer(str(REPO / "models/nano"))
    prompts = [len(tokenizer.encode(row.prompt_text)) for row in rows()[::7]]
    answers = [len(tokenizer.encode(row.response_strong)) for row in rows()[::7]]
    assert max(prompts) <= 300
    assert max(answers) <= 100
    assert (sum(prompts) + sum(answers)) * 7 * 0.8 < 700_000


def test_json_and_yaml_of_a_match_give_the_same_exemplars_and_count_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CRICKET_DATA_DIR", str(tmp_path))
    played = cricket_simulator.play(random.Random("alike"), Plan(super_overs=1, overs=10), set())
    (tmp_path / "9.json").write_text(canonical_json(played))
    from_json = list(cricket.convert(SAMPLES))
    (tmp_path / "9.yaml").write_text(as_yaml(played))
    assert list(cricket.convert(SAMPLES)) == from_json
    (tmp_path / "9.json").unlink()
    assert list(cricket.convert(SAMPLES)) == from_json
    assert {row.metadata["group"] for row in from_json} == {"9"}


def test_a_broken_ball_stops_the_conversion_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("CRICKET_DATA_DIR", str(tmp_path))
    with pytest.raises(Stop, match="no match"):
        list(cricket.convert(SAMPLES))
    text = (SAMPLES / "matches/7101.json").read_text()
    (tmp_path / "5.json").write_text(text.replace('"total":1', '"total":2', 1))
    with pytest.raises(Stop, match=r"5\.json innings 1 over \d+ ball \d+: runs.total is 2") as stop:
        list(cricket.convert(SAMPLES))
    assert stop.value.code == DATA


# --- the event


def delivery(**changes) -> cricket_match.Delivery:
    first = next(cricket_match.deliveries(SAMPLES / "matches/7101.json"))
    return first._replace(**{"extras": {}, "wickets": (), "runs_batter": 0, "runs_total": 0, **changes})


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "dot"),
        ({"runs_batter": 2, "runs_total": 2}, "runs"),
        ({"runs_batter": 4, "runs_total": 4}, "four"),
        ({"runs_batter": 4, "runs_total": 4, "non_boundary": True}, "runs"),
        ({"runs_batter": 6, "runs_total": 6}, "six"),
        ({"extras": {"wides": 1}, "runs_total": 1}, "wide"),
        ({"extras": {"noballs": 1}, "runs_batter": 6, "runs_total": 7}, "no_ball"),
        ({"extras": {"byes": 4}, "runs_total": 4}, "byes"),
        ({"extras": {"legbyes": 1}, "runs_total": 1}, "leg_byes"),
        ({"extras": {"penalty": 5}, "runs_total": 5}, "penalty"),
        ({"wickets": (cricket_match.Wicket("bowled", "x", ()),)}, "wicket"),
        ({"wickets": (cricket_match.Wicket("retired hurt", "x", ()),)}, "retired"),
    ],
)
def test_what_a_ball_was(changes, kind):
    assert cricket.kind_of(delivery(**changes)) == kind


def test_only_facts_that_the_ball_has_are_asked_for():
    book = cricket_writer.load(SAMPLES / "personas.yaml")
    caught = delivery(wickets=(cricket_match.Wicket("caught", "x", ("y",)),))
    assert cricket.say(caught, "greig", book) == ["wicket", "batter", "bowler", "fielder"]
    nobody = delivery(wickets=(cricket_match.Wicket("caught", "x", ()),))
    assert cricket.say(nobody, "greig", book) == ["wicket", "batter", "bowler"]
    run_out = delivery(wickets=(cricket_match.Wicket("run out", "x", ("y",)),))
    assert cricket.say(run_out, "greig", book) == ["wicket", "batter", "fielder"]


# --- personas


PERSONA = """
  plain:
    style: plain
    words: [3, 8]
    say: {four: [runs, batter]}
    lines: {four: ["{batter} drives for {runs}."], dot: ["Nothing from {bowler} there."], wicket: ["Out."]}
"""


def with_persona(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "personas.yaml").write_text((SAMPLES / "personas.yaml").read_text() + text)
    return folder / "personas.yaml"


def test_a_persona_of_ones_own_needs_only_the_file(tmp_path):
    book = cricket_writer.load(with_persona(tmp_path, PERSONA))
    four = delivery(runs_batter=4, runs_total=4)
    row = cricket.exemplar(four, "plain", book)
    assert line_of(row) == f"{cricket_names.called(four.batter)} drives for four."
    assert '"words":"3-8","say":["runs","batter"]' in row.prompt_text


def test_a_persona_without_a_true_line_is_one_clear_error(tmp_path):
    book = cricket_writer.load(with_persona(tmp_path, PERSONA.replace("for {runs}", "for six")))
    with pytest.raises(Stop, match=r"persona 'plain' has no true line .* fact_runs: .*Add lines to personas.yaml"):
        cricket.exemplar(delivery(runs_batter=4, runs_total=4), "plain", book)
    with pytest.raises(Stop, match=r"no line for runs"):
        cricket.exemplar(delivery(runs_batter=1, runs_total=1), "plain", book)


def test_a_misspelt_hole_or_key_is_named_with_the_nearest(tmp_path):
    with pytest.raises(Stop, match=r"persona 'plain' .*\{battre\}.*'batter'") as stop:
        cricket_writer.load(with_persona(tmp_path / "a", PERSONA.replace("{batter}", "{battre}")))
    assert stop.value.code == USAGE
    with pytest.raises(Stop, match=r"lines' is missing; unknown key 'personas.plain.lins'.*'lines'"):
        cricket_writer.load(with_persona(tmp_path / "b", PERSONA.replace("lines:", "lins:")))


@pytest.mark.parametrize(
    ("event", "phrase"),
    [
        ({"runs": 1, "extras": {"wides": 1}}, "a wide"),
        ({"runs": 5, "extras": {"wides": 5}}, "five wides"),
        ({"runs": 2, "extras": {"legbyes": 2}}, "two leg byes"),
        ({"runs": 1, "extras": {"noballs": 1}}, "a no-ball"),
        ({"runs": 3, "extras": {"noballs": 1, "byes": 2}}, "a no-ball and byes, three in all"),
        ({"runs": 2, "extras": {"noballs": 1, "legbyes": 1}}, "a no-ball and a leg bye, two in all"),
        ({"runs": 5, "extras": {"penalty": 5}}, ""),
    ],
)
def test_extras_are_called_by_their_names(event, phrase):
    assert cricket_writer.extra_phrase(event) == phrase


# --- the steps


def grades(examples: list[Example], lines: list[str | None]) -> Counter[tuple[str, bool]]:
    """How often each slot passed, graded as eval.judge grades."""
    found: Counter[tuple[str, bool]] = Counter()
    levels = slots.load_levels(REPO / "configs/judge_slots.yaml")
    numbers = {"prompt_tokens": 1, "completion_tokens": 1, "latency_ms": 1.0, "finish_reason": "stop"}
    for example, line in zip(examples, lines, strict=True):
        known = {"id": example.id, "task": example.task, "repaired": False, "backend": "test", **numbers}
        valid = {"valid_json": True, "valid_schema": line is not None}
        answer = Prediction(output="", parsed={"line": line}, **valid, **known)
        for grade in grading.grade(example, answer, levels, cricket.LEVELS):
            assert grade.decided is not None
            assert grade.decided.status == "scored"
            found[grade.slot, bool(grade.decided.passed)] += 1
    return found


def test_the_dataset_steps_keep_every_row_and_whole_matches_and_every_slot_can_be_scored(tmp_path, monkeypatch):
    folder = make_project(tmp_path)
    (folder / "data/samples").unlink()
    samples = folder / "data/samples/cricket"
    (samples / "matches").mkdir(parents=True)
    for path in [SAMPLES / "personas.yaml", SAMPLES / "system.txt", *cricket.matches(SAMPLES / "matches")[:6]]:
        shutil.copy(path, samples / path.relative_to(SAMPLES))
    monkeypatch.chdir(folder)
    workload.load.cache_clear()
    for step in (convert, clean, split, stats):
        step.main(["-w", "cricket"])
    workload.load.cache_clear()
    processed = folder / "data/processed/cricket"
    assert (processed / "rejected.jsonl").read_text() == ""
    splits = {name: list(read_jsonl(processed / f"{name}.v1.jsonl", Example)) for name in ("train", "val", "test")}
    groups = [{row.metadata["group"] for row in found} for found in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 6
    assert min(map(len, splits.values())) > 50
    examples = splits["test"]
    lines = [json.loads(example.response)["line"] for example in examples]
    names = {"runs", "batter", "bowler", "wicket", "fielder", "context", "length"}
    own = grades(examples, lines)
    assert {slot for slot, _ in own} == names
    assert all(passed for _, passed in own)
    assert not any(passed for _, passed in grades(examples, [None] * len(examples)))
    random.Random(3).shuffle(lines)
    others = grades(examples, lines)
    assert all(others[slot, True] < others[slot, False] for slot in ("runs", "batter", "bowler", "fielder"))


def test_the_workload_file_and_the_module_agree(monkeypatch):
    monkeypatch.chdir(REPO)
    workload.load.cache_clear()
    job = workload.load("cricket")
    assert job.settings.schema_version == cricket.SCHEMA_VERSION
    levels = {spec.level for spec in job.settings.tasks[cricket.TASK].slots.values()}
    assert levels | {spec.level for spec in cricket.FIELDER_SLOT.values()} == set(cricket.LEVELS)
    assert not levels & {*slots.RULES, "llm_similarity"}
    assert cricket_facts.read(job.settings.demo_message) is not None
    assert job.check(cricket.TASK, {"line": "two\nlines"})[0] is None
    assert job.check(cricket.TASK, {"line": "Four."})[0] == {"line": "Four."}
    workload.load.cache_clear()
