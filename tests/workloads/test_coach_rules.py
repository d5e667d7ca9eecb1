"""Training load, and the safety rules on plans made by hand and by chance."""

import math
import random
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import config
from potstill.stop import Stop
from potstill.workloads import coach_athletes, coach_load, coach_rules
from potstill.workloads.coach_load import Fitness, Rules
from potstill.workloads.coach_rules import free_days, propose, propose_week, violations
from potstill.workloads.coach_state import DAYS, Athlete, DayPlan, Modification, Planned, State, Week, Workout, name
from projects import REPO

RULES = coach_load.load_rules(REPO / "data/samples/coach/rules.yaml")
MONDAY = date(2026, 3, 9)


# --- load


def test_ctl_and_atl_follow_the_formula_by_hand():
    day = timedelta(1)
    loads = {MONDAY: 100.0, MONDAY + 2 * day: 50.0}
    ctl, atl = 40.0, 60.0
    for load in (100.0, 0.0, 50.0):
        ctl = ctl * math.exp(-1 / 42) + load * (1 - math.exp(-1 / 42))
        atl = atl * math.exp(-1 / 7) + load * (1 - math.exp(-1 / 7))
    found = coach_load.fitness(loads, MONDAY, Fitness(40.0, 60.0), MONDAY + 3 * day, RULES)
    assert found == pytest.approx((ctl, atl))
    assert found.tsb == pytest.approx(ctl - atl)


def test_todays_load_does_not_count_for_todays_form():
    assert coach_load.fitness({MONDAY: 500.0}, MONDAY, Fitness(10.0, 20.0), MONDAY, RULES) == (10.0, 20.0)


def test_after_forty_two_days_of_the_same_load_ctl_has_come_63_percent_of_the_way():
    loads = {MONDAY + timedelta(n): 80.0 for n in range(42)}
    found = coach_load.fitness(loads, MONDAY, Fitness(0.0, 0.0), MONDAY + timedelta(42), RULES)
    assert found.ctl == pytest.approx(80 * (1 - math.exp(-1)))
    assert found.atl == pytest.approx(80 * (1 - math.exp(-6)))


def test_an_hour_at_threshold_weighs_what_the_intensity_factor_says():
    assert coach_load.load_of(60, "hard", RULES) == pytest.approx(84.64)
    assert coach_load.load_of(30, "easy", RULES) == pytest.approx(21.125)
    assert coach_load.load_of(0, "none", RULES) == 0


@pytest.mark.parametrize(
    ("tsb", "band"),
    [(5, "fresh"), (4.9, "ok"), (-10, "ok"), (-10.1, "tired"), (-25, "tired"), (-25.1, "spent")],
)
def test_bands_of_form(tsb, band):
    assert coach_load.band(tsb, RULES) == band


def test_bands_of_load_and_the_floor_of_a_beginner():
    assert coach_load.week_limit(40, RULES) == pytest.approx(364)
    assert coach_load.week_limit(2, RULES) == 150
    assert [coach_load.load_band(week, 100, RULES) for week in (89, 90, 100, 101)] == ["under", "near", "near", "over"]


def test_rules_with_a_misspelt_key_or_bands_in_disorder_are_refused(tmp_path):
    text = (REPO / "data/samples/coach/rules.yaml").read_text()
    for bad in (text.replace("rest_days", "rest_day"), text.replace("fresh: 5", "fresh: -20")):
        (tmp_path / "rules.yaml").write_text(bad)
        with pytest.raises(Stop, match=r"rules\.yaml"):
            config.load(tmp_path / "rules.yaml", Rules)


# --- the rules, one by one. Wednesday and Sunday are free; with CTL 50, seven days may hold 455, and 324 are planned

EASY, HARD, LONG = DayPlan("endurance", 60, "easy"), DayPlan("intervals", 60, "hard"), DayPlan("long", 100, "easy")
WEEK = {0: EASY, 1: HARD, 3: HARD, 4: EASY, 5: LONG}


def state(week=WEEK, today=MONDAY, off=(), past=(), ctl=50.0, **changes) -> State:
    athlete = Athlete(
        id="a1",
        goal="build",
        off=list(off),
        hard=["Tue", "Thu"],
        long="Sat",
        rest_days=1,
        max_min=150,
        ctl=ctl,
        atl=ctl,
        since=MONDAY,
    )
    plan = [Planned(at + 1, MONDAY + timedelta(at), session) for at, session in week.items()]
    return State(athlete.model_copy(update=changes), today, tuple(past), tuple(plan))


def change(action, id, session=None, day=None) -> Modification:
    type, minutes, level = session or (None, None, None)
    # a workout a day from Monday, id 1, on
    at = None if id is None else DAYS[(id - 1) % 7]
    return Modification(why="request", at=at, id=id, action=action, day=day, type=type, min=minutes, level=level)


