"""The safety rules: what a modification, or a whole week, would do to an athlete's plan, and every reason against it.

Pure functions over coach_state.State. A change is refused when it breaks a rule that the plan kept before, or breaks
one worse; a change that makes a bad plan better is never refused for what it leaves.
"""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import NamedTuple

from potstill.workloads.coach_load import Rules, load_of, week_limit
from potstill.workloads.coach_state import HORIZON, REST, DayPlan, Modification, Planned, State, Week, name, next_monday

# code -> what it means; docs/workloads/coach.md prints it
REASONS = {
    "schema": "the answer is not what the schema asks for",
    "no_such_athlete": "no such athlete",
    "no_such_workout": "the plan has no such workout, or not in the coming seven days",
    "other_day": "the workout of that id is on another day",
    "past": "the workout is done or its day is over",
    "not_as_planned": "the action changes more than it says",
    "not_shorter": "the workout would not get shorter",
    "not_longer": "the workout would not get longer, or by too much at once",
    "twice": "one workout is changed twice",
    "not_free": "the day to move to has a workout, or is the workout's own day",
    "nothing_to_swap": "the other day does not have exactly one workout",
    "off_day": "the athlete cannot train on that day",
    "minutes": "the length of a workout is out of bounds",
    "week_load": "too much load in seven days",
    "rest_days": "too few rest days in seven days",
    "hard_in_a_row": "too many hard days in a row",
    "two_hard": "two hard workouts on one day",
}


class Reason(NamedTuple):
    """Why not. `detail` names days and numbers of ours, never a text of the model's."""

    code: str
    detail: str


class Proposal(NamedTuple):
    """The plan as it would be; refused when there are `reasons`."""

    state: State
    reasons: tuple[Reason, ...]


def propose(state: State, changes: Iterable[Modification], rules: Rules) -> Proposal:
    """The plan after all the changes, one after the other, with the reasons of every one of them."""
    after, reasons, seen = state, list[Reason](), set[int]()
    for change in changes:
        # else ten small steps would make the one big step that a rule forbids
        if change.id in seen:
            reasons.append(Reason("twice", f"id {change.id}"))
        seen |= {change.id} if change.id else set()
        after, found = _changed(after, change, rules)
        reasons += found
    return Proposal(after, (*reasons, *_worse(state, after, rules)))


def propose_week(state: State, week: Week, rules: Rules) -> Proposal:
    """The plan with next week's seven days as `week` has them; new workouts get ids from `-1` down."""
    monday = next_monday(state.today)
    days = {monday + timedelta(offset): session for offset, session in enumerate(week.days().values())}
    reasons = []
    kept = [item for item in state.plan if item.day not in days or item.done]
    number = 0
    for day, session in days.items():
        if session == REST:
            continue
        number -= 1
        kept.append(Planned(number, day, session))
        reasons += _sane(state, day, session, rules)
        if name(day) in state.athlete.off:
            reasons.append(Reason("off_day", name(day)))
    after = state._replace(plan=_sorted(kept))
    return Proposal(after, (*reasons, *_worse(state, after, rules)))


def free_days(state: State, item: Planned, rules: Rules) -> list[date]:
    """The days without a workout to which `item` may move."""
    found = []
    before = violations(state, rules)
    for day in state.ahead():
        if state.on(day) or name(day) in state.athlete.off:
            continue
        after = _with(state, item, item._replace(day=day))
        if not _excess(before, violations(after, rules)):
            found.append(day)
    return found


def violations(state: State, rules: Rules) -> dict[tuple[str, date], float]:
    """(code, first day) -> by how much, for every rule about days together that the recorded and planned days break."""
    first = state.today - timedelta(HORIZON - 1)
    # a week that is planned at once may begin seven days ahead
    span = 4 * HORIZON
    loads, hard, trains = [0.0] * span, [0] * span, [False] * span
    workouts = [(workout.day, workout.session, workout.load) for workout in state.past]
    workouts += [(i.day, i.session, load_of(i.session.min, i.session.level, rules)) for i in state.ahead_of_today()]
    for day, session, load in workouts:
        at = (day - first).days
        if 0 <= at < span and session.type != "rest":
            loads[at] += load
            hard[at] += session.level == "hard"
            trains[at] = True
    limit = week_limit(state.fitness(rules).ctl, rules)
    need = max(rules.rest_days, state.athlete.rest_days)
    found = {}
    for at in range(span - HORIZON):
        day = first + timedelta(at)
        found["week_load", day] = sum(loads[at : at + HORIZON]) - limit
        found["rest_days", day] = sum(trains[at : at + HORIZON]) + need - HORIZON
        found["two_hard", day] = hard[at] - 1
        found["hard_in_a_row", day] = all(hard[at : at + rules.hard_in_a_row + 1])
    return {key: amount for key, amount in found.items() if amount > 0}


