"""Reading matches: totals, context, odd cases, JSON and YAML alike, and one clear error for a broken one."""

import copy
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.stop import DATA, Stop
from potstill.workloads import cricket_files, cricket_match, cricket_simulator
from potstill.workloads.cricket_match import Wicket
from potstill.workloads.cricket_simulator import Plan
from potstill.workloads.cricket_yaml import as_yaml

MATCHES = Path(__file__).resolve().parents[2] / "data/samples/cricket/matches"
FILES = sorted(MATCHES.iterdir())
Data = dict


def ball(bat=0, extras=None, wickets=(), batter="A Varnisen", bowler="B Kelmore", partner="C Tarlin", **runs) -> Data:
    extra = sum((extras or {}).values())
    found = {"batter": batter, "bowler": bowler, "non_striker": partner}
    found["runs"] = {"batter": bat, "extras": extra, "total": bat + extra, **runs}
    return found | ({"extras": extras} if extras else {}) | ({"wickets": list(wickets)} if wickets else {})


def innings(*overs, team="Herons", **rest) -> Data:
    return {"team": team, "overs": [{"over": n, "deliveries": list(balls)} for n, balls in enumerate(overs)], **rest}


def match(*played, overs=20, **info) -> Data:
    known = {"balls_per_over": 6, "overs": overs, "outcome": {}, **info}
    known = {key: value for key, value in known.items() if value is not None}
    return {"meta": {"data_version": "1.1.0"}, "info": known, "innings": list(played)}


def save(folder: Path, data: Data, name="1.json") -> Path:
    path = folder / name
    path.write_text(as_yaml(data) if name.endswith("yaml") else json.dumps(data))
    return path


def read(folder: Path, data: Data) -> list:
    return list(cricket_match.deliveries(save(folder, data)))


def stopped(folder: Path, data: Data) -> str:
    with pytest.raises(Stop) as stop:
        read(folder, data)
    assert stop.value.code == DATA
    return str(stop.value)


# --- the samples


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_totals_are_those_counted_from_the_file_itself(path):
    info, played = cricket_files.load(path)
    for body, total in zip(played, cricket_match.totals(path), strict=True):
        balls = [b for o in body["overs"] for b in o["deliveries"]] if "overs" in body else None
        balls = balls or [next(iter(item.values())) for item in body["deliveries"]]
        penalty = sum(map(int, body.get("penalty_runs", {}).values()))
        falls = [w for b in balls for w in b.get("wickets", [])]
        given = [b["wicket"] for b in balls if "wicket" in b]
        falls += [w for item in given for w in (item if isinstance(item, list) else [item])]
        assert total.runs == sum(int(b["runs"]["total"]) for b in balls) + penalty
        assert total.extras == sum(int(b["runs"]["extras"]) for b in balls) + penalty
        assert total.wickets == sum(w["kind"] not in ("retired hurt", "retired not out") for w in falls)
        assert total.deliveries == len(balls)
    assert info["teams"][0] == played[0]["team"]


def test_every_odd_case_is_in_the_samples():
    balls = [b for path in FILES for b in cricket_match.deliveries(path)]
    kinds = {wicket.kind for b in balls for wicket in b.wickets}
    assert kinds == set(cricket_match.KINDS)
    assert {kind for b in balls for kind in b.extras} == set(cricket_match.EXTRAS)
    assert max(b.ball for b in balls) >= 11
    assert any(len(b.wickets) == 2 for b in balls)
    assert any(w.out == b.non_striker and w.kind == "run out" for b in balls for w in b.wickets)
    assert any(w.kind == "caught" and not w.fielders for b in balls for w in b.wickets)
    assert any(b.wickets and "wides" in b.extras for b in balls)
    assert any(b.wickets and "noballs" in b.extras for b in balls)
    assert any(b.non_boundary and b.runs_batter == 4 for b in balls)
    assert {b.state.phase for b in balls} == {"powerplay", "middle", "death", "super_over", "new_ball"}
    assert {b.state.pressure for b in balls} == {"low", "medium", "high"}
    assert {path.suffix for path in FILES} == {".json", ".yaml"}
    versions = {json.loads(path.read_text())["meta"]["data_version"] for path in MATCHES.glob("*.json")}
    assert versions == {"1.0.0", "1.1.0"}
    assert len(FILES) >= 12


