import io
import json
import os
import random
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import models, runs, snapshots, workload
from potstill.files import sha256_file, write_json
from potstill.stop import DATA, OK, USAGE, Stop
from potstill.workloads import sibyl, sibyl_play
from potstill.workloads import sibyl_board_view as view
from potstill.workloads import sibyl_game as game
from potstill.workloads import sibyl_policy as policy
from potstill.workloads import sibyl_rules as rules
from potstill.workloads import sibyl_text as text
from potstill.workloads.sibyl_game import Decision, Ended, Position, Taken, Turn, Undone
from potstill.workloads.sibyl_person import person, read_turn
from potstill.workloads.sibyl_rules import Action, Board, Unit
from projects import REPO, make_project

FEW = settings(max_examples=30, deadline=None)
LOG = REPO / "data/samples/sibyl/training/training-0001.json"
WREN = Unit("Wren", "ember", "archer", (2, 2), 8, 8, move=2, reach=3, damage=3, ability="trap", recharge=3)
SAGE = Unit("Sage", "ember", "healer", (2, 4), 3, 8, move=2, reach=2, damage=2, ability="heal", recharge=2)
BEAR = Unit("Bear", "tide", "giant", (4, 2), 6, 11, move=3, reach=1, damage=4)
WAIT = Action("wait")
PASS = Decision("", (WAIT, WAIT))
ACT = {"type": "wait", "target": None, "position": None}
STRIKE = Decision("", (Action("attack", "Bear"), WAIT))


def position(*units: Unit, place: int = 0, begun: bool = False) -> Position:
    board = Board(3, 7, 7, frozenset(), frozenset(), frozenset(), units or (WREN, SAGE, BEAR))
    order = tuple(unit.name for unit in board.units)
    return Position(board, order, dict.fromkeys(order, "Hunt the weakest, then fall back."), place, begun)


def script(*replies):
    """A player that gives one reply after the other, and those who it was asked for."""
    left, asked = list(replies), []

    def decide(turn: Turn):
        asked.append(turn.unit.name)
        return left.pop(0)

    decide.asked = asked
    return decide


def passing(turn: Turn) -> Decision:
    return PASS


def gambler(rng: random.Random):
    """A player of legal actions, and now and then of one that may be none."""

    def decide(turn: Turn) -> Decision:
        thinking, first, second = policy.gamble(turn.board, turn.unit.name, rng)
        if rng.random() < 0.3:
            first = rng.choice([None, Action("fly"), Action("move", None, (9, 9)), Action("attack", turn.unit.name)])
        return Decision(thinking, (first, second))

    return decide


# --- the game


def test_turns_go_round_in_order_and_the_rounds_run_out():
    events = list(game.play(position(place=1), {"ember": passing, "tide": passing}, 2))
    turns = [(event.turn.board.round, event.turn.unit.name) for event in events[:-1]]
    assert turns == [(3, "Sage"), (3, "Bear"), (4, "Wren"), (4, "Sage"), (4, "Bear")]
    assert events[-1] == Ended(events[-2].outcomes[-1][1], None, "the rounds have run out")


def test_the_game_ends_with_the_last_unit_of_a_side_and_nobody_is_asked_for_the_dead():
    ember, tide = script(STRIKE, PASS, STRIKE), script(PASS)
    *_, end = game.play(position(), {"ember": ember, "tide": tide}, 9)
    assert ember.asked == ["Wren", "Sage", "Wren"]
    assert tide.asked == ["Bear"]
    assert end.winner == "ember"
    assert end.why == "one side is left"
    assert [unit.name for unit in end.board.units] == ["Wren", "Sage"]


def test_a_unit_that_falls_before_its_turn_has_none():
    blow = Decision("", (Action("attack", "Wren"), WAIT))
    start = position(BEAR._replace(at=(3, 2)), WREN._replace(hp=2), SAGE)
    ember = script(PASS, PASS)
    events = list(game.play(start, {"tide": script(blow, PASS), "ember": ember}, 2))
    assert ember.asked == ["Sage", "Sage"]
    assert events[-1].winner is None


