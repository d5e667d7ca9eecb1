"""Slot levels of the coach's own: whether an answer is possible and safe, whatever the reference says."""

import itertools
import re
from collections.abc import Callable
from typing import Any

from potstill.slots import Score
from potstill.workloads.coach_state import DAYS


def on_plan(reference: Any, candidate: Any, *, prompt: str, **_: Any) -> Score:
    """Whether the answer can be done with the plan in the prompt: the workout is there, the day is free, and so on."""
    plan = plan_of(prompt)
    if not isinstance(candidate, dict) or candidate.get("action") not in CHECKS:
        return _score("no known action")
    if candidate["action"] == "none":
        return _score("")
    own = next((line for line in plan if line.id == candidate.get("id")), None)
    if own is None or candidate.get("id") is None:
        return _score("no workout of that id in the plan")
    if own.day != candidate.get("at"):
        return _score("the workout of that id is on another day")
    return _score(CHECKS[candidate["action"]](candidate, own, plan))


def safe_week(reference: Any, candidate: Any, *, prompt: str, **_: Any) -> Score:
    """Whether a weekly plan rests on the athlete's days off, has a rest day, and no two hard days in a row."""
    days = [candidate.get(day) if isinstance(candidate, dict) else None for day in DAYS]
    if not all(isinstance(day, list) and len(day) == 3 for day in days):
        return _score("no weekly plan")
    found = re.search(r"^off (.*)$", prompt, re.MULTILINE)
    off = found[1].split() if found else []
    if any(plan[0] != "rest" for day, plan in zip(DAYS, days, strict=True) if plan and day in off):
        return _score("a workout on a day off")
    if all(plan and plan[0] != "rest" for plan in days):
        return _score("no rest day")
    hard = [bool(plan and plan[2] == "hard") for plan in days]
    return _score("two hard days in a row" if any(a and b for a, b in itertools.pairwise(hard)) else "")


def numbers_shown(reference: Any, candidate: Any, *, prompt: str, **_: Any) -> Score:
    """Whether every number of the line is one of the prompt's, outside the athlete's own words."""
    if not isinstance(candidate, dict) or not isinstance(candidate.get("say"), str):
        return _score("no line")
    shown = set(re.findall(r"-?\d+", prompt.rpartition("\nsays ")[0]))
    return _score("" if set(re.findall(r"-?\d+", candidate["say"])) <= shown else "a number the prompt does not show")


class PlanLine:
    """A line of the prompt's plan, such as `Thu 41 threshold 60 hard to Sat Sun`."""

    LINE = re.compile(
        r"(?P<day>[A-Z][a-z]{2})(?: today| tomorrow)?(?: (?P<id>\d+) (?P<what>\w+ \d+ \w+)(?: to (?P<free>.+))?)?"
    )

    def __init__(self, match: re.Match[str]):
        self.day: str = match["day"]
        self.id = int(match["id"]) if match["id"] else None
        self.what: str = match["what"] or ""
        self.free: list[str] = (match["free"] or "").split()


def plan_of(prompt: str) -> list[PlanLine]:
    """The plan that a plan_modification prompt shows."""
    section = prompt.partition("\nplan\n")[2].rpartition("\nsays")[0]
    return [PlanLine(match) for line in section.split("\n") if (match := PlanLine.LINE.match(line))]


def _what(candidate: dict[str, Any]) -> str:
    return f"{candidate.get('type')} {candidate.get('min')} {candidate.get('level')}"


def _check_size(candidate: dict[str, Any], own: PlanLine, plan: list[PlanLine]) -> str:
    type, minutes, level = own.what.split()
    new = candidate.get("min")
    if (candidate.get("type"), candidate.get("level")) != (type, level) or not isinstance(new, int):
        return "not the same workout"
    shorter = new < int(minutes)
    return "" if new != int(minutes) and shorter == (candidate["action"] == "shorten") else "not the length it says"


def _check_move(candidate: dict[str, Any], own: PlanLine, plan: list[PlanLine]) -> str:
    if _what(candidate) != own.what:
        return "not the same workout"
    return "" if candidate.get("day") in own.free else "the day is not one it may move to"


def _check_swap(candidate: dict[str, Any], own: PlanLine, plan: list[PlanLine]) -> str:
    if _what(candidate) != own.what:
        return "not the same workout"
    there = [line for line in plan if line.day == candidate.get("day") and line.id]
    return "" if len(there) == 1 and there[0] is not own else "no other workout on that day"


def _check_rest(candidate: dict[str, Any], own: PlanLine, plan: list[PlanLine]) -> str:
    return "" if _what(candidate) == "rest 0 none" else "no rest"


def _check_replace(candidate: dict[str, Any], own: PlanLine, plan: list[PlanLine]) -> str:
    return "" if _what(candidate) != own.what else "nothing is replaced"


CHECKS: dict[str, Callable[[dict[str, Any], PlanLine, list[PlanLine]], str]] = {
    "none": lambda candidate, own, plan: "",
    "rest": _check_rest,
    "replace": _check_replace,
    "shorten": _check_size,
    "lengthen": _check_size,
    "move": _check_move,
    "swap": _check_swap,
}


def _score(problem: str) -> Score:
    return Score(float(not problem), not problem, "scored", problem or "as the prompt allows")


LEVELS: dict[str, Callable[..., Score]] = {"on_plan": on_plan, "safe_week": safe_week, "numbers_shown": numbers_shown}
