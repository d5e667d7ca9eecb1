import json
import random
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from potstill import answers, grading, slots, workload
from potstill.files import canonical_json
from potstill.records import Example, Exemplar, read_jsonl
from potstill.stop import DATA, USAGE, Stop
from potstill.workloads import sibyl, sibyl_log, sibyl_simulator
from potstill.workloads import sibyl_policy as policy
from potstill.workloads import sibyl_text as text
from projects import REPO, make_project, run_script

SAMPLES = REPO / "data/samples/sibyl"
NOWHERE = Path("nowhere")


@cache
def samples() -> list[Exemplar]:
    return list(sibyl.convert(SAMPLES))


@pytest.fixture(autouse=True)
def _no_folder_of_the_users(monkeypatch):
    monkeypatch.delenv("SIBYL_TRAINING_DIR", raising=False)


@cache
def game_text(number: int = 1) -> str:
    return (SAMPLES / f"training/training-{number:04d}.json").read_text(encoding="utf-8")


@pytest.fixture
def log(tmp_path):
    """A game, a folder for logs, and a function that writes the game there."""
    game = json.loads(game_text())

    def write(name: str = "training-0001.json", content: str | None = None, **changes) -> Path:
        (tmp_path / name).write_text(content or json.dumps({**game, **changes}), encoding="utf-8")
        return tmp_path

    write.game, write.folder = game, tmp_path
    return write


def converted(folder: Path, **options) -> list[Exemplar]:
    return list(sibyl.convert(NOWHERE, training_dir=folder, **options))


def winners_turn(game: dict) -> int:
    """The index of a turn_start of the winning side whose decision is an attack followed by something."""
    for index, event in enumerate(game["events"]):
        own = event["type"] == "turn_start" and game["units"][event["unit"]]["side"] == game["winner"]
        if own and game["events"][index + 1]["firstAction"]["type"] == "attack":
            return index
    raise AssertionError("no attack")


# --- the samples


def test_the_samples_are_enough_and_every_class_and_game_is_there():
    rows = samples()
    assert len(rows) >= 2500
    assert len({row.id for row in rows}) == len(rows) == len({row.prompt_text for row in rows})
    assert len({row.metadata["group"] for row in rows}) >= 120
    assert Counter(row.metadata["class"] for row in rows).keys() == sibyl_simulator.CLASSES.keys()
    assert {row.metadata["result"] for row in rows} == {"won"}
    assert {row.metadata["version"] for row in rows} == {"0.5.3", "0.9.3", "0.10.0"}
    assert set(range(1, 9)) <= {row.metadata["round"] for row in rows}
    used = Counter(
        json.loads(row.response_strong)[key]["type"] for row in rows for key in ("firstAction", "secondAction")
    )
    assert used.keys() == set(sibyl.Move.model_fields["type"].annotation.__args__)


def test_what_winners_do_is_what_the_policy_says_of_the_prompt_alone():
    for row in samples():
        shown = text.parse(row.prompt_text)
        thinking, *actions = policy.decide(shown.board, shown.you, shown.orders)
        answer = json.loads(row.response_strong)
        assert answer["thinking"] == thinking
        assert [text.read_action(answer[key]) for key in ("firstAction", "secondAction")] == actions
        assert canonical_json(json.loads(sibyl.Answer.model_validate_json(row.response_strong).model_dump_json())) == (
            row.response_strong
        )


def test_the_committed_games_are_what_their_seed_gives():
    for number in (1, 2, 77, sibyl_simulator.GAMES):
        assert sibyl_simulator.log_text(sibyl_simulator.play_game(number, 17)) == game_text(number)
    assert sibyl_simulator.play_game(3, 17) != sibyl_simulator.play_game(3, 18)
    assert len(list((SAMPLES / "training").glob("training-*.json"))) == sibyl_simulator.GAMES
    assert (SAMPLES / "system.txt").read_text(encoding="utf-8") == sibyl.SYSTEM + "\n"


