"""Reads a match in Cricsheet's formats, ball by ball: JSON 1.0.0 and 1.1.0, YAML 0.3 to 0.92.

`deliveries(path)` yields plain records in the order of play; every ball carries the state of the match after it.
The formats: https://cricsheet.org/format/json and https://cricsheet.org/format/yaml
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from potstill.workloads import cricket_context, cricket_files
from potstill.workloads.cricket_context import Innings, State
from potstill.workloads.cricket_files import stop_at

# the longest innings ever had about 2,500 deliveries: more than this were made to fill a disk
MAX_DELIVERIES = 10_000
EXTRAS = ("wides", "noballs", "byes", "legbyes", "penalty")
KINDS: tuple[str, ...] = (
    "bowled",
    "caught",
    "caught and bowled",
    "lbw",
    "run out",
    "stumped",
    "hit wicket",
    "obstructing the field",
)
KINDS += ("hit the ball twice", "handled the ball", "timed out", "retired out", "retired hurt", "retired not out")
# leaving like this is no wicket: Law 25.4
NO_WICKET = ("retired hurt", "retired not out")
# names go into prompts, so they hold nothing that could be markup or a control token
NAME = re.compile(r"[^\W\d_](?:[\w .,'’()/-]{0,58}[\w.)])?")


class Wicket(NamedTuple):
    """`fielders` are the named ones; a substitute without a name is left out."""

    kind: str
    out: str
    fielders: tuple[str, ...]


class Delivery(NamedTuple):
    """One ball. `over` counts from 0 and `ball` from 1, wides and no-balls too; `state` is after the ball."""

    match: str
    innings: int
    team: str
    over: int
    ball: int
    batter: str
    bowler: str
    non_striker: str
    runs_batter: int
    runs_extras: int
    runs_total: int
    extras: dict[str, int]
    wickets: tuple[Wicket, ...]
    # four or six all run
    non_boundary: bool
    state: State


class Totals(NamedTuple):
    """An innings' own sums; `runs` and `extras` have penalty runs awarded before and after it too."""

    team: str
    runs: int
    wickets: int
    extras: int
    deliveries: int


def deliveries(path: Path) -> Iterator[Delivery]:
    """Yields every ball of a match file, super overs last.

    Raises Stop 65 that names the file, the innings, the over and the ball when a ball does not add up, and when the
    innings do not add up to the target or the result that the file states.
    """
    for item in read(path):
        if isinstance(item, Delivery):
            yield item


def totals(path: Path) -> list[Totals]:
    """The sums of every innings, super overs included. Raises as `deliveries` does."""
    return [item for item in read(path) if isinstance(item, Totals)]


def read(path: Path) -> Iterator[Delivery | Totals]:
    """Yields the balls of every innings and, after each innings, its totals."""
    where = str(path)
    info, raw = cricket_files.load(path)
    done: list[Totals] = []
    match = cricket_context.Match.of(info, where)
    for number, body in enumerate(raw, 1):
        innings = match.start(number, body, done, f"{where} innings {number}")
        sums = [innings.penalty, 0, innings.penalty, 0]
        for ball in _balls(body, path.stem, innings, f"{where} innings {number}"):
            sums[0] += ball.runs_total
            sums[1] = ball.state.wickets
            sums[2] += ball.runs_extras
            sums[3] += 1
            yield ball
        sums = [sums[0] + innings.penalty_after, sums[1], sums[2] + innings.penalty_after, sums[3]]
        total = Totals(innings.team, *sums)
        done.append(total)
        yield total
        if not innings.super_over:
            match.check_target(body, innings, done, f"{where} innings {number}")
    match.check_result(done)