def test_one_side_alone_has_won_without_a_turn():
    assert list(game.play(position(WREN, SAGE), {}, 5)) == [
        Ended(position(WREN, SAGE).board, "ember", "one side is left")
    ]


def test_a_turn_that_the_log_began_does_not_begin_again():
    burning = WREN._replace(status=(("burn", 2),), cooldown=2)
    for begun, hp, cooldown in ((False, 6, 1), (True, 8, 2)):
        first = next(game.play(position(burning, BEAR, begun=begun), {"ember": passing, "tide": passing}, 1))
        assert (first.turn.unit.hp, first.turn.unit.cooldown) == (hp, cooldown)
    later = list(game.play(position(burning, BEAR, begun=True), {"ember": passing, "tide": passing}, 2))
    assert [event.turn.unit.hp for event in later[:-1] if event.turn.unit.name == "Wren"] == [8, 6]


def test_what_is_not_legal_does_nothing_and_is_counted_and_the_game_goes_on():
    bad = Decision("", (Action("attack", "Sage"), None))
    unread = Decision("", (None, None), "it is not valid JSON", "hello")
    half = Decision("", (Action("move", None, (6, 6)), Action("attack", "Bear")))
    events = list(game.play(position(), {"ember": script(bad, unread, half, PASS), "tide": passing}, 2))
    assert [wrong for wrong, _ in events[0].outcomes] == ["the target is no enemy", "no action"]
    assert {after for _, after in events[0].outcomes} == {events[0].turn.board}
    assert [bool(wrong) for wrong, _ in events[3].outcomes] == [True, False]
    assert game.tally(event for event in events if isinstance(event, Taken)) == {
        "ember": game.Tally(turns=4, actions=8, legal=3, unusable=1),
        "tide": game.Tally(turns=2, actions=4, legal=4, unusable=0),
    }


def test_undo_takes_back_the_last_own_turn_and_all_that_came_after():
    start = position(WREN, BEAR)
    ember = script(STRIKE, "undo", PASS, PASS)
    events = list(game.play(start, {"ember": ember, "tide": passing}, 2))
    kinds = [type(event) for event in events]
    assert kinds == [Taken, Taken, Undone, Taken, Taken, Taken, Taken, Ended]
    assert events[2].turns == 2
    assert events[3].turn == events[0].turn
    assert events[-1].board.unit("Bear") == BEAR


def test_undo_again_and_again_goes_back_a_turn_each_time():
    ember = script(PASS, PASS, PASS, "undo", "undo", "undo", "undo", "quit")
    events = list(game.play(position(BEAR, WREN), {"tide": passing, "ember": ember}, 9))
    assert [event.turns for event in events if isinstance(event, Undone)] == [2, 2, 2, 0]
    assert events[-1].board == rules.begin_turn(position(BEAR, WREN).board, "Wren")


def test_undo_at_the_first_own_turn_takes_nothing_back_and_asks_again():
    ember = script("undo", STRIKE, "quit")
    events = list(game.play(position(BEAR, WREN), {"tide": passing, "ember": ember}, 3))
    assert [type(event) for event in events] == [Taken, Undone, Taken, Taken, Ended]
    assert events[1].turns == 0
    assert ember.asked == ["Wren"] * 3
    assert events[-1].why == "stopped"


@FEW
@given(st.integers(0, 10**6))
def test_random_games_keep_the_rules(seed):
    start = game.fresh(seed)
    player = gambler(random.Random(seed))
    alive = {unit.name for unit in start.board.units}
    for event in game.play(start, dict.fromkeys(("ember", "tide"), player), 6):
        if isinstance(event, Ended):
            sides = {unit.side for unit in event.board.units}
            assert sides == {event.winner} if event.winner else len(sides) == 2
            continue
        assert event.turn.unit.name in alive
        before = event.turn.board
        for wrong, after in event.outcomes:
            assert text.impossible(after) == ""
            assert after == before if wrong else True
            assert all(0 <= unit.cooldown <= unit.recharge for unit in after.units)
            before = after
        now = {unit.name for unit in before.units}
        assert now <= alive
        alive = now