def test_writing_the_samples_anew_leaves_no_older_games(tmp_path):
    (tmp_path / "training-9999.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    paths = sibyl_simulator.write_games(tmp_path, 17, games=2)
    assert [path.read_text() for path in paths] == [game_text(1), game_text(2)]
    assert {path.name for path in tmp_path.iterdir()} == {"training-0001.json", "training-0002.json", "notes.txt"}


# --- which turns are kept


def test_winners_only_unless_both_sides_are_asked_for(log, capsys):
    won = converted(log())
    assert "losing side" in capsys.readouterr().err
    both = converted(log(), all_sides=True)
    assert capsys.readouterr().err.endswith("left out: nothing\n")
    turns = sum(event["type"] == "turn_start" for event in log.game["events"])
    assert len(both) == turns > len(won) > 0
    assert [row for row in both if row.metadata["result"] == "won"] == won


def test_a_game_without_a_winner_is_kept_on_both_sides_or_not_at_all(log):
    with pytest.raises(Stop, match="games without a winner") as stopped:
        converted(log(winner=None))
    assert stopped.value.code == DATA
    assert {row.metadata["result"] for row in converted(log(winner=None), all_sides=True)} == {"draw"}


def test_versions_are_compared_part_by_part_as_numbers(log, capsys):
    log("training-1.json", version="0.9.3", game="old")
    log("training-2.json", version="0.10.0", game="new")
    assert {row.metadata["version"] for row in converted(log.folder)} == {"0.9.3", "0.10.0"}
    capsys.readouterr()
    assert {row.metadata["version"] for row in converted(log.folder, min_version="0.9.4")} == {"0.10.0"}
    assert "1 games older than --min-version" in capsys.readouterr().err
    assert len(converted(log.folder, min_version="0.9.3.0")) == len(converted(log.folder))
    with pytest.raises(Stop, match="Nothing to convert"):
        converted(log.folder, min_version="1")
    with pytest.raises(Stop, match="numbers joined by dots") as stopped:
        converted(log.folder, min_version="v0.9")
    assert stopped.value.code == USAGE


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_version_keys_order_like_padded_numbers(left, right):
    padded = [tuple((side + [0] * 4)[:4]) for side in (left, right)]
    keys = [sibyl_log.version_key(".".join(map(str, side))) for side in (left, right)]
    assert (keys[0] < keys[1], keys[0] == keys[1]) == (padded[0] < padded[1], padded[0] == padded[1])


def test_the_folder_is_the_option_else_the_variable_else_the_samples(log, monkeypatch, tmp_path):
    log(game="mine")
    elsewhere = tmp_path / "samples"
    (elsewhere / "training").mkdir(parents=True)
    (elsewhere / "training/training-1.json").write_text(game_text())
    assert {row.metadata["group"] for row in sibyl.convert(elsewhere)} == {"g0001"}
    monkeypatch.setenv("SIBYL_TRAINING_DIR", str(log.folder))
    assert {row.metadata["group"] for row in sibyl.convert(elsewhere)} == {"mine"}
    assert {r.metadata["group"] for r in sibyl.convert(elsewhere, training_dir=elsewhere / "training")} == {"g0001"}
    with pytest.raises(Stop, match="no game log"):
        list(sibyl.convert(NOWHERE, training_dir=tmp_path / "nothing"))


def test_an_exemplar_pairs_the_turn_with_its_decision(log):
    at = winners_turn(log.game)
    start, decision = log.game["events"][at : at + 2]
    row = next(row for row in converted(log()) if row.id == f"g0001-{at:04d}")
    shown = text.parse(row.prompt_text)
    assert shown.you == start["unit"]
    assert {unit.name: [*unit.at] for unit in shown.board.units} == {k: v["at"] for k, v in start["units"].items()}
    assert shown.orders == log.game["units"][start["unit"]]["prompt"]
    answer = json.loads(row.response_strong)
    assert list(answer) == ["thinking", "firstAction", "secondAction"]
    assert answer["firstAction"] == {"type": "attack", "target": decision["firstAction"]["target"], "position": None}
    assert (row.metadata["round"], row.metadata["group"]) == (start["round"], "g0001")


def test_names_are_spelt_alike_in_prompt_and_answer(log):
    target = log.game["events"][winners_turn(log.game) + 1]["firstAction"]["target"]
    row = converted(log(content=game_text().replace(target, "Zoe\u0308")))
    named = [r for r in row if "Zo\u00eb" in r.response_strong]
    assert named
    assert not [r for r in row if "e\u0308" in r.prompt_text + r.response_strong]


# --- broken logs: a file that cannot be read stops, a turn that cannot be used is skipped and named


def without(index):
    return lambda events: events[:index] + events[index + 1 :]


def changed(index, **keys):
    return lambda events: [*events[:index], {**events[index], **keys}, *events[index + 1 :]]


def moved(index, unit, **keys):
    return lambda events: changed(index, units={**events[index]["units"], unit: {"at": [0, 0], "hp": 1, **keys}})(
        events
    )


def broken_turns(game: dict) -> dict[str, list]:
    """rule -> ways to break one turn that ask for it."""
    at = winners_turn(game)
    name = game["events"][at]["unit"]
    other = next(unit for unit in game["events"][at]["units"] if unit != name)
    cell = game["events"][at]["units"][other]["at"]
    gone = {key: value for key, value in game["events"][at]["units"].items() if key != name}
    far = {"type": "move", "position": [99, 99]}
    return {
        "missing_decision": [without(at + 1)],
        "two_decisions": [lambda events: [*events[: at + 2], events[at + 1], *events[at + 2 :]]],
        "other_unit": [changed(at + 1, unit=other)],
        "unknown_unit": [changed(at, unit="Nobody"), moved(at, "Nobody"), changed(at, units=gone)],
        "malformed_event": [changed(at, round="3"), changed(at, units=[]), moved(at, other, status={"sleepy": 1})],
        "malformed_decision": [changed(at + 1, thinking=" "), changed(at + 1, firstAction={"target": "Bear"})],
        "impossible_board": [moved(at, name, at=cell), moved(at, other, at=[6, 39]), moved(at, other, hp=500)],
        "illegal_action": [
            changed(at + 1, firstAction={"type": "dance"}),
            changed(at + 1, secondAction=far),
            changed(at + 1, secondAction=game["events"][at + 1]["firstAction"]),
        ],
    }


def test_a_broken_turn_is_skipped_and_its_file_event_and_rule_are_named(log, capsys):
    at = winners_turn(log.game)
    whole = converted(log())
    for rule, ways in broken_turns(log.game).items():
        for way in ways:
            folder = log(events=way(log.game["events"]))
            capsys.readouterr()
            rows = converted(folder)
            said = capsys.readouterr().err
            where = f"skipped {folder}/training-0001.json event {at}: {rule}: {sibyl_log.SKIPS[rule]}"
            assert [line for line in said.splitlines() if line.startswith("skipped")] == [where]
            assert "1 skipped" in said
            assert len(rows) == len(whole) - 1, rule


def test_a_decision_before_any_turn_is_named(log, capsys):
    decision = log.game["events"][winners_turn(log.game) + 1]
    folder = log(events=[decision, *log.game["events"]])
    assert len(converted(folder)) == len(converted(log()))
    assert "event 0: decision_without_turn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"version": "new"}, "version: "),
        ({"version": 3}, "version: "),
        ({"winner": "nobody"}, "winner: want null or a side of `units`: ember, tide"),
        ({"units": {}}, "units: "),
        ({"events": []}, "events: "),
        ({"events": [{"type": "game_start"}, 7]}, "events.1: "),
        ({"game": "../up"}, "game: "),
        ({"board": {"width": 7}}, "board.height: "),
    ],
)
def test_a_log_of_the_wrong_shape_stops_with_its_file_and_key(log, changes, what):
    with pytest.raises(Stop) as stopped:
        converted(log(**changes))
    assert f"{log.folder}/training-0001.json: {what}" in str(stopped.value)
    assert stopped.value.code == DATA