def _balls(body: dict[str, Any], match: str, innings: Innings, where: str) -> Iterator[Delivery]:
    for count, (over, ball, raw) in enumerate(cricket_files.numbered(body, where), 1):
        if count > MAX_DELIVERIES:
            stop_at(where, over, ball, f"more than {MAX_DELIVERIES} deliveries in an innings")
        if not isinstance(raw, dict):
            stop_at(where, over, ball, "the ball is not an object")
        batter, bowler, partner = _players(raw, where, over, ball)
        bat, extra, total = _runs(raw, where, over, ball)
        extras = _extras(raw, extra, where, over, ball)
        wickets = _wickets(raw, where, over, ball) if "wickets" in raw or "wicket" in raw else ()
        lost = sum(wicket.kind not in NO_WICKET for wicket in wickets)
        legal = "wides" not in extras and "noballs" not in extras
        state = innings.after(over, ball, total, lost, legal)
        runs = raw["runs"]
        unrun = runs.get("non_boundary") in (True, 1, "true", "yes", "1")
        args = (match, innings.number, innings.team, over, ball, batter, bowler, partner, bat, extra, total)
        yield Delivery(*args, extras, wickets, unrun, state)


def _players(raw: dict[str, Any], where: str, over: int, ball: int) -> tuple[str, str, str]:
    names = raw.get("batter", raw.get("batsman")), raw.get("bowler"), raw.get("non_striker")
    for role, name in zip(("batter", "bowler", "non_striker"), names, strict=True):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            stop_at(where, over, ball, f"{role} is no player's name")
    return names  # type: ignore[return-value]


def _runs(raw: dict[str, Any], where: str, over: int, ball: int) -> tuple[int, int, int]:
    runs = raw.get("runs")
    if not isinstance(runs, dict):
        stop_at(where, over, ball, "the ball has no runs")
    bat = _count(runs.get("batter", runs.get("batsman")), "runs.batter", where, over, ball)
    extra = _count(runs.get("extras"), "runs.extras", where, over, ball)
    total = _count(runs.get("total"), "runs.total", where, over, ball)
    if bat + extra != total:
        stop_at(where, over, ball, f"runs.total is {total}, batter and extras make {bat + extra}")
    return bat, extra, total


def _extras(raw: dict[str, Any], total: int, where: str, over: int, ball: int) -> dict[str, int]:
    given = raw.get("extras", {})
    if not isinstance(given, dict) or not given.keys() <= set(EXTRAS):
        stop_at(where, over, ball, f"extras has a key that is none of {', '.join(EXTRAS)}")
    extras = {kind: _count(given[kind], f"extras.{kind}", where, over, ball) for kind in EXTRAS if kind in given}
    if sum(extras.values()) != total:
        stop_at(where, over, ball, f"runs.extras is {total}, extras make {sum(extras.values())}")
    return extras


def _wickets(raw: dict[str, Any], where: str, over: int, ball: int) -> tuple[Wicket, ...]:
    given = raw.get("wickets", raw.get("wicket"))
    found = []
    for item in given if isinstance(given, list) else [given]:
        if not isinstance(item, dict) or item.get("kind") not in KINDS:
            stop_at(where, over, ball, "a wicket has no kind, or one that Cricsheet does not know")
        out = item.get("player_out")
        if not isinstance(out, str) or not NAME.fullmatch(out):
            stop_at(where, over, ball, "a wicket's player_out is no player's name")
        fielders = item.get("fielders", [])
        if not isinstance(fielders, list):
            stop_at(where, over, ball, "a wicket's fielders are not a list")
        found.append(Wicket(item["kind"], out, tuple(filter(None, (_fielder(f, where, over, ball) for f in fielders)))))
    return tuple(found)


def _fielder(given: Any, where: str, over: int, ball: int) -> str:
    """JSON has {"name": ..., "substitute": true}, YAML the name, with "(sub)" after a substitute's."""
    name = given.get("name", "") if isinstance(given, dict) else given
    if not isinstance(name, str):
        stop_at(where, over, ball, "a fielder has no name")
    name = name.replace("(sub)", "").strip()
    if name and not NAME.fullmatch(name):
        stop_at(where, over, ball, "a fielder's name is no player's name")
    return "" if name == "sub" else name


def _count(value: Any, key: str, where: str, over: int, ball: int) -> int:
    if type(value) is int and 0 <= value < 100:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 3:
        return int(value)
    stop_at(where, over, ball, f"{key} is no number of runs")