def _worse(before: State, after: State, rules: Rules) -> list[Reason]:
    found: dict[str, list[date]] = {}
    for code, day in _excess(violations(before, rules), violations(after, rules)):
        found.setdefault(code, []).append(day)
    return [Reason(code, f"{REASONS[code]}, from {days[0]}") for code, days in found.items()]


def _excess(before: dict[tuple[str, date], float], after: dict[tuple[str, date], float]) -> list[tuple[str, date]]:
    # a millionth: the same workouts added up in another order are no change
    return [key for key, amount in after.items() if amount > before.get(key, 0) + 1e-6]


def _changed(state: State, change: Modification, rules: Rules) -> tuple[State, list[Reason]]:
    if change.action == "none":
        return state, []
    item = next((item for item in state.plan if item.id == change.id), None)
    if item is None or item.day > state.ahead()[-1]:
        return state, [Reason("no_such_workout", f"id {change.id}")]
    if item.done or item.day < state.today:
        return state, [Reason("past", f"id {change.id} on {item.day}")]
    assert change.at is not None
    if state.date_of(change.at) != item.day:
        return state, [Reason("other_day", f"id {change.id} is on {name(item.day)}, not on {change.at}")]
    assert change.type is not None
    assert change.min is not None
    assert change.level is not None
    session = DayPlan(change.type, change.min, change.level)
    return ACTIONS[change.action](state, item, session, change, rules)


Outcome = tuple[State, list[Reason]]


def _rest(state: State, item: Planned, session: DayPlan, change: Modification, rules: Rules) -> Outcome:
    return _with(state, item, item._replace(session=REST)), []


def _replace(state: State, item: Planned, session: DayPlan, change: Modification, rules: Rules) -> Outcome:
    reasons = _sane(state, item.day, session, rules) if item.session != REST else [_gone(item)]
    if session.min - item.session.min > rules.lengthen_most:
        reasons.append(_too_long(item, rules))
    return _with(state, item, item._replace(session=session)), reasons


def _resize(state: State, item: Planned, session: DayPlan, change: Modification, rules: Rules) -> Outcome:
    reasons = []
    grows = session.min - item.session.min
    if session._replace(min=item.session.min) != item.session:
        reasons.append(Reason("not_as_planned", f"id {item.id}: {change.action} keeps type and level"))
    if change.action == "lengthen":
        reasons += _sane(state, item.day, session, rules)
        reasons += [] if 0 < grows <= rules.lengthen_most else [_too_long(item, rules)]
    else:
        # a workout that is far too long may get shorter in steps
        reasons += _sane(state, item.day, session, rules) if session.min < rules.minutes.least else []
        reasons += [] if grows < 0 else [Reason("not_shorter", f"id {item.id} has {item.session.min} min")]
    return _with(state, item, item._replace(session=session)), reasons


def _relocate(state: State, item: Planned, session: DayPlan, change: Modification, rules: Rules) -> Outcome:
    assert change.day is not None
    day = state.date_of(change.day)
    reasons = []
    if session != item.session:
        reasons.append(Reason("not_as_planned", f"id {item.id}: {change.action} keeps type, min and level"))
    if item.session == REST:
        reasons.append(_gone(item))
    there = state.on(day)
    moved = [(item, day)]
    if change.action == "swap":
        moved += [(other, item.day) for other in there]
        if len(there) != 1 or day == item.day or len(state.on(item.day)) != 1:
            reasons.append(Reason("nothing_to_swap", f"{change.day} has {len(there)} workouts"))
    elif there or day == item.day:
        reasons.append(Reason("not_free", f"{change.day}"))
    off = sorted({name(to) for _, to in moved if name(to) in state.athlete.off})
    reasons += [Reason("off_day", day_name) for day_name in off]
    for one, to in moved:
        state = _with(state, one, one._replace(day=to))
    return state, reasons


ACTIONS: dict[str, Callable[[State, Planned, DayPlan, Modification, Rules], Outcome]] = {
    "rest": _rest,
    "replace": _replace,
    "shorten": _resize,
    "lengthen": _resize,
    "move": _relocate,
    "swap": _relocate,
}


def _sane(state: State, day: date, session: DayPlan, rules: Rules) -> list[Reason]:
    most = min(rules.minutes.most, state.athlete.max_min)
    if rules.minutes.least <= session.min <= most:
        return []
    return [Reason("minutes", f"{session.min} min on {day}, want {rules.minutes.least} to {most}")]


def _too_long(item: Planned, rules: Rules) -> Reason:
    return Reason("not_longer", f"id {item.id} has {item.session.min} min and may get 1 to {rules.lengthen_most} more")


def _gone(item: Planned) -> Reason:
    return Reason("no_such_workout", f"id {item.id} is a rest")


def _with(state: State, old: Planned, new: Planned) -> State:
    return state._replace(plan=_sorted(new if item.id == old.id else item for item in state.plan))


def _sorted(plan: Iterable[Planned]) -> tuple[Planned, ...]:
    return tuple(sorted(plan, key=lambda item: (item.day, item.id)))