def test_a_truncated_log_stops_with_its_file_and_line(log):
    with pytest.raises(Stop, match=r"training-0001.json: Invalid JSON: EOF .* line 21"):
        converted(log(content="\n".join(game_text().split("\n")[:20]) + "\n"))
    (log.folder / "training-0001.json").write_bytes(b'{"game": "\xff"}')
    with pytest.raises(Stop, match=r"training-0001.json: byte 10 is not UTF-8"):
        converted(log.folder)


def test_the_same_game_twice_is_counted_and_another_game_of_that_name_stops(log, capsys):
    once = converted(log())
    capsys.readouterr()
    log("training-0002.json", content=game_text())
    assert converted(log.folder) == once
    assert "skipped" in (said := capsys.readouterr().err)
    assert "training-0002.json: duplicate_game" in said
    log("training-0002.json", events=log.game["events"][:40])
    with pytest.raises(Stop, match=r"training-0002.json: game 'g0001' is already in .*training-0001.json"):
        converted(log.folder)


def test_no_turn_of_any_log_is_lost_without_a_word(tmp_path, capsys):
    """Random cuts in random games: kept, left out and skipped turns are all the turns there are."""
    rng = random.Random(5)
    turns = 0
    for number in range(1, 7):
        game = json.loads(game_text(number))
        events = [event for event in game["events"] if event["type"] != "agent_decision" or rng.random() < 0.8]
        turns += sum(event["type"] == "turn_start" for event in events)
        (tmp_path / f"training-{number}.json").write_text(json.dumps({**game, "events": events}))
    kept = len(converted(tmp_path))
    said = capsys.readouterr().err.splitlines()
    counts = [int(part.strip().split()[0]) for part in said[-1].split("left out:")[1].split(", ")]
    assert kept + sum(counts) == turns
    assert sum(line.startswith("skipped") for line in said) == counts[-1] > 5