@FEW
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_a_game_with_turns_taken_back_is_the_game_without_them(seed, undone):
    """Whenever a turn is undone, the same replies lead to the same end."""
    start = game.fresh(seed)

    def plain(turn: Turn) -> Decision:
        thinking, first, second = policy.decide(turn.board, turn.unit.name, turn.orders)
        return Decision(thinking, (first, second))

    asked = 0

    def wavering(turn: Turn):
        nonlocal asked
        asked += 1
        return "undo" if asked == undone else plain(turn)

    *want, end = game.play(start, {"ember": plain, "tide": plain}, 4)
    kept: list = []
    for event in game.play(start, {"ember": wavering, "tide": plain}, 4):
        if isinstance(event, Undone):
            kept = kept[: len(kept) - event.turns]
        else:
            kept.append(event)
    assert kept == [*want, end]


# --- positions


def test_a_position_of_a_log_is_the_turn_with_the_prompt_of_training():
    rows = {row.id: row for row in sibyl.convert(REPO / "data/samples/sibyl")}
    events = json.loads(LOG.read_text())["events"]
    for row in (row for row in rows.values() if row.metadata["group"] == "g0001"):
        unit = events[int(row.id.rsplit("-", 1)[1])]["unit"]
        found = game.logged(LOG, row.metadata["round"], unit)
        asked: list[str] = []

        def note(turn: Turn, asked=asked):
            asked.append(text.serialise(turn.board, turn.unit.name, turn.orders))
            return "quit"

        list(game.play(found, {"ember": note, "tide": note}, 1))
        assert asked == [row.prompt_text]


def test_a_log_that_is_played_on_by_its_own_decisions_is_the_log():
    events = json.loads(LOG.read_text())["events"]
    starts = [n for n, event in enumerate(events) if event["type"] == "turn_start"]
    at = next(n for n in starts if events[n]["round"] == 2)
    rest = [n for n in starts if n >= at]
    decided = [tuple(text.read_action(events[n + 1][key]) for key in ("firstAction", "secondAction")) for n in rest]
    player = script(*(Decision("", actions) for actions in decided))
    *turns, end = game.play(game.logged(LOG, 2), {"ember": player, "tide": player}, 99)
    assert [turn.turn.unit.name for turn in turns] == [events[n]["unit"] for n in rest]
    for taken, n in zip(turns, rest, strict=True):
        assert {u.name: (list(u.at), u.hp) for u in taken.turn.board.units} == {
            name: (state["at"], state["hp"]) for name, state in events[n]["units"].items()
        }
    assert end.winner == events[-1]["winner"]


def test_a_round_has_its_own_order_of_turns(tmp_path):
    log = json.loads(LOG.read_text())
    pairs = [list(pair) for pair in pairwise(log["events"]) if pair[0]["type"] == "turn_start"]
    first = [pair for pair in pairs if pair[0]["round"] == 1]
    events = [event for pair in [*reversed(first), *pairs[len(first) :]] for event in pair]
    path = tmp_path / "training-1.json"
    path.write_text(json.dumps(log | {"events": events}))
    assert game.logged(path, 2).order == game.logged(LOG, 2).order
    assert game.logged(path, 1).order == tuple(reversed(game.logged(LOG, 1).order))


def test_a_turn_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(Stop, match=r"no turn of round 44 of Stone\. It has rounds 1 to 6, units Stone, ") as stopped:
        game.logged(LOG, 44, "Stone")
    assert stopped.value.code == DATA
    with pytest.raises(Stop, match="no file is") as stopped:
        game.logged(tmp_path / "training-1.json")
    assert stopped.value.code == USAGE
    log = json.loads(LOG.read_text())
    broken = tmp_path / "training-1.json"
    broken.write_text(json.dumps(log | {"events": [{"type": "turn_start", "unit": ["Stone"]}]}))
    with pytest.raises(Stop, match=r"no usable turn; skipped: event 0: malformed_event"):
        game.logged(broken)