def codes(given: State, *changes: Modification) -> list[str]:
    return [reason.code for reason in propose(given, changes, RULES).reasons]


REST = DayPlan("rest", 0, "none")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (change("none", None), []),
        (change("rest", 2, REST), []),
        (change("replace", 2, DayPlan("recovery", 30, "easy")), []),
        (change("shorten", 2, HARD._replace(min=30)), []),
        (change("shorten", 2, HARD), ["not_shorter"]),
        (change("shorten", 2, HARD._replace(min=70)), ["not_shorter"]),
        (change("shorten", 2, HARD._replace(min=10)), ["minutes"]),
        (change("shorten", 2, DayPlan("intervals", 30, "easy")), ["not_as_planned"]),
        (change("shorten", 2, DayPlan("tempo", 30, "hard")), ["not_as_planned"]),
        (change("lengthen", 1, EASY._replace(min=70)), []),
        (change("lengthen", 1, EASY), ["not_longer"]),
        (change("lengthen", 1, EASY._replace(min=91)), ["not_longer"]),
        (change("lengthen", 6, LONG._replace(min=160)), ["minutes", "not_longer"]),
        (change("replace", 1, EASY._replace(min=150)), ["not_longer"]),
        (change("replace", 1, HARD), ["hard_in_a_row"]),
        (change("replace", 1, DayPlan("tempo", 90, "moderate")), []),
        (change("move", 2, HARD, "Wed"), ["hard_in_a_row"]),
        (change("move", 2, HARD, "Sun"), []),
        (change("move", 2, HARD, "Mon"), ["not_free"]),
        (change("move", 2, HARD, "Tue"), ["not_free"]),
        (change("move", 2, HARD._replace(min=50), "Sun"), ["not_as_planned"]),
        (change("swap", 2, HARD, "Sat"), []),
        (change("swap", 1, EASY, "Thu"), ["hard_in_a_row"]),
        (change("swap", 2, HARD, "Wed"), ["nothing_to_swap", "hard_in_a_row"]),
        (change("swap", 2, HARD, "Tue"), ["nothing_to_swap"]),
        (change("rest", 77, REST), ["no_such_workout"]),
    ],
)
def test_what_is_allowed_and_what_is_refused(wanted, found):
    assert codes(state(), wanted) == found


def test_every_reason_is_given_at_once():
    wanted = change("lengthen", 6, DayPlan("long", 200, "hard"))
    assert set(codes(state(), wanted)) >= {"not_as_planned", "minutes", "not_longer", "week_load"}


def test_the_past_and_what_is_done_are_not_edited():
    today = MONDAY + timedelta(3)
    assert codes(state(today=today), change("rest", 2, REST)) == ["past"]
    given_state = state()
    done = given_state._replace(plan=tuple(item._replace(done=item.id == 1) for item in given_state.plan))
    assert codes(done, change("rest", 1, REST)) == ["past"]
    assert codes(state(), change("rest", 1, REST)) == []


def test_what_lies_more_than_six_days_ahead_is_out_of_reach():
    assert codes(state({7: EASY}), change("rest", 8, REST)) == ["no_such_workout"]


def test_nothing_moves_to_a_day_off_either_way():
    assert codes(state(off=["Sun"]), change("move", 1, EASY, "Sun")) == ["off_day"]
    assert codes(state(off=["Sat"]), change("swap", 1, EASY, "Sat")) == ["off_day"]
    assert codes(state(off=["Mon"]), change("swap", 6, LONG, "Mon")) == ["off_day"]


def test_a_rest_cannot_be_moved_swapped_or_replaced():
    given_state = state({0: REST, 1: EASY})
    assert codes(given_state, change("move", 1, REST._replace(type="recovery", min=30, level="easy"), "Wed")) == [
        "not_as_planned",
        "no_such_workout",
    ]
    assert "no_such_workout" in codes(given_state, change("replace", 1, EASY))


def test_the_load_of_seven_days_counts_what_was_recorded():
    heavy = [Workout(MONDAY - timedelta(n), LONG, 70.0) for n in (1, 2, 3)]
    light_week = {0: EASY, 2: EASY}
    longer = change("lengthen", 1, EASY._replace(min=80))
    assert codes(state(light_week, ctl=30.0), longer) == []
    # 210 recorded and 84 planned; seven days may hold 273
    assert codes(state(light_week, ctl=30.0, past=heavy, since=MONDAY - timedelta(1)), longer) == ["week_load"]


def test_a_plan_that_is_too_heavy_may_get_lighter_but_not_heavier():
    given_state = state(ctl=20.0)
    assert violations(given_state, RULES)
    assert codes(given_state, change("shorten", 2, HARD._replace(min=50))) == []
    assert codes(given_state, change("lengthen", 1, EASY._replace(min=70))) == ["week_load"]