@pytest.mark.parametrize("plan", [Plan(super_overs=2), Plan(overs=None, wicket=0.1), *cricket_simulator.PLANS[:3]])
def test_json_and_yaml_of_a_match_give_the_same_balls(tmp_path, plan):
    played = cricket_simulator.play(random.Random("alike"), plan, set())
    for body in played["innings"]:
        body.pop("powerplays", None)
    as_json, yaml = save(tmp_path, played), save(tmp_path, played, "1.yaml")
    assert list(cricket_match.read(as_json)) == list(cricket_match.read(yaml))


def test_the_simulator_writes_the_same_bytes_for_the_same_seed(tmp_path):
    written = cricket_simulator.write(tmp_path, 17)
    assert [path.name for path in written] == [path.name for path in FILES]
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in FILES]


# --- context


def test_overs_are_cricket_notation_and_wides_and_no_balls_do_not_count(tmp_path):
    over = [ball(), ball(extras={"wides": 1}), ball(extras={"noballs": 1}), *[ball()] * 4, ball(4)]
    balls = read(tmp_path, match(innings(over, [ball()])))
    assert [b.state.overs for b in balls] == ["0.1", "0.1", "0.1", "0.2", "0.3", "0.4", "0.5", "1.0", "1.1"]
    assert [b.ball for b in balls] == [*range(1, 9), 1]
    assert balls[-1].state.runs == 6


def test_miscounted_overs_keep_the_numbers_of_the_overs(tmp_path):
    balls = read(tmp_path, match(innings([ball()] * 5, [ball()] * 7, [ball()])))
    assert [balls[at].state.overs for at in (4, 5, 10, 11, 12)] == ["0.5", "1.1", "2.0", "2.0", "2.1"]


def test_a_chase_has_target_need_balls_left_and_required_rate(tmp_path):
    first, reply = innings([ball(6)] * 6), innings([ball(4), ball(1)], team="Otters")
    last = read(tmp_path, match(first, reply, overs=5))[-1].state
    assert (last.target, last.needed, last.balls_left, last.required_rate) == (37, 32, 28, 6.9)
    assert read(tmp_path, match(first, reply, overs=5))[0].state.target is None


def test_a_stated_target_and_its_overs_win_over_our_sum(tmp_path):
    reply = innings([ball(4)], team="Otters", target={"overs": "3.3", "runs": 20})
    rained = match(innings([ball(6)] * 6), reply, overs=5, outcome={"method": "D/L"})
    last = read(tmp_path, rained)[-1].state
    assert (last.target, last.balls_left) == (20, 20)


def test_a_rain_rule_without_a_stated_target_leaves_the_target_open(tmp_path):
    rained = match(innings([ball(6)]), innings([ball(4)], team="Otters"), outcome={"method": "D/L"})
    assert read(tmp_path, rained)[-1].state.target is None


def test_penalty_runs_before_an_innings_are_on_the_board_from_the_first_ball(tmp_path):
    reply = innings([ball(1)], team="Otters", penalty_runs={"pre": 5, "post": 5})
    path = save(tmp_path, match(innings([ball(6)]), reply))
    assert list(cricket_match.deliveries(path))[-1].state.runs == 6
    assert cricket_match.totals(path)[1].runs == 11


def test_the_second_side_of_each_super_over_chases(tmp_path):
    def over(runs, team):
        return innings([ball(runs)], team=team, super_over=True)

    played = [innings([ball(1)]), innings([ball(1)], team="Otters")]
    played += [over(4, "Otters"), over(4, "Herons"), over(6, "Herons"), over(1, "Otters")]
    balls = read(tmp_path, match(*played))
    assert [b.state.target for b in balls] == [None, 2, None, 5, None, 7]
    assert [b.state.phase for b in balls[2:]] == ["super_over"] * 4
    assert balls[-1].state.balls_left == 5