def test_the_same_seed_draws_the_same_position():
    assert game.fresh(7) == game.fresh(7) != game.fresh(8)
    assert sorted(game.fresh(7).order) == sorted(game.fresh(7).orders)


# --- the player who types


def turn(*units: Unit) -> Turn:
    board = position(*units).board
    return Turn(board, board.units[0], "Hunt.")


@pytest.mark.parametrize(
    ("line", "actions"),
    [
        ("move 3,2; attack Bear", (Action("move", None, (3, 2)), Action("attack", "Bear"))),
        ("MOVE (3, 2);trap bear;", (Action("move", None, (3, 2)), Action("trap", "Bear"))),
        ("move 3 2", (Action("move", None, (3, 2)), WAIT)),
        ("wait;wait", (WAIT, WAIT)),
    ],
)
def test_typed_actions_are_read(line, actions):
    assert read_turn(turn(), line) == Decision("", actions)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("atack Bear", "Did you mean 'attack'"),
        ("attack Baer", "Did you mean 'Bear'"),
        ("attack", "attack is not legal: the target is not on the board"),
        ("attack Sage", "the target is no enemy"),
        ("move Bear", "is no cell, want x,y"),
        ("move 9,9", r"move \(9,9\) is not legal: the unit cannot move there"),
        ("move 3,2; move 2,2", "a second move in one turn"),
        ("heal Sage", "the unit has no heal"),
        ("wait; wait; wait", "3 actions, want two"),
        (";", "0 actions, want two"),
    ],
)
def test_what_is_typed_wrong_is_said_and_no_turn(line, why):
    with pytest.raises(ValueError, match=why):
        read_turn(turn(), line)


@FEW
@given(st.integers(0, 10**6))
def test_every_legal_action_that_is_listed_can_be_typed(seed):
    start = game.fresh(seed)
    unit = start.board.units[0]
    asked = Turn(start.board, unit, "")
    listed = [line.split() for line in view.options(start.board, unit.name).split("\n")]
    lines = [f"{kind} {goal}".strip() for kind, *goals in listed for goal in goals or [""]]
    assert [read_turn(asked, line).actions[0] for line in lines] == list(rules.options(start.board, unit.name))


def test_a_person_is_asked_until_the_turn_is_legal_and_the_end_of_input_is_quit(monkeypatch, capsys):
    lines = "?\n\nfly\n? trap Bear\nmove 3,2; attack \x1b[2JBear\nmove 3,2; attack Bear\nundo\nquit\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    ask = person(position().order)
    assert ask(turn()) == Decision("", (Action("move", None, (3, 2)), Action("attack", "Bear")))
    shown = capsys.readouterr().out
    assert "  attack Bear\n  trap Bear\n  guard\n  wait\n" in shown
    assert shown.count("  trap Bear") == 1
    assert shown.count("nothing is done") == 2
    assert "\x1b" not in shown
    assert [ask(turn()), ask(turn()), ask(turn())] == ["undo", "quit", "quit"]


# --- the player that is a model