def test_an_athlete_may_ask_for_more_rest():
    week = {0: EASY, 1: HARD, 3: HARD, 4: EASY}
    extra = change("swap", 1, EASY, "Fri")
    assert codes(state(week, rest_days=3), extra) == []
    six = {at: DayPlan("recovery", 20, "easy") for at in range(6)}
    heavier = propose(state(six, rest_days=1), [change("move", 1, six[0], "Sun")], RULES)
    assert [reason.code for reason in heavier.reasons] == []
    seven_in_a_row = {at: DayPlan("recovery", 20, "easy") for at in (0, 1, 2, 3, 4, 5, 7)}
    assert codes(state(seven_in_a_row), change("move", 1, six[0], "Sun")) == ["rest_days"]


def test_a_rule_broken_by_the_second_change_refuses_both():
    first, second = change("move", 6, LONG, "Sun"), change("move", 2, HARD, "Wed")
    assert codes(state(), first) == []
    assert codes(state(), first, second) == ["hard_in_a_row"]


def test_two_changes_that_are_right_together_are_allowed_though_the_first_alone_is_not():
    first, second = change("move", 2, HARD, "Wed"), change("rest", 4, REST)
    assert codes(state(), first) == ["hard_in_a_row"]
    assert codes(state(), first, second) == []


def test_small_steps_on_one_workout_are_no_way_round_the_limit():
    steps = [change("lengthen", 1, EASY._replace(min=90)), change("lengthen", 1, EASY._replace(min=120))]
    assert "twice" in codes(state(), *steps)


def week(**days) -> Week:
    return Week.model_validate({**dict.fromkeys(DAYS, tuple(REST)), **{day: tuple(plan) for day, plan in days.items()}})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (week(Mon=EASY, Tue=HARD, Thu=HARD, Sat=LONG), []),
        (week(Tue=HARD, Wed=HARD), ["hard_in_a_row"]),
        (week(Sun=EASY), ["off_day"]),
        (week(Mon=EASY._replace(min=151)), ["minutes"]),
        (week(Mon=LONG, Tue=HARD, Wed=LONG, Thu=HARD, Fri=LONG, Sat=LONG), ["week_load"]),
    ],
)
def test_next_week_is_held_against_the_same_rules(wanted, found):
    proposal = propose_week(state({}, off=["Sun"], ctl=40.0), wanted, RULES)
    assert [reason.code for reason in proposal.reasons] == found
    assert all(item.day >= MONDAY + timedelta(7) for item in proposal.state.plan)


def test_next_week_is_checked_against_the_last_days_of_this_one():
    assert [r.code for r in propose_week(state({6: HARD}), week(Mon=HARD), RULES).reasons] == ["hard_in_a_row"]


# --- for any athlete


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_whatever_is_asked_the_plan_never_gets_worse_and_nothing_else_changes(seed, data):
    given_state = coach_athletes.draw_state(RULES, random.Random(seed))
    action = data.draw(st.sampled_from(["rest", "replace", "shorten", "lengthen", "move", "swap"]))
    ids = [item.id for item in given_state.plan] + [9999]
    session = data.draw(
        st.sampled_from([item.session for item in given_state.plan] + [HARD, EASY._replace(min=240), LONG])
    )
    day = data.draw(st.sampled_from(DAYS)) if action in ("move", "swap") else None
    wanted = change(action, data.draw(st.sampled_from(ids)), REST if action == "rest" else session, day)
    proposal = propose(given_state, [wanted], RULES)
    if proposal.reasons:
        return
    before, after = violations(given_state, RULES), violations(proposal.state, RULES)
    assert all(amount <= before.get(key, 0) + 1e-6 for key, amount in after.items())
    touched = [item for item in proposal.state.plan if item not in given_state.plan]
    assert len(touched) <= (2 if action == "swap" else 1)
    assert sorted(item.id for item in proposal.state.plan) == sorted(item.id for item in given_state.plan)
    assert all(item.day >= given_state.today for item in touched)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_free_days_shown_are_just_those_that_a_move_may_go_to(seed):
    given_state = coach_athletes.draw_state(RULES, random.Random(seed))
    for item in given_state.plan:
        if item.day not in given_state.ahead():
            continue
        moved = change("move", item.id, item.session, "Mon").model_copy(update={"at": name(item.day)})
        allowed = [
            day
            for day in given_state.ahead()
            if not propose(given_state, [moved.model_copy(update={"day": name(day)})], RULES).reasons
        ]
        assert free_days(given_state, item, RULES) == allowed


def test_the_reasons_name_no_text_of_the_model():
    reasons = propose(state(), [change("move", 2, HARD, "Wed"), change("rest", 999, REST)], RULES).reasons
    assert all(reason.code in coach_rules.REASONS for reason in reasons)
