"""Plays invented matches and writes them in Cricsheet's formats: the sample matches of the cricket workload.

PLANS puts every odd case of the formats into some match; the rest is left to chance.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from potstill.files import canonical_json, write_text
from potstill.workloads import cricket_play, cricket_players
from potstill.workloads.cricket_play import WICKET, Terms
from potstill.workloads.cricket_yaml import as_yaml

FIRST_MATCH = 7101
TESTS_OVERS = 60
DECLARED_OVERS = 34


class Plan(NamedTuple):
    """A match to be played. `overs` None is a match of days, `reply` a rain rule's overs for the second innings."""

    incidents: Mapping[tuple[int, int, int], str] = {}
    overs: int | None = 20
    balls_per_over: int = 6
    form: str = "json"
    version: str = "1.1.0"
    wicket: float = WICKET
    reply: int | None = None
    abandoned: int | None = None
    super_overs: int = 0
    # awarded to the second innings before it, and to the first after it
    penalty: int = 0
    powersurge: bool = False


ELEVEN = {(2, 6, ball): "wide" for ball in (2, 3, 5, 7, 9)}
# (innings, over, ball) -> incident
PLANS = [
    Plan({(1, 3, 2): "retired hurt", (2, 8, 4): "non-striker run out"}),
    Plan({**ELEVEN, (1, 14, 1): "five wides"}, version="1.0.0"),
    Plan({**ELEVEN, (1, 11, 1): "two wickets"}, form="yaml", super_overs=2),
    Plan({(1, 5, 3): "obstructing the field", (2, 2, 2): "stumped off a wide"}, penalty=5),
    Plan({(1, 9, 1): "all run four", (2, 9, 5): "hit wicket"}, reply=14),
    Plan({(1, 7, 3): "substitute's catch", (2, 4, 2): "hit the ball twice"}, overs=None, wicket=0.1),
    Plan({(1, 20, 2): "timed out", (2, 15, 4): "penalty"}, overs=40, wicket=0.04, version="1.0.0"),
    Plan({(1, 14, 3): "run out off a no-ball", (2, 9, 2): "handled the ball"}, super_overs=1),
    Plan({(1, 8, 2): "retired not out", (2, 6, 1): "six off a no-ball"}, balls_per_over=5),
    Plan({(1, 4, 1): "five short", (2, 6, 1): "seven long"}, powersurge=True),
    Plan({(1, 2, 4): "nameless substitute"}, abandoned=9, form="yaml"),
    Plan({(1, 5, 5): "retired out", (2, 3, 3): "no-ball and byes"}, overs=10),
    Plan({(1, 6, 6): "retired hurt", (2, 7, 3): "substitute's catch"}, form="yaml"),
    Plan({(1, 12, 2): "obstructing the field", (2, 5, 2): "penalty"}),
    # short ones: a model learns to copy names from many players, not from many balls of a few
    *[Plan(overs=5, wicket=0.12)] * 56,
]


def write(out: Path, seed: int) -> list[Path]:
    """Writes one file a plan; the same seed gives the same bytes."""
    taken: set[str] = set()
    paths = []
    for number, plan in enumerate(PLANS, FIRST_MATCH):
        match = play(random.Random(f"{seed} match {number}"), plan, taken)
        paths.append(out / f"{number}.{plan.form}")
        write_text(paths[-1], as_yaml(match) if plan.form == "yaml" else canonical_json(match) + "\n")
    return paths


def play(rng: random.Random, plan: Plan, taken: set[str]) -> dict[str, Any]:
    """A match as Cricsheet's JSON has it. `taken`: surnames of other matches, which this one adds to."""
    teams = cricket_players.teams(rng)
    sides = [cricket_players.side(rng, taken) for _ in teams]
    innings: list[dict[str, Any]] = []
    for number in range(1, 1 + (4 if plan.overs is None else 1 if plan.abandoned else 2)):
        innings.append(_bat(rng, plan, number, teams, sides, innings))
    for number in range(plan.super_overs):
        innings += _super_over(rng, teams, sides, tie=number + 1 < plan.super_overs)
    return _dressed(rng, plan, teams, sides, innings)


def _bat(
    rng: random.Random,
    plan: Plan,
    number: int,
    teams: list[str],
    sides: list[list[str]],
    innings: list[dict[str, Any]],
) -> dict[str, Any]:
    """Innings `number`; a reply is played again until the match is a tie, or none, as planned."""
    at_bat, terms = (number - 1) % 2, _terms(plan, number, innings)
    order = sides[at_bat][: cricket_players.SIDE]
    incidents = {(over, ball): what for (at, over, ball), what in plan.incidents.items() if at == number}
    body = {"team": teams[at_bat], **_around(plan, number, sides[at_bat])}
    if terms.target is not None and plan.form == "json" and plan.overs is not None:
        body["target"] = {"overs": terms.overs, "runs": terms.target}

    def draw() -> dict[str, Any]:
        return {**body, "overs": cricket_play.innings(rng, order, sides[1 - at_bat], terms, incidents)}

    if number != 2 or plan.overs is None or plan.reply:
        return draw()
    return _until(draw, lambda made: (total(made) == total(innings[0])) == bool(plan.super_overs))