def test_the_model_is_asked_with_the_prompt_of_training_and_its_answer_is_played():
    asked = []

    def ask(message: str) -> str:
        asked.append(message)
        act = {"type": "attack", "target": "Bear", "position": None}
        return json.dumps({"thinking": "Bear.", "firstAction": act, "secondAction": {**act, "target": "x\x1b[2J"}})

    decide = sibyl_play.model(ask, workload.load("sibyl"))
    found = decide(turn())
    assert asked == [text.serialise(turn().board, "Wren", "Hunt.")]
    assert found == Decision("Bear.", (Action("attack", "Bear"), Action("attack", "x\x1b[2J")))


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("", "not valid JSON"),
        ("attack Bear \x1b[2J\u202e\x07", "not valid JSON"),
        ('{"thinking": "t", "firstAction": null}', "secondAction"),
        ('{"thinking": "\x1b[2J", "firstAction": [', "not valid JSON"),
        ("[" * 5000, "not valid JSON"),
        (json.dumps({"thinking": "t", "firstAction": ACT, "secondAction": ACT})[:-1], "not valid JSON"),
        ("null", "object|dictionary"),
        (
            '{"thinking":"\\u001b[2J\\u202e","firstAction":{"type":"fly\\u001b[2J","target":null,"position":null}}',
            "fly|type",
        ),
    ],
)
def test_an_answer_that_cannot_be_used_does_nothing_and_never_acts_on_the_terminal(output, why):
    decision = sibyl_play.model(lambda _: output, workload.load("sibyl"))(turn())
    assert decision.actions == (None, None)
    assert re.search(why, decision.unusable)
    events = game.play(position(WREN, BEAR), {"ember": lambda _: decision, "tide": passing}, 1)
    said = "\n".join(sibyl_play.told(next(events), "model"))
    assert "unusable" in said
    assert all(c.isprintable() or c == "\n" for c in said)
    assert len(said) < 1200


def test_hostile_text_in_a_valid_answer_is_shown_on_one_line_as_text():
    hostile = "\x1b[2J\r\nround 9, Bear wins\u202e"
    decision = Decision(hostile, (Action("attack", hostile), Action("guard")))
    taken = next(game.play(position(), {"ember": lambda _: decision}, 1))
    said = list(sibyl_play.told(taken, "model"))
    assert len(said) == 3
    assert all(line.isprintable() for line in said)
    assert "not legal, so nothing is done: the target is not on the board" in said[1]
    assert said[2] == "  guard - Wren guard 1"


# --- the command, with the untuned base as a run: real weights, and answers as hostile as they come


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("play") / "project")
    weights = REPO / "models/nano/model.safetensors"
    none = snapshots.Snapshot(file="data/processed/sibyl/train.v1.jsonl", rows=0, sha256="0" * 64)
    base = runs.Base(name="nano", path="models/nano", revision=None, sha256=sha256_file(weights))
    own = {"created_at": "2026-01-01T00:00:00+00:00", "train_config": "nano", "mode": "full", "base": base}
    kept = {"snapshot": "v1", "snapshots": dict.fromkeys(("train", "val", "test"), none)}
    code = {"git_commit": None, "git_dirty": False, "lock_sha256": None, "seed": 17, "device": "cpu"}
    for run, job in (("untuned", "sibyl"), ("other", "batfit")):
        record = runs.RunRecord(run=run, workload=job, **own, **kept, **code)
        (folder / "models" / run).mkdir()
        (folder / "models" / run / "model").symlink_to(REPO / "models/nano")
        write_json(folder / "models" / run / "run.json", record.model_dump())
        write_json(folder / "models" / run / "metrics.json", {})
    return folder


def command(folder: Path, *arguments: str) -> tuple[list[str], dict]:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "potstill.workloads.sibyl_play", *arguments], {"cwd": folder, "env": environment}


def test_the_command_plays_a_run_against_the_policy_and_counts_what_it_cannot_use(folder):
    words, where = command(folder, "--auto", "--against", "policy", "--rounds", "1", "-r", "untuned")
    done = subprocess.run(words, **where, capture_output=True, text=True, timeout=120, input="")
    assert done.returncode == OK, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert sum("unusable, so nothing is done" in line for line in lines) == 3
    assert lines[-3:] == [
        "ember (policy): 3 turns, 6 of 6 actions legal",
        "tide (model): 3 turns, 0 of 6 actions legal, 3 answers unusable",
        "the rounds have run out after 6 turns; no winner",
    ]
    assert all(c.isprintable() or c == "\n" for c in done.stdout)