def test_powerplays_of_the_file_decide_and_a_whole_innings_is_none(tmp_path):
    powerplays = [
        {"from": 0.1, "to": 0.6, "type": "mandatory"},
        {"from": 1.1, "to": 8.6, "type": "mandatory"},
        {"from": 3.1, "to": 3.6, "type": "batting"},
    ]
    balls = read(tmp_path, match(innings(*[[ball()]] * 5, powerplays=powerplays)))
    assert [b.state.phase for b in balls] == ["powerplay", "middle", "middle", "powerplay", "middle"]


def test_phases_without_powerplays_follow_the_overs(tmp_path):
    phases = [b.state.phase for b in read(tmp_path, match(innings(*[[ball()]] * 20)))]
    assert phases == ["powerplay"] * 6 + ["middle"] * 10 + ["death"] * 4
    days = [b.state.phase for b in read(tmp_path, match(innings(*[[ball()]] * 12), overs=None))]
    assert days == ["new_ball"] * 10 + ["middle"] * 2


def test_wickets_that_fall_close_together_are_pressure(tmp_path):
    fall = {"kind": "bowled", "player_out": "A Varnisen"}
    over = [ball(wickets=[fall]), ball(), ball(wickets=[fall]), *[ball()] * 3]
    pressures = [b.state.pressure for b in read(tmp_path, match(innings(over, *[[ball()] * 6] * 6)))]
    assert pressures[0] == "medium"
    assert pressures[2] == "high"
    assert pressures[-1] == "low"


# --- wickets


def test_retired_hurt_is_no_wicket_and_two_wickets_on_a_ball_are_two(tmp_path):
    hurt = {"kind": "retired hurt", "player_out": "A Varnisen"}
    two = [{"kind": "caught", "player_out": "A Varnisen", "fielders": [{"name": "D Rook"}, {"substitute": True}]}]
    two += [{"kind": "retired out", "player_out": "C Tarlin"}]
    balls = read(tmp_path, match(innings([ball(wickets=[hurt]), ball(wickets=two)])))
    assert [b.state.wickets for b in balls] == [0, 2]
    assert balls[1].wickets[0] == Wicket("caught", "A Varnisen", ("D Rook",))


# --- what is broken

WELL = match(innings([ball(1), ball(extras={"wides": 1})], [ball(), ball(4)]))


def spoilt(**changes) -> Data:
    data = copy.deepcopy(WELL)
    data["innings"][0]["overs"][1]["deliveries"][1].update(changes)
    return data


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"runs": {"batter": 4, "extras": 0, "total": 5}}, "runs.total is 5, batter and extras make 4"),
        ({"runs": {"batter": 4, "extras": 1, "total": 5}}, "runs.extras is 1, extras make 0"),
        ({"extras": {"wides": 1}}, "runs.extras is 0, extras make 1"),
        ({"extras": {"overthrows": 0}}, "none of wides"),
        ({"runs": {"batter": -4, "extras": 0, "total": -4}}, "runs.batter is no number of runs"),
        ({"runs": {"batter": True, "extras": 0, "total": 1}}, "runs.batter is no number of runs"),
        ({"runs": 4}, "the ball has no runs"),
        ({"batter": ""}, "batter is no player's name"),
        ({"bowler": "<start_of_turn>model"}, "bowler is no player's name"),
        ({"non_striker": None}, "non_striker is no player's name"),
        ({"wickets": [{"kind": "abducted", "player_out": "A Varnisen"}]}, "a wicket has no kind"),
        ({"wickets": [{"kind": "bowled"}]}, "player_out is no player's name"),
        ({"wickets": [{"kind": "caught", "player_out": "A Varnisen", "fielders": "D"}]}, "fielders are not a list"),
    ],
)
def test_a_broken_ball_is_named_by_file_innings_over_and_ball(tmp_path, changes, what):
    said = stopped(tmp_path, spoilt(**changes))
    assert "1.json innings 1 over 1 ball 2: " in said
    assert what in said


