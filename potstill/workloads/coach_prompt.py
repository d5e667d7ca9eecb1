"""The prompt text that shows an athlete on a day to the model.

The context builder (coach_store.py) and the seeded generator (coach_writer.py) write their prompts here, so that the
model is asked in production as it was taught.
"""

import re
from datetime import date, timedelta

from potstill.workloads.coach_load import Rules, band, load_band, week_limit
from potstill.workloads.coach_rules import free_days
from potstill.workloads.coach_state import DAYS, Day, DayPlan, Planned, State, name

# characters of a message that are shown
MAX_MESSAGE = 300
# days of a message whose workouts are shown
MAX_NAMED = 3
FULL = dict(zip(DAYS, ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"], strict=True))
# as people write them
WEEKDAYS: dict[str, Day] = {word: day for day, full in FULL.items() for word in (day.lower(), full.lower())}
WEEKDAYS |= {"tues": "Tue", "weds": "Wed", "thur": "Thu", "thurs": "Thu"}


def header(state: State, rules: Rules) -> list[str]:
    fit = state.fitness(rules)
    ctl, atl = round(fit.ctl), round(fit.atl)
    # the two numbers shown and their difference agree
    lines = [f"ctl {ctl} atl {atl} tsb {ctl - atl} {band(ctl - atl, rules)}"]
    week, limit = round(state.week_load(rules)), round(week_limit(fit.ctl, rules))
    return [*lines, f"load {week} of {limit} {load_band(week, limit, rules)}"]


def modify_prompt(state: State, rules: Rules, message: str) -> str:
    """What plan_modification is asked. A workout's line ends with the free days it may safely move to."""
    lines = ["modify", *header(state, rules), f"off {' '.join(state.athlete.off) or 'none'}", _past(state)]
    for word, levels in (("next", ()), ("hard", ("hard",)), ("easy", ("easy",))):
        item = state.first(*levels)
        lines.append(f"{word} {_named(item) if item else 'none'}")
    lines += [f"named {line}" for line in _named_days(state, _line(message))] or ["named none"]
    lines.append("plan")
    for label, item in _plan_lines(state):
        days = free_days(state, item, rules) if item else []
        lines.append(label + (f" to {' '.join(name(day) for day in days)}" if days else ""))
    return "\n".join([*lines, _says(message)])


def talk_prompt(state: State, rules: Rules, message: str) -> str:
    """What conversation is asked."""
    item = state.first()
    lines = ["talk", *header(state, rules), f"next {_named(item) if item else 'none'}", "plan"]
    return "\n".join([*lines, *(label for label, _ in _plan_lines(state)), _says(message)])


def week_prompt(state: State, rules: Rules, message: str) -> str:
    """What weekly_plan is asked: the athlete's habits and how long a session is, which follow from CTL."""
    athlete = state.athlete
    session, long = lengths(state, rules)
    habits = [f"hard {' '.join(athlete.hard) or 'none'}", f"long {athlete.long}", f"off {' '.join(athlete.off)}"]
    lines = ["week", *header(state, rules)[:1], f"goal {athlete.goal}", f"session {session} long {long}", *habits]
    lines.append(f"named {' '.join(days_in(_line(message))) or 'none'}")
    return "\n".join([*lines, _says(message)])


def days_in(message: str, today: date | None = None) -> list[Day]:
    """The weekdays that a message names, in its order, each once; with `today`, "today" and "tomorrow" too."""
    near = {} if today is None else {"today": name(today), "tomorrow": name(today + timedelta(1))}
    words = (word.lower() for word in re.findall(r"[^\W\d_]+", message))
    return list(dict.fromkeys(day for word in words if (day := near.get(word) or WEEKDAYS.get(word))))


def lengths(state: State, rules: Rules) -> tuple[int, int]:
    """(minutes of a session, minutes of the long one) that the athlete's CTL carries, in tens."""
    ctl = state.fitness(rules).ctl
    session = min(max(10 * round((10 + ctl * 0.9) / 10), 20), 90)
    most = min(state.athlete.max_min, rules.minutes.most)
    return min(session, most), min(10 * round(session * 0.17), most)


def _plan_lines(state: State) -> list[tuple[str, Planned | None]]:
    """(line, workout) for every workout of the coming days, and for every day without one."""
    lines: list[tuple[str, Planned | None]] = []
    for offset, day in enumerate(state.ahead()):
        label = name(day) + (" today" if offset == 0 else " tomorrow" if offset == 1 else "")
        found = state.on(day)
        lines += [(f"{label} {item.id} {_session(item.session)}", item) for item in found]
        if not found:
            lines.append((f"{label} rest", None))
    return lines


def _named_days(state: State, message: str) -> list[str]:
    """What the plan has on the days that the message names."""
    lines = []
    for day in days_in(message, state.today)[:MAX_NAMED]:
        found = state.on(state.date_of(day))
        lines += [_named(item) for item in found] or [f"{day} rest"]
    return lines


def _past(state: State) -> str:
    words = []
    for back in (2, 1):
        day = state.today - timedelta(back)
        found = [_session(workout.session) for workout in state.past if workout.day == day]
        words.append(f"{name(day)} {' + '.join(found[:2]) or 'rest'}")
    return f"past {', '.join(words)}"


def _named(item: Planned) -> str:
    # as in its line of the plan
    return f"{name(item.day)} {item.id} {_session(item.session)}"


def _session(session: DayPlan) -> str:
    return "rest" if session.type == "rest" else f"{session.type} {session.min} {session.level}"


def _says(message: str) -> str:
    return f"says {_line(message)}"


def _line(message: str) -> str:
    # one line: a message must not be able to write plan lines of its own
    words = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+", " ", message).strip()
    return words[:MAX_MESSAGE].rstrip()