def played(folder: Path, monkeypatch, capsys, typed: str, *arguments: str) -> list[str]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert sibyl_play.main(list(arguments)) == OK
    return capsys.readouterr().out.splitlines()


def test_a_person_plays_a_position_of_a_log_until_the_input_ends(folder, monkeypatch, capsys):
    arguments = ("-r", "untuned", "--log", str(LOG), "--round", "3", "--unit", "Thunder")
    lines = played(folder, monkeypatch, capsys, "guard; wait\n", *arguments)
    first = game.logged(LOG, 3, "Thunder")
    side = first.board.unit("Thunder").side
    assert lines[0] == view.draw(first.board, roster=first.order).split("\n")[0]
    assert f"{side} (you): 1 turns, 2 of 2 actions legal" in lines
    assert any(line.startswith("round 3, Thunder") and line.endswith(", you") for line in lines)
    assert lines[-1].startswith("stopped after ")


def test_a_turn_that_is_taken_back_is_in_no_tally(folder, monkeypatch, capsys):
    lines = played(folder, monkeypatch, capsys, "guard\nundo\nguard\nundo\nundo\n", "-r", "untuned", "--seed", "8")
    assert [line for line in lines if "taken back" in line or "to take back" in line] == [
        "  2 turns are taken back",
        "  2 turns are taken back",
        "  there is no turn of yours to take back",
    ]
    assert lines[-1] == "stopped after 0 turns; no winner"


def test_a_run_of_another_workload_is_played_and_named_as_such(folder, monkeypatch, capsys):
    lines = played(folder, monkeypatch, capsys, "quit\n", "-r", "other")
    assert lines[0] == "note: other was trained for batfit, not for sibyl"
    assert lines[-1] == "stopped after 0 turns; no winner"


def interrupted(*_):
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_while_the_model_thinks_ends_with_the_tally(folder, monkeypatch, capsys):
    monkeypatch.setattr(models, "stream", interrupted)
    lines = played(folder, monkeypatch, capsys, "", "-r", "untuned", "--auto")
    assert lines[-1] == "interrupted after 0 turns; no winner"


def test_ctrl_c_at_the_prompt_ends_with_the_tally(folder, monkeypatch, capsys):
    class Keyboard(io.StringIO):
        readline = interrupted

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", Keyboard())
    assert sibyl_play.main(["-r", "untuned"]) == OK
    assert capsys.readouterr().out.splitlines()[-1] == "interrupted after 0 turns; no winner"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--side", "embers"), "no side 'embers' on the board"),
        (("--round", "3"), "give the log with --log"),
        (("--against", "policy"), "add --auto"),
        (("--rounds", "0"), "want at least 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(folder, monkeypatch, arguments, why):
    monkeypatch.chdir(folder)
    with pytest.raises(Stop, match=why) as stopped:
        sibyl_play.main(["-r", "untuned", *arguments])
    assert stopped.value.code == USAGE


def test_a_run_that_is_not_trained_is_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(Stop, match="nothere") as stopped:
        sibyl_play.main(["-r", "nothere"])
    assert stopped.value.code == DATA


def test_the_page_shows_what_the_command_shows():
    page = (REPO / "docs/workloads/sibyl.md").read_text(encoding="utf-8")
    shown = text.parse(workload.load("sibyl").settings.demo_message)
    sides = {"ally": "ember", "enemy": "tide"}
    units = tuple(unit._replace(side=sides[unit.side]) for unit in shown.board.units)
    board = shown.board._replace(units=units)
    asked = Turn(board, units[0], shown.orders)
    decision = read_turn(asked, "attack bear; move 1,4")
    taken = Taken(asked, decision, tuple(rules.play_out(board, "Wren", decision.actions)))
    told = [f"Wren: {view.traits(units[0])}. Orders: {shown.orders}", "Wren> attack bear; move 1,4"]
    drawn = view.draw(board, "Wren", [unit.name for unit in units])
    assert "\n".join([drawn, *told, *sibyl_play.told(taken, "you")]) in page
