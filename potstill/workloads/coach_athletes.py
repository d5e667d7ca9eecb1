"""Made-up athletes: habits, three weeks of records, and a plan from today on, drawn from a seed."""

import random
from collections.abc import Sequence
from datetime import date, timedelta
from typing import get_args

from potstill.workloads.coach_load import Rules, load_of
from potstill.workloads.coach_state import (
    DAYS,
    HORIZON,
    Athlete,
    Day,
    DayPlan,
    Goal,
    Planned,
    State,
    Type,
    Workout,
    name,
)

# days of records
HISTORY = 21
HARD_DAYS: list[list[Day]] = [
    ["Tue", "Thu"],
    ["Tue", "Fri"],
    ["Mon", "Thu"],
    ["Wed", "Sat"],
    ["Wed", "Fri"],
    ["Mon", "Wed"],
]
HARD: list[Type] = ["intervals", "threshold"]
OTHER: list[Type] = ["endurance", "endurance", "recovery", "tempo"]


def draw_state(rules: Rules, rng: random.Random) -> State:
    """An athlete of a made-up level, goal and week, three weeks of records, and the plan from today on."""
    today = date(2026, 1, 1) + timedelta(rng.randrange(365))
    hard, long = _habits(rng)
    off = sorted(rng.sample([day for day in DAYS if day not in (*hard, long)], rng.choice([1, 1, 2])), key=DAYS.index)
    session = 10 * rng.randint(4, 8)
    planned, number = [], rng.randint(11, 80)
    for ahead in range(9):
        day = today + timedelta(ahead)
        plan = _usual(day, hard, long, off, session, rng)
        if plan and rng.random() < 0.8:
            planned.append(Planned(number, day, plan))
            number += rng.randint(1, 2)
    coming = [item.session for item in planned if (item.day - today).days < HORIZON]
    week = sum(load_of(plan.min, plan.level, rules) for plan in coming)
    # what the athlete is used to, so that the week ahead is this share of what the rules allow
    share = rng.choice(
        [rng.uniform(0.6, 0.88), rng.uniform(0.6, 0.88), rng.uniform(0.91, 0.99), rng.uniform(1.02, 1.25)]
    )
    used = max(week / share / rules.load.week_over_chronic / 7, 10.0)
    athlete = Athlete(
        id=f"athlete-{rng.randrange(10**9)}",
        goal=rng.choice(get_args(Goal)),
        off=off,
        hard=hard,
        long=long,
        rest_days=1,
        max_min=rng.choice([120, 150, 180]),
        ctl=round(used),
        atl=round(used),
        since=today - timedelta(HISTORY),
    )
    habits = [
        (day, _usual(day, hard, long, off, session, rng))
        for day in (today - timedelta(b) for b in range(HISTORY, 0, -1))
    ]
    return State(athlete, today, _recorded(habits, used, today, rules, rng), tuple(planned))


def _recorded(
    habits: list[tuple[date, DayPlan | None]], used: float, today: date, rules: Rules, rng: random.Random
) -> tuple[Workout, ...]:
    """Records of a mean daily load of `used`, but for the last week: how hard that was is what form depends on."""
    done = [(day, plan) for day, plan in habits if plan and rng.random() < 0.93]
    scale = used * len(habits) / max(sum(load_of(plan.min, plan.level, rules) for _, plan in done), 1)
    last = rng.choice([0.4, 0.8, 1.0, 1.5, 2.0, 2.6, 2.6])
    past = []
    for day, plan in done:
        factor = scale * rng.uniform(0.9, 1.1) * (last if (today - day).days <= 7 else 1.0)
        past.append(Workout(day, plan, round(load_of(plan.min, plan.level, rules) * factor)))
    return tuple(past)


def _habits(rng: random.Random) -> tuple[list[Day], Day]:
    """Two hard days that are no neighbours, and a long one on another day."""
    hard = rng.choice(HARD_DAYS)
    longs: list[Day] = ["Sun"] if "Sat" in hard else ["Sat", "Sun", "Sun"]
    return hard, rng.choice(longs)


def _usual(
    day: date, hard: Sequence[Day], long: Day, off: Sequence[Day], session: int, rng: random.Random
) -> DayPlan | None:
    at = name(day)
    if at in off:
        return None
    if at in hard:
        return DayPlan(rng.choice(HARD), max(session - rng.choice([0, 10, 20]), 30), "hard")
    if at == long:
        return DayPlan("long", session + rng.choice([20, 30, 40]), "easy")
    type = rng.choice(OTHER)
    minutes = 30 if type == "recovery" else session - rng.choice([0, 10])
    return DayPlan(type, minutes, "moderate" if type == "tempo" else "easy")
