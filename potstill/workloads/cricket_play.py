"""Plays an innings of an invented match, ball by ball, in the shape of Cricsheet's JSON.

The rates are those of short-form cricket in round numbers. INCIDENTS are what hardly ever happens, for a plan to place.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Ball = dict[str, Any]
Made = tuple[int, dict[str, int], list[dict[str, Any]]]
# of a ball without incident: runs off the bat and their share
RUNS = {0: 36, 1: 38, 2: 7, 3: 1, 4: 11, 6: 5}
WICKET, WIDE, NO_BALL, BYES, LEG_BYES = 0.052, 0.032, 0.006, 0.005, 0.012
KINDS = {"caught": 56, "bowled": 19, "lbw": 9, "run out": 8, "caught and bowled": 4, "stumped": 3, "hit wicket": 1}
EXTRAS = {"wides": (1,) * 12 + (2, 3, 5), "noballs": (1,), "byes": (1, 1, 2, 4), "legbyes": (1, 1, 1, 2, 4)}
UNUSUAL = ["retired hurt", "retired not out", "retired out", "obstructing the field", "timed out", "hit the ball twice"]
UNUSUAL += ["handled the ball", "hit wicket"]
KEEPER = 4
FIRST_BOWLER = 5


class Terms(NamedTuple):
    """What ends an innings: `overs`, the fall of `wickets`, or `target` runs. `runs` are there before the start."""

    overs: int
    balls_per_over: int = 6
    wickets: int = 10
    target: int | None = None
    runs: int = 0
    # the share of balls that take a wicket
    wicket: float = WICKET


class _Pair:
    """The two batters in the middle and who is to come."""

    def __init__(self, order: list[str]):
        self.striker, self.partner, self.to_come = order[0], order[1], order[2:]

    def change_ends(self) -> None:
        self.striker, self.partner = self.partner, self.striker

    def leave(self, player: str) -> None:
        """The next in takes the player's place, while there is one."""
        if not self.to_come:
            return
        successor = self.to_come.pop(0)
        if player == self.striker:
            self.striker = successor
        else:
            self.partner = successor


def innings(
    rng: random.Random,
    batting: list[str],
    fielding: list[str],
    terms: Terms,
    incidents: Mapping[tuple[int, int], str],
) -> list[dict[str, Any]]:
    """The overs of an innings. `incidents`: (over, ball) -> what is made to happen there, balls counted from 1."""
    pair, total = _Pair(batting), terms.runs
    left = min(terms.wickets, len(batting) - 1)
    overs: list[dict[str, Any]] = []
    bowler = ""
    for over in range(terms.overs):
        bowler = rng.choice([name for name in fielding[FIRST_BOWLER:] if name != bowler])
        balls: list[Ball] = []
        to_bowl = terms.balls_per_over + {"five short": -1, "seven long": 1}.get(incidents.get((over, 1), ""), 0)
        while to_bowl and left and (terms.target is None or total < terms.target):
            ball = _ball(rng, pair, bowler, fielding, incidents.get((over, len(balls) + 1)), terms.wicket)
            balls.append(ball)
            to_bowl -= not ball.get("extras", {}).keys() & {"wides", "noballs"}
            left -= len(ball.get("wickets", ()))
            total += ball["runs"]["total"]
        if not balls:
            break
        overs.append({"over": over, "deliveries": balls})
        pair.change_ends()
    return overs


def _ball(
    rng: random.Random, pair: _Pair, bowler: str, fielding: list[str], incident: str | None, wicket: float
) -> Ball:
    batter, partner = pair.striker, pair.partner
    make = INCIDENTS.get(incident or "")
    bat, extras, wickets = make(batter, partner, fielding) if make else _drawn(rng, batter, partner, fielding, wicket)
    runs: dict[str, Any] = {"batter": bat, "extras": sum(extras.values()), "total": bat + sum(extras.values())}
    if incident == "all run four":
        runs["non_boundary"] = True
    run = bat + extras.get("byes", 0) + extras.get("legbyes", 0) + max(0, extras.get("wides", 0) - 1)
    if run % 2:
        pair.change_ends()
    for fall in wickets:
        pair.leave(fall["player_out"])
    ball = {"batter": batter, "bowler": bowler, **({"extras": extras} if extras else {}), "non_striker": partner}
    return {**ball, "runs": runs, **({"wickets": wickets} if wickets else {})}


def _drawn(rng: random.Random, batter: str, partner: str, fielding: list[str], wicket: float) -> Made:
    """(runs off the bat, extras, wickets) of a ball left to chance."""
    shares = {"wicket": wicket, "wides": WIDE, "noballs": NO_BALL, "byes": BYES, "legbyes": LEG_BYES}
    shares["runs"] = 1 - sum(shares.values())
    what = rng.choices([*shares], [*shares.values()])[0]
    if what == "wicket":
        fall = _dismissal(rng, batter, partner, fielding)
        return rng.choice((0, 0, 1)) if fall["kind"] == "run out" else 0, {}, [fall]
    if what == "runs":
        return rng.choices([*RUNS], [*RUNS.values()])[0], {}, []
    return rng.choice((0, 0, 1, 4, 6)) if what == "noballs" else 0, {what: rng.choice(EXTRAS[what])}, []


def _dismissal(rng: random.Random, batter: str, partner: str, fielding: list[str]) -> dict[str, Any]:
    kind = rng.choices([*KINDS], [*KINDS.values()])[0]
    if kind == "run out":
        fielders = [{"name": name} for name in rng.sample(fielding, rng.choice((1, 1, 2)))]
        return _out(kind, rng.choice((batter, partner)), *fielders)[0]
    if kind == "caught":
        return _out(kind, batter, {"name": rng.choice(fielding[:9] + [fielding[KEEPER]] * 3)})[0]
    return _out(kind, batter, *([{"name": fielding[KEEPER]}] if kind == "stumped" else []))[0]


def _out(kind: str, who: str, *fielders: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"player_out": who, "kind": kind, **({"fielders": list(fielders)} if fielders else {})}]


def _just_out(kind: str) -> Callable[[str, str, list[str]], Made]:
    return lambda batter, partner, fielding: (0, {}, _out(kind, batter))


# (batter, non-striker, fielding side with a twelfth) -> runs off the bat, extras, wickets
INCIDENTS: dict[str, Callable[[str, str, list[str]], Made]] = {
    "wide": lambda a, b, f: (0, {"wides": 1}, []),
    "five wides": lambda a, b, f: (0, {"wides": 5}, []),
    "penalty": lambda a, b, f: (1, {"penalty": 5}, []),
    "all run four": lambda a, b, f: (4, {}, []),
    "six off a no-ball": lambda a, b, f: (6, {"noballs": 1}, []),
    "no-ball and byes": lambda a, b, f: (0, {"noballs": 1, "byes": 2}, []),
    "non-striker run out": lambda a, b, f: (1, {}, _out("run out", b, {"name": f[2]}, {"name": f[KEEPER]})),
    "run out off a no-ball": lambda a, b, f: (1, {"noballs": 1}, _out("run out", b, {"name": f[3]})),
    "stumped off a wide": lambda a, b, f: (0, {"wides": 1}, _out("stumped", a, {"name": f[KEEPER]})),
    "two wickets": lambda a, b, f: (0, {}, _out("caught", a, {"name": f[1]}) + _out("retired out", b)),
    "substitute's catch": lambda a, b, f: (0, {}, _out("caught", a, {"name": f[-1], "substitute": True})),
    "nameless substitute": lambda a, b, f: (0, {}, _out("caught", a, {"substitute": True})),
    **{kind: _just_out(kind) for kind in UNUSUAL},
}