def _terms(plan: Plan, number: int, innings: list[dict[str, Any]]) -> Terms:
    terms = Terms(plan.abandoned or plan.overs or TESTS_OVERS, plan.balls_per_over, wicket=plan.wicket)
    made = [total(item) for item in innings]
    if plan.overs is None:
        # the second innings has a batter absent, the third is declared, the fourth is a chase
        target = max(1, made[0] + made[2] - made[1] + 1) if number == 4 else None
        overs = DECLARED_OVERS if number == 3 else TESTS_OVERS
        return terms._replace(overs=overs, wickets=9 if number == 2 else 10, target=target)
    if number == 1:
        return terms
    target = made[0] * 3 // 4 + 1 if plan.reply else made[0] + 1
    return terms._replace(overs=plan.reply or terms.overs, target=target, runs=plan.penalty)


def _around(plan: Plan, number: int, batting: list[str]) -> dict[str, Any]:
    """What an innings has beside its overs."""
    found: dict[str, Any] = {}
    if plan.penalty:
        found["penalty_runs"] = {"post": plan.penalty} if number == 1 else {"pre": plan.penalty}
    if plan.overs is None and number == 2:
        found["absent_hurt"] = [batting[cricket_players.SIDE - 1]]
    if plan.overs is None and number == 3:
        found["declared"] = True
    if plan.form == "json" and plan.overs is not None:
        last = max(1, (plan.reply or plan.overs if number == 2 else plan.overs) * 3 // 10)
        found["powerplays"] = [{"from": 0.1, "to": float(f"{last - 1}.{plan.balls_per_over}"), "type": "mandatory"}]
        if plan.powersurge:
            found["powerplays"].append({"from": 12.1, "to": 13.6, "type": "batting"})
    return found


def _until(draw: Callable[[], dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    while True:
        if wanted(made := draw()):
            return made


def _super_over(rng: random.Random, teams: list[str], sides: list[list[str]], tie: bool) -> list[dict[str, Any]]:
    """The side that batted second bats first."""

    def bat(side: int, target: int | None) -> dict[str, Any]:
        overs = cricket_play.innings(rng, sides[side][:3], sides[1 - side], Terms(1, wickets=2, target=target), {})
        return {"team": teams[side], "overs": overs, "super_over": True}

    first = bat(1, None)
    made = total(first)
    return [first, _until(lambda: bat(0, made + 1), lambda reply: (total(reply) == made) == tie)]


def total(innings: dict[str, Any]) -> int:
    balls = (ball for over in innings["overs"] for ball in over["deliveries"])
    return sum(innings.get("penalty_runs", {}).values()) + sum(ball["runs"]["total"] for ball in balls)


def _outcome(plan: Plan, innings: list[dict[str, Any]], teams: list[str]) -> dict[str, Any]:
    if plan.abandoned:
        return {"result": "no result"}
    if plan.super_overs:
        winner = max(innings[-2:], key=total)["team"]
        return {"result": "tie", "eliminator": winner}
    lead = sum(total(item) * (1 if item["team"] == teams[0] else -1) for item in innings)
    if plan.reply:
        won = total(innings[1]) >= innings[1]["target"]["runs"]
        return {"winner": teams[won], "method": "D/L", "by": {"wickets": 5} if won else {"runs": 9}}
    if lead > 0:
        return {"winner": teams[0], "by": {"runs": lead}}
    lost = [
        wicket for over in innings[-1]["overs"] for ball in over["deliveries"] for wicket in ball.get("wickets", [])
    ]
    left = 10 - sum(wicket["kind"] not in ("retired hurt", "retired not out") for wicket in lost)
    return {"winner": teams[1], "by": {"wickets": left}} if lead < 0 else {"result": "tie"}


def _dressed(
    rng: random.Random, plan: Plan, teams: list[str], sides: list[list[str]], innings: list[dict[str, Any]]
) -> dict[str, Any]:
    day = rng.randint(1, 28)
    kind = {None: "MDM", 20: "T20", 10: "T10"}.get(plan.overs, "ODM")
    info: dict[str, Any] = {
        "balls_per_over": plan.balls_per_over,
        "dates": [f"2025-06-{day + later:02}" for later in range(2 if plan.overs is None else 1)],
        "event": {"name": "Potstill Invented Trophy"},
        "gender": rng.choice(("female", "male")),
        "match_type": kind,
        "outcome": _outcome(plan, innings, teams),
        "overs": plan.overs,
        "players": {team: side[: cricket_players.SIDE] for team, side in zip(teams, sides, strict=True)},
        "season": "2025",
        "team_type": "club",
        "teams": teams,
        "toss": {"decision": "bat", "winner": teams[0]},
        "venue": "An invented ground",
    }
    info = {key: value for key, value in info.items() if value is not None}
    return {
        "meta": {"data_version": plan.version, "created": "2025-07-01", "revision": 1},
        "info": info,
        "innings": innings,
    }
