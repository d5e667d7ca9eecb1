"""What the coach answers: a fixed policy over what the prompt shows. docs/workloads/coach.md has it as a table.

The seeded generator writes its answers with it, so an exemplar is right by construction; a strong model that is asked
instead (scripts/dataset/generate.py --model) is told the same policy in data/samples/coach/teacher.txt.
"""

from typing import Literal, NamedTuple

from potstill.workloads.coach_load import Rules, band, load_band, week_limit
from potstill.workloads.coach_prompt import lengths
from potstill.workloads.coach_rules import free_days
from potstill.workloads.coach_state import (
    DAYS,
    REST,
    Action,
    Day,
    DayPlan,
    Level,
    Modification,
    Planned,
    State,
    Talk,
    Type,
    Week,
    Why,
    name,
)

Wish = Literal["fatigue", "injury", "illness", "more", "fine", "away", "short", "move", "swap", "past"]
Topic = Literal["form", "fitness", "next", "rest", "load", "week", "other", "thanks", "fatigue", "injury", "illness"]
# what replaces a hard workout that would be too much
EASY_OUT = DayPlan("recovery", 30, "easy")
LENGTHEN_BY = 10


class Said(NamedTuple):
    """What a message means. `day` is the one it is about; `to` where a workout should go; `minutes` what there is."""

    wish: Wish
    day: Day | None = None
    to: Day | None = None
    minutes: int | None = None


class WeekWish(NamedTuple):
    """What a message asks of the next week: days off, the day of the long one, minutes of a day, and how one feels."""

    off: tuple[Day, ...] = ()
    long: Day | None = None
    short: tuple[Day, int] | None = None
    unwell: bool = False


def modify(state: State, said: Said, rules: Rules) -> Modification:
    """The modification that the policy makes of a message."""
    fit = state.fitness(rules)
    form = band(round(fit.ctl) - round(fit.atl), rules)
    load = load_band(round(state.week_load(rules)), round(week_limit(fit.ctl, rules)), rules)
    named = next(iter(state.on(state.date_of(said.day))), None) if said.day else None
    if said.wish == "past":
        return nothing("past")
    if said.wish in ("away", "short", "move", "swap"):
        return _reschedule(state, said, named, rules) if named else nothing("empty")
    if said.wish in ("injury", "illness"):
        item = named or state.first()
        why: Why = "injury" if said.wish == "injury" else "illness"
        return change(item, "rest", why, REST) if item else nothing("empty")
    hard = named if named and named.session.level == "hard" else state.first("hard")
    if said.wish == "more":
        return _more(state, form, load)
    if hard is None:
        return nothing("on_track")
    if said.wish == "fine" and form != "spent":
        return _halved(hard, "ramp") if load == "over" else nothing("on_track")
    if form == "spent":
        return change(hard, "replace", "fatigue", EASY_OUT)
    if form == "tired":
        return change(hard, "replace", "fatigue", DayPlan("endurance", hard.session.min, "easy"))
    return _halved(hard, "fatigue") if form == "ok" else nothing("fresh")


def change(item: Planned, action: Action, why: Why, session: DayPlan | None = None, day: Day | None = None):
    type, minutes, level = session or item.session
    return Modification(
        why=why, at=name(item.day), id=item.id, action=action, day=day, type=type, min=minutes, level=level
    )


def nothing(why: Why) -> Modification:
    return Modification(why=why, at=None, id=None, action="none", day=None, type=None, min=None, level=None)


