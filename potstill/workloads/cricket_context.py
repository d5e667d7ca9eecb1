"""What a ball means in its match: score, overs in cricket notation, phase, pressure, target and required rate."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from potstill.stop import DATA, Stop

# overs of the powerplay at the start of an innings, as a share of the overs: 6 of 20, 10 of 50
POWERPLAY = {20: 6, 50: 10}
POWERPLAY_SHARE = 0.3
DEATH_SHARE = 0.2
NEW_BALL_OVERS = 10
SUPER_OVER_WICKETS = 2
# balls that a wicket is felt for
RECENT_BALLS, QUIET_BALLS = 18, 30


class State(NamedTuple):
    """After a ball. `overs` is cricket notation, "4.3" is 4 overs and 3 balls; `required_rate` is runs an over.

    `target`, `needed`, `balls_left` and `required_rate` are None outside a chase; `balls_left` and `required_rate` are
    None in a chase without an end of overs, and `required_rate` once no ball or no run is left.
    """

    runs: int
    wickets: int
    overs: str
    phase: str
    pressure: str
    target: int | None
    needed: int | None
    balls_left: int | None
    required_rate: float | None


class Innings:
    """One innings as it is played; `after` is told every ball in turn."""

    def __init__(self, number: int, team: str, super_over: bool, balls_per_over: int):
        self.number, self.team, self.super_over = number, team, super_over
        self.balls_per_over = balls_per_over
        self.balls_limit: int | None = balls_per_over if super_over else None
        self.target: int | None = None
        self.powerplays: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self.has_powerplays = False
        self.penalty = self.penalty_after = 0
        self.runs = self.wickets = 0
        self._over, self._legal, self._bowled = -1, 0, 0
        self._fell: list[int] = []

    def after(self, over: int, ball: int, runs: int, wickets: int, legal: bool) -> State:
        """The state after a ball that brought `runs` in all and cost `wickets`."""
        per_over = self.balls_per_over
        if over != self._over:
            self._over, self._legal = over, 0
        self._legal += legal
        self._bowled += legal
        self.runs += runs
        self.wickets += wickets
        self._fell += [self._bowled] * wickets
        # an umpire's seventh ball does not move the over on
        in_over = min(self._legal, per_over)
        overs = f"{over + 1}.0" if in_over == per_over else f"{over}.{in_over}"
        needed = balls_left = rate = None
        if self.target is not None:
            needed = max(0, self.target - self.runs)
            if self.balls_limit is not None:
                balls_left = max(0, self.balls_limit - over * per_over - in_over)
                rate = round(needed * per_over / balls_left, 1) if needed and balls_left else None
        phase = self._phase(over, ball)
        pressure = self._pressure(phase, over * per_over + in_over, rate)
        return State(self.runs, self.wickets, overs, phase, pressure, self.target, needed, balls_left, rate)

    def _phase(self, over: int, ball: int) -> str:
        if self.super_over:
            return "super_over"
        if any(first <= (over, ball) <= last for first, last in self.powerplays):
            return "powerplay"
        if self.balls_limit is None:
            return "new_ball" if over < NEW_BALL_OVERS else "middle"
        limit = -(-self.balls_limit // self.balls_per_over)
        if not self.has_powerplays and over < POWERPLAY.get(limit, int(limit * POWERPLAY_SHARE)):
            return "powerplay"
        return "death" if over >= limit - round(limit * DEATH_SHARE) else "middle"

    def _pressure(self, phase: str, bowled: int, rate: float | None) -> str:
        """On the batting side, by rule: the chase against the scoring rate, or the wickets that fell of late."""
        if self.super_over:
            return "high"
        if rate is not None:
            gap = rate - self.runs * self.balls_per_over / max(bowled, 1)
            if gap >= 2 or self.wickets >= 7 or (phase == "death" and gap > 0):
                return "high"
            return "low" if gap <= -1 and self.wickets <= 4 else "medium"
        recent = sum(self._bowled - fell < RECENT_BALLS for fell in self._fell)
        if recent >= 2 or self.wickets >= 8:
            return "high"
        quiet = self._bowled - (self._fell[-1] if self._fell else 0) >= QUIET_BALLS
        return "low" if quiet and self.wickets <= 3 else "medium"


class Match(NamedTuple):
    """What `info` says that balls depend on. `overs` is None in a match of days; `method` names a rain rule."""

    where: str
    balls_per_over: int
    overs: int | None
    method: str | None
    outcome: dict[str, Any]

    @classmethod
    def of(cls, info: dict[str, Any], where: str) -> "Match":
        outcome = info.get("outcome")
        outcome = outcome if isinstance(outcome, dict) else {}
        overs = number(info["overs"], f"{where}: info.overs") if "overs" in info else None
        balls = number(info.get("balls_per_over", 6), f"{where}: info.balls_per_over")
        if not 1 <= balls <= 10 or (overs is not None and not 1 <= overs <= 100):
            raise Stop(f"{where}: info: want 1 to 10 balls per over and 1 to 100 overs", DATA)
        return cls(where, balls, overs, outcome.get("method"), outcome)

    def start(self, count: int, body: dict[str, Any], done: Sequence[Any], where: str) -> Innings:
        """The innings about to be played, after those `done` (their Totals)."""
        super_over = body.get("super_over") in (True, "true", "yes")
        innings = Innings(count, body["team"], super_over, self.balls_per_over)
        if not super_over and self.overs is not None:
            innings.balls_limit = self.overs * self.balls_per_over
        penalty = body.get("penalty_runs") or {}
        if not isinstance(penalty, dict) or not penalty.keys() <= {"pre", "post"}:
            raise Stop(f"{where}: penalty_runs: want runs under pre and post", DATA)
        innings.penalty = innings.runs = number(penalty.get("pre", 0), f"{where}: penalty_runs.pre")
        innings.penalty_after = number(penalty.get("post", 0), f"{where}: penalty_runs.post")
        _read_powerplays(innings, body, where)
        self._set_target(innings, body, done, where)
        return innings

    def _set_target(self, innings: Innings, body: dict[str, Any], done: Sequence[Any], where: str) -> None:
        stated = body.get("target")
        if isinstance(stated, dict) and "runs" in stated:
            innings.target = number(stated["runs"], f"{where}: target.runs", 10_000)
            if "overs" in stated and not innings.super_over:
                overs, _, balls = str(stated["overs"]).partition(".")
                whole = number(overs, f"{where}: target.overs") * self.balls_per_over
                innings.balls_limit = whole + number(balls or 0, f"{where}: target.overs")
        elif innings.super_over:
            before = [total for total in done if total.team != innings.team]
            # the side that bats second in a super over is the one whose number is even among them
            innings.target = before[-1].runs + 1 if before and self._is_reply(innings, done) else None
        elif self.method is None and len(done) == (1 if self.overs is not None else 3):
            own = sum(total.runs for total in done if total.team == innings.team)
            lead = sum(total.runs for total in done if total.team != innings.team) - own
            innings.target = lead + 1 if lead >= 0 else None

    def _is_reply(self, innings: Innings, done: Sequence[Any]) -> bool:
        played = len(done) - (2 if self.overs is not None else 4)
        return played % 2 == 1

    def check_target(self, body: dict[str, Any], innings: Innings, done: Sequence[Any], where: str) -> None:
        """The second innings' stated target is one more than the first made, unless rain changed it."""
        if len(done) != 2 or self.overs is None or self.method is not None or not isinstance(body.get("target"), dict):
            return
        limit = self.overs * self.balls_per_over
        if innings.target is not None and innings.balls_limit == limit and innings.target != done[0].runs + 1:
            made = f"the first innings' balls make {done[0].runs}"
            raise Stop(f"{where}: target.runs is {innings.target}, {made}. Fetch the file again.", DATA)

    def check_result(self, done: Sequence[Any]) -> None:
        """A win by runs is by the difference of the innings, unless rain or a super over had a say."""
        by, winner = self.outcome.get("by"), self.outcome.get("winner")
        if self.method is not None or not isinstance(by, dict) or "runs" not in by or "innings" in by:
            return
        margin = number(by["runs"], f"{self.where}: info.outcome.by.runs", 10_000)
        lead = sum(total.runs if total.team == winner else -total.runs for total in done)
        if lead != margin:
            made = f"the balls make {lead}"
            raise Stop(f"{self.where}: info.outcome.by.runs is {margin}, {made}. Fetch the file again.", DATA)


def _read_powerplays(innings: Innings, body: dict[str, Any], where: str) -> None:
    """The first powerplay, and those a side took. In one-day cricket the later mandatory ones are the whole rest."""
    given = body.get("powerplays")
    for item in given if isinstance(given, list) else []:
        if not isinstance(item, dict) or not {"from", "to", "type"} <= item.keys():
            raise Stop(f"{where}: powerplays: want from, to and type", DATA)
        first, last = (_ball(item[key], f"{where}: powerplays.{key}") for key in ("from", "to"))
        if first[0] == 0 or item["type"] != "mandatory":
            innings.powerplays.append((first, last))
        innings.has_powerplays = True


def _ball(value: Any, where: str) -> tuple[int, int]:
    over, _, ball = str(value).partition(".")
    return number(over, where), number(ball or 0, where)


def number(value: Any, where: str, most: int = 1000) -> int:
    """A whole number from 0, given as a number or as text. Raises Stop 65."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 7:
        value = int(value)
    if type(value) is not int or not 0 <= value <= most:
        raise Stop(f"{where}: want a whole number from 0 to {most}. Fetch the file again or leave it out.", DATA)
    return value