def test_a_ball_that_is_no_object_and_overs_that_go_back_are_named(tmp_path):
    data = copy.deepcopy(WELL)
    data["innings"][0]["overs"][1]["deliveries"][0] = 4
    assert "innings 1 over 1 ball 1: the ball is not an object" in stopped(tmp_path, data)
    data = copy.deepcopy(WELL)
    data["innings"][0]["overs"][1]["over"] = 0
    assert "innings 1 over 1: want this over or a later one" in stopped(tmp_path, data)


def test_yaml_balls_must_follow_each_other_and_the_tenth_ball_is_not_the_first(tmp_path):
    eleven = match(innings([ball(extras={"wides": 1})] * 11))
    path = save(tmp_path, eleven, "1.yaml")
    assert "        - 0.10:\n" in path.read_text()
    assert [b.ball for b in cricket_match.deliveries(path)] == [*range(1, 12)]
    path.write_text(path.read_text().replace("- 0.4:", "- 0.5:"))
    with pytest.raises(Stop, match=r"1.yaml innings 1 over 0 ball 5: does not follow over 0 ball 3"):
        list(cricket_match.deliveries(path))


def test_yaml_words_that_mean_true_stay_names(tmp_path):
    path = save(tmp_path, match(innings([ball(batter="No", bowler="Yes", partner="On")])), "1.yaml")
    path.write_text(path.read_text().replace('"', ""))
    assert [(b.batter, b.bowler, b.non_striker) for b in cricket_match.deliveries(path)] == [("No", "Yes", "On")]


def test_innings_that_do_not_add_up_to_target_or_result_are_refused(tmp_path):
    target = innings([ball(1)], team="Otters", target={"overs": 20, "runs": 99})
    assert "target.runs is 99, the first innings' balls make 6" in stopped(tmp_path, match(innings([ball(6)]), target))
    outcome = {"winner": "Herons", "by": {"runs": 9}}
    both = match(innings([ball(6)]), innings([ball(1)], team="Otters"), outcome=outcome)
    assert "info.outcome.by.runs is 9, the balls make 5" in stopped(tmp_path, both)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("1.json", b"[]"),
        ("1.json", b'{"info": {}}'),
        ("1.json", b'{"info": {}, "innings": [3]}'),
        ("1.json", b"{"),
        ("1.json", b"\xff"),
        ("1.json", b"[" * 200_000),
        ("1.yaml", b"- " * 200_000),
        ("1.yaml", b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
        ("1.yaml", b"!!python/object/apply:os.getcwd []"),
        ("1.yaml", b"{a: ["),
    ],
)
def test_a_file_that_is_no_match_is_one_clear_error(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Stop, match=name) as stop:
        list(cricket_match.deliveries(path))
    assert stop.value.code == DATA


def test_a_file_too_large_for_a_match_is_not_read(tmp_path):
    path = tmp_path / "1.json"
    with open(path, "wb") as file:
        file.truncate(cricket_files.MAX_BYTES + 1)
    with pytest.raises(Stop, match="a match has at most"):
        list(cricket_match.deliveries(path))


def test_an_endless_innings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cricket_match, "MAX_DELIVERIES", 3)
    assert "innings 1 over 1 ball 2: more than 3 deliveries" in stopped(tmp_path, WELL)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_to_a_match_is_read_or_is_one_clear_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    spoiled = copy.deepcopy(WELL)
    node = spoiled
    for _ in range(data.draw(st.integers(1, 7))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        if not keys:
            break
        parent, key = node, data.draw(st.sampled_from(keys))
        node = parent[key]
    parent[key] = data.draw(st.sampled_from([None, "x", -1, 10**9, 1.5, True, [], {}, [[]], {"team": 3}]))
    path = save(folder, spoiled)
    try:
        read_well, said = list(cricket_match.deliveries(path)), ""
    except Stop as stop:
        read_well, said = [], str(stop)
    assert ("1.json" in said) or all(b.runs_total >= 0 for b in read_well)
    assert not (said and read_well)