def half(minutes: int) -> int:
    """Half, up to the next five."""
    return -(-minutes // 10) * 5


def _halved(item: Planned, why: Why) -> Modification:
    return change(item, "shorten", why, item.session._replace(min=half(item.session.min)))


def _reschedule(state: State, said: Said, item: Planned, rules: Rules) -> Modification:
    if said.wish == "short":
        assert said.minutes is not None
        if said.minutes >= item.session.min:
            return nothing("fits")
        return change(item, "shorten", "time", item.session._replace(min=said.minutes))
    if said.wish == "swap":
        return change(item, "swap", "request", day=said.to)
    free = [name(day) for day in free_days(state, item, rules)]
    if said.wish == "move":
        return change(item, "move", "request", day=said.to) if said.to in free else nothing("unsafe")
    return change(item, "move", "away", day=free[0]) if free else change(item, "rest", "away", REST)


def _more(state: State, form: str, load: str) -> Modification:
    if form in ("tired", "spent"):
        return nothing("fatigue")
    if load != "under":
        return nothing("ramp")
    item = state.first("easy")
    if item is None:
        return nothing("empty")
    return change(item, "lengthen", "progress", item.session._replace(min=item.session.min + LENGTHEN_BY))


def week(state: State, wish: WeekWish, rules: Rules) -> Week:
    """The next week: the athlete's habits, what the goal makes of the hard days, and what the message changes."""
    athlete = state.athlete
    session, long = lengths(state, rules)
    fit = state.fitness(rules)
    recovers = wish.unwell or athlete.goal == "recover" or band(round(fit.ctl) - round(fit.atl), rules) == "spent"
    goal = "recover" if recovers else athlete.goal
    endurance = DayPlan("endurance", session, "easy")
    days: dict[Day, DayPlan] = dict.fromkeys(DAYS, endurance)
    for day, (type, level) in zip(athlete.hard, HARD_DAYS[goal], strict=False):
        days[day] = DayPlan(type, session, level)
    if goal in ("base", "build"):
        days[wish.long or athlete.long] = DayPlan("long", long, "easy")
    if wish.short:
        days[wish.short[0]] = days[wish.short[0]]._replace(min=wish.short[1])
    for day in (*athlete.off, *wish.off):
        days[day] = REST
    return Week.model_validate({day: tuple(plan) for day, plan in days.items()})


# goal -> what the first and the second hard day hold
HARD_DAYS: dict[str, list[tuple[Type, Level]]] = {
    "build": [("intervals", "hard"), ("threshold", "hard")],
    "base": [("tempo", "moderate"), ("endurance", "easy")],
    "taper": [("intervals", "hard"), ("endurance", "easy")],
    "recover": [],
}


def talk(state: State, topic: Topic, rules: Rules) -> Talk:
    """The answer to a question or a remark. Every number in it is one of the prompt's."""
    fit = state.fitness(rules)
    ctl, atl = round(fit.ctl), round(fit.atl)
    form = band(ctl - atl, rules)
    if topic == "form":
        return Talk(say=f"Form is {ctl - atl}: {FORM[form]}", do="modify_plan" if form == "spent" else None)
    if topic == "fitness":
        return Talk(say=f"Fitness is {ctl}, fatigue is {atl}.", do=None)
    if topic == "load":
        week, limit = round(state.week_load(rules)), round(week_limit(fit.ctl, rules))
        load = load_band(week, limit, rules)
        return Talk(say=f"Load is {week} of {limit}: {LOAD[load]}", do="modify_plan" if load == "over" else None)
    if topic == "next":
        item = state.first()
        if item is None:
            return Talk(say="Nothing is planned.", do="plan_week")
        type, minutes, level = item.session
        return Talk(say=f"Next is {type} on {name(item.day)}, {minutes} minutes, {level}.", do=None)
    if topic == "rest":
        free = next((day for day in state.ahead() if not state.on(day)), None)
        return Talk(say=f"The next rest day is {name(free)}." if free else "No rest day is planned.", do=None)
    return REMARKS[topic]


FORM = {
    "fresh": "fresh and ready.",
    "ok": "in balance, carry on.",
    "tired": "tired, keep easy days easy.",
    "spent": "spent, rest comes first.",
}
LOAD = {"under": "there is room.", "near": "close to the limit.", "over": "too much, we should cut."}
REMARKS: dict[Topic, Talk] = {
    "week": Talk(say="I can plan your week now.", do="plan_week"),
    "other": Talk(say="I can only help with training.", do=None),
    "thanks": Talk(say="Well done, keep it up.", do=None),
    "fatigue": Talk(say="Take it easy, we should adapt the plan.", do="modify_plan"),
    "injury": Talk(say="Stop training and have it looked at.", do="see_doctor"),
    "illness": Talk(say="Rest until you are well again.", do="modify_plan"),
}