# --- the schema and the slots


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "dance", "target": None, "position": None},
        {"type": "move", "target": None},
        {"type": "move", "target": None, "position": [1]},
        {"type": "move", "target": None, "position": [1, 2, 3]},
        {"type": "move", "target": None, "position": [1, 2.5]},
        {"type": "move", "target": None, "position": [-1, 2]},
        {"type": "wait", "target": 3, "position": None},
        {"type": "wait", "target": None, "position": None, "why": ""},
    ],
)
def test_an_answer_of_the_wrong_shape_breaks_the_schema(broken):
    good = json.loads(samples()[0].response_strong)
    sibyl.Answer.model_validate_json(canonical_json(good))
    with pytest.raises(ValidationError):
        sibyl.Answer.model_validate_json(canonical_json({**good, "secondAction": broken}))


@pytest.fixture
def job(monkeypatch):
    monkeypatch.chdir(REPO)
    workload.load.cache_clear()
    return workload.load("sibyl")


def pass_rates(job, rows: list[Exemplar], outputs: list[str]) -> dict[str, float]:
    levels = slots.load_levels(REPO / "configs/judge_slots.yaml")
    passed = defaultdict(list)
    for row, output in zip(rows, outputs, strict=True):
        specs = job.settings.tasks["turn"].slots
        example = Example(
            id=row.id,
            task=row.task,
            system=row.system_prompt,
            prompt=row.prompt_text,
            response=row.response_strong,
            slots=specs,
            metadata={},
            schema_version="1",
            source_sha256="",
        )
        counts = {"prompt_tokens": 1, "completion_tokens": 1, "latency_ms": 1.0, "finish_reason": "stop"}
        prediction = answers.predict_row(job, id=row.id, task=row.task, output=output, backend="test", **counts)
        for grade in grading.grade(example, prediction, levels, job.levels):
            assert grade.decided is not None
            assert grade.decided.status == "scored", grade
            passed[grade.slot].append(grade.decided.passed)
    return {slot: sum(values) / len(values) for slot, values in passed.items()}


def test_every_slot_passes_its_reference_and_fails_nothing_and_strangers(job):
    rows = samples()[::10]
    strong = [row.response_strong for row in rows]
    assert set(pass_rates(job, rows, strong).values()) == {1.0}
    nothing = {"thinking": None, "firstAction": None, "secondAction": None}
    assert set(pass_rates(job, rows, [canonical_json(nothing)] * len(rows)).values()) == {0.0}
    of_others = pass_rates(job, rows, strong[1:] + strong[:1])
    assert len(of_others) == 9
    assert sum(of_others.values()) / 9 < 0.5
    assert of_others["firstAction"] < 0.25
    assert of_others["thinking"] < 0.15
    idle = {"type": "wait", "target": None, "position": None}
    waits = pass_rates(
        job, rows, [canonical_json({"thinking": "-", "firstAction": idle, "secondAction": idle})] * len(rows)
    )
    assert waits["firstAction"] == waits["secondAction"] == 1.0
    assert waits["firstAction.type"] < 0.1


BOARD = """round 3 board 7x7
orders: Hunt the weakest, then fall back.
you Wren archer (2,3) 7/8 move 2 reach 2 hits 2 trap in 2
enemy Bear giant (4,3) 4/11 hurt hit
enemy Lark knight (5,3) 12/12 near (3,3)"""
STEP = {"type": "move", "target": None, "position": [3, 3]}
STRIKE = {"type": "attack", "target": "Lark", "position": None}


def legal(candidate, prompt: str = BOARD) -> slots.Score:
    return sibyl.LEVELS["legal_action"](None, candidate, prompt=prompt)


def test_legal_action_judges_the_first_alone_and_the_second_after_it():
    assert legal(STEP).passed
    assert not legal(STRIKE).passed
    assert legal({"thinking": "", "firstAction": STEP, "secondAction": STRIKE}).passed
    swapped = legal({"thinking": "", "firstAction": STRIKE, "secondAction": STEP})
    assert swapped.passed  # the strike was out of reach and did nothing; the step is legal
    twice = legal({"thinking": "", "firstAction": STEP, "secondAction": {**STEP, "position": [2, 3]}})
    assert (twice.score, twice.passed, twice.reason) == (0.0, False, "a second move in one turn")
    assert not legal(None).passed
    assert not legal({"type": "trap", "target": "Bear"}).passed


def test_a_prompt_without_a_board_is_an_error_and_no_zero():
    for level in sibyl.LEVELS.values():
        assert level("x", "x", prompt="Who is there?") == (None, None, "error", "the prompt holds no board")


def test_mentions_wants_the_same_units_and_actions_in_whatever_words():
    def score(reference, candidate):
        return sibyl.LEVELS["mentions"](reference, candidate, prompt=BOARD)

    said = "Bear is the weakest in reach: attack, then move back."
    assert score(said, "I attack bear and move away.").passed
    assert score(said, "Attack Lark, then move.").score == pytest.approx(2 / 4)
    assert not score(said, "attack").passed
    assert not score(said, said + " Then guard.").passed
    assert not score(said, None).passed
    assert score("No idea.", "Nothing comes to mind.").passed


def test_play_shows_the_board_before_and_after_and_what_is_not_legal():
    shown = sibyl.play(BOARD, {"firstAction": STEP, "secondAction": STRIKE}).split("\n")
    grids = [line for line in shown if line.startswith("3 ")]
    assert grids == ["3 . . @ . A B .", "3 . . . @ A B .", "3 . . . @ A B ."]
    assert "firstAction: move (3,3)" in shown
    assert [line for line in shown if "Lark" in line][-1] == "B enemy Lark knight (5,3) 10/12"
    bad = sibyl.play(BOARD, {"firstAction": STRIKE})
    assert "firstAction: attack Lark - not legal: the target is out of reach or sight" in bad
    assert bad.endswith("secondAction: no action - not legal: no action")
    assert sibyl.play("hello", {}) == "The prompt holds no board."


def test_the_demo_message_is_a_position(job):
    shown = text.parse(job.settings.demo_message)
    assert text.serialise(shown.board, shown.you, shown.orders) == job.settings.demo_message
    assert job.settings.schema_version == sibyl.SCHEMA_VERSION
    assert (job.samples / job.settings.system_prompt).read_text().strip() == sibyl.SYSTEM


# --- through the steps


def test_the_samples_go_through_convert_clean_split_and_stats(tmp_path):
    folder = make_project(tmp_path / "project")
    for name in ("convert", "clean", "split", "stats"):
        run_script(folder, f"dataset.{name}", "-w", "sibyl")
    processed = folder / "data/processed/sibyl"
    splits = {name: list(read_jsonl(processed / f"{name}.v1.jsonl", Example)) for name in ("train", "val", "test")}
    assert (processed / "rejected.jsonl").read_text() == ""
    assert sum(map(len, splits.values())) == len(samples())
    assert len(splits["train"]) >= 2000
    groups = {name: {row.metadata["group"] for row in rows} for name, rows in splits.items()}
    assert not groups["train"] & groups["test"] | groups["train"] & groups["val"] | groups["val"] & groups["test"]
    assert {row.metadata["class"] for row in splits["test"]} == sibyl_simulator.CLASSES.keys()
    stats = json.loads((folder / "reports/sibyl/dataset_stats.json").read_text())
    train = stats["splits"]["train"]
    assert train["tokens_total"] <= 700_000
    assert train["over_max_length"] == 0
    assert {"class", "round"} <= train["facets"].keys()
