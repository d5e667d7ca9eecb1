"""Checks a line of commentary against the ball in its prompt: slot levels that need no model and no reference.

A name's role in a line is read from the words beside it ("from Rao", "Rao drives"), so a line that swaps batter and
bowler fails although it has the right names. A claim is checked wherever it is made; what a line must name is what the
prompt asks for under `say`.
"""

import functools
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from potstill import slots
from potstill.slots import Score
from potstill.workloads import cricket_names


class Ball(NamedTuple):
    """What a prompt says of a ball. `names`: as written in a line -> the player; `roles`: player -> what they did."""

    event: dict[str, Any]
    context: dict[str, Any]
    words: tuple[int, int]
    say: frozenset[str]
    names: dict[str, str]
    roles: dict[str, set[str]]
    pattern: re.Pattern[str]


NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
WORDS = {word: value for value, word in enumerate(NUMBERS)} | {"single": 1, "couple": 2, "brace": 2, "maximum": 6}
_NO_RUN = re.compile(r"\bno runs?\b|\bdot\b|\bscoreless\b|\bnothing (?:there|doing)\b")
_RUNS = re.compile(rf"\b({'|'.join([*WORDS][1:])})\b(?! (?:needed|overs?\b|balls\b|men\b|slips?\b))")
_BOUNDARY = re.compile(r"\bboundary\b|\brope\b|\bfence\b|\bmaximum\b|\binto the stands\b")
_DIGITS = re.compile(r"(?<![\w./-])(\d+)(?![\w/-]|\.\d)")
# "that one" and "two men outside the circle" count nothing that was scored
_NO_CLAIM = re.compile(r"\b(?:that|this|no|any|every|good|big) one\b|\bone (?:of|for|more|to)\b")
# numbers of the match's state, which are written in digits
_STATE = re.compile(
    r"(\d+)/(\d+)|\bneed(?:ing|s)? (\d+)|(\d+) (?:needed|wanted|to win|to get)|(?:off|from) (\d+)(?! runs?\b)"
    r"|(\d+\.\d+|\d+) an over|(?:after|in) (\d+\.\d+|\d+) overs?|(?:target|chasing)\D{1,8}(\d+)|(\d+\.\d+)"
)
_EXTRAS = {"wides": r"\bwides?\b(?! of)", "noballs": r"\bno[- ]balls?\b", "legbyes": r"\bleg[- ]byes?\b"}
_EXTRAS |= {"byes": r"(?<!leg )(?<!leg-)\bbyes?\b", "penalty": r"\bpenalty\b"}
EXTRAS = {kind: re.compile(pattern) for kind, pattern in _EXTRAS.items()}
# a kind of ball -> the extra that a line which tells the runs must tell
EXTRA_OF = {"wide": "wides", "no_ball": "noballs", "byes": "byes", "leg_byes": "legbyes", "penalty": "penalty"}
# each is taken out of the line before the next is looked for: "caught and bowled" is neither caught nor bowled
_WICKETS = {
    "caught and bowled": r"\bcaught and bowled\b|\breturn catch\b",
    "run out": r"\brun[- ]out\b|\bdirect hit\b|\bshort of the crease\b",
    "hit wicket": r"\bhit wicket\b",
    "hit the ball twice": r"\bhit the ball twice\b",
    "handled the ball": r"\bhandled the ball\b",
    "obstructing the field": r"\bobstructing the field\b",
    "timed out": r"\btimed out\b",
    "retired out": r"\bretired out\b",
    "retired hurt": r"\bretire[sd] hurt\b",
    "retired not out": r"\bretired not out\b",
    "lbw": r"\blbw\b|\bleg before\b|\bplumb\b",
    "stumped": r"\bstump(?:ed|s|ing)\b(?= by)|\bstumped\b|\bst [A-Z]|\bbails\b",
    "caught": r"\bcaught\b|\bcatch(?:es)?\b|\bpouche[sd]\b|\bc [A-Z]",
    "bowled": r"\bbowled\b|\bcastles\b|\btimber\b",
}
WICKETS = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _WICKETS.items()}
_OUT = re.compile(
    r"(?<!not )\b(?:out(?! (?:of|to|wide|in|there))|gone|departs|dismisse[sd]|removes|perishes|wicket|has to go)\b"
)
NOT_OUT = ("retired hurt", "retired not out")


@functools.lru_cache(4096)
def read(prompt: str) -> Ball | None:
    """The ball in a prompt that `cricket.prompt` made; None for any other text."""
    try:
        given = json.loads(prompt)
        event, context = given["event"], given["context"]
        low, high = (int(part) for part in given["words"].split("-"))
        return _ball(event, context, (low, high), frozenset(given["say"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _ball(event: dict[str, Any], context: dict[str, Any], words: tuple[int, int], say: frozenset[str]) -> Ball:
    roles: dict[str, set[str]] = {event["batter"]: {"batter"}}
    for player in (event["bowler"], event["non_striker"]):
        roles.setdefault(player, set())
    roles[event["bowler"]].add("bowler")
    for wicket in event.get("wickets", []):
        roles.setdefault(wicket["out"], set()).add("out")
        for fielder in wicket.get("fielders", []):
            roles.setdefault(fielder, set()).add("fielder")
        if wicket["kind"] == "caught and bowled":
            roles[event["bowler"]].add("fielder")
    names, pattern = cricket_names.written(frozenset(roles))
    return Ball(event, context, words, say, names, roles, pattern)


def spoken(ball: Ball) -> dict[str, str]:
    """Player -> the shortest way to write the name that means nobody else on the ball."""
    return {player: min((f for f, p in ball.names.items() if p == player), key=len) for player in ball.roles}


def _role_problem(line: str, ball: Ball, roles: tuple[str, ...], wanted: list[str]) -> str:
    """A role given to somebody else, or nobody of `wanted` named."""
    seen = set()
    for mention in cricket_names.mentions(line, frozenset(ball.roles)):
        seen.add(mention.player)
        own = ball.roles[mention.player] if mention.player is not None else set()
        for role in mention.roles & set(roles):
            if role not in own:
                return f"the line names somebody as {role} who was not"
        if mention.player is None and not mention.roles and roles[0] == "batter":
            return "the line names somebody who is not on the ball"
    return "" if all(player in seen for player in wanted) else f"the line does not name the {roles[-1]}"


def _batter(line: str, ball: Ball) -> str:
    wickets = ball.event.get("wickets", [])
    wanted = [wicket["out"] for wicket in wickets] or [ball.event["batter"]]
    return _role_problem(line, ball, ("batter", "out"), wanted if "batter" in ball.say else [])


def _bowler(line: str, ball: Ball) -> str:
    return _role_problem(line, ball, ("bowler",), [ball.event["bowler"]] if "bowler" in ball.say else [])


def _fielder(line: str, ball: Ball) -> str:
    fielders = {name for wicket in ball.event.get("wickets", []) for name in wicket.get("fielders", [])}
    problem = _role_problem(line, ball, ("fielder",), [])
    if problem or "fielder" not in ball.say:
        return problem
    named = {mention.player for mention in cricket_names.mentions(line, frozenset(ball.roles))}
    return "" if fielders & named else "the line does not name a fielder"


def _runs(line: str, ball: Ball) -> str:
    event = ball.event
    extras = event.get("extras", {})
    text = _NO_CLAIM.sub(" ", _STATE.sub(" ", ball.pattern.sub("#", line).lower()))
    claims = {WORDS[word] for word in _RUNS.findall(text)} | {int(digits) for digits in _DIGITS.findall(text)}
    if _NO_RUN.search(text):
        claims.add(0)
    allowed = {event["runs"]} | ({event.get("bat", 0) or event["runs"], sum(extras.values())} if extras else set())
    if claims - allowed:
        return "the line tells of runs that the ball did not bring"
    if _BOUNDARY.search(text) and event["type"] not in ("four", "six"):
        return "the line tells of a boundary, which the ball was not"
    told = {kind for kind, pattern in EXTRAS.items() if pattern.search(text)}
    if told - extras.keys():
        return "the line tells of an extra that the ball was not"
    if "runs" not in ball.say:
        return ""
    if EXTRA_OF.get(event["type"], "") not in {"", *told}:
        return "the line does not tell of the extra"
    # "a wide" is one run
    return "" if event["runs"] in claims or (extras and event["runs"] == 1) else "the line does not tell the runs"


def _wicket(line: str, ball: Ball) -> str:
    kinds = {wicket["kind"] for wicket in ball.event.get("wickets", [])}
    text, told = ball.pattern.sub("N", line), set()
    for kind, pattern in WICKETS.items():
        text, count = pattern.subn(" ", text)
        told |= {kind} if count else set()
    if told - kinds:
        return "the line tells of a wicket that the ball did not take"
    if _OUT.search(text) and not kinds - set(NOT_OUT):
        return "the line sends somebody back who was not out"
    return "the line does not tell how the wicket fell" if "wicket" in ball.say and told != kinds else ""


def _context(line: str, ball: Ball) -> str:
    context = ball.context
    keys = ("needed", "needed", "balls_left", "required_rate", "overs", "target")
    for found in _STATE.finditer(ball.pattern.sub("#", line).lower()):
        if found[1]:
            right = f"{found[1]}/{found[2]}" == context["score"]
        elif found[9]:
            right = found[9] in (context["overs"], str(context.get("required_rate")))
        else:
            right = all(
                str(context.get(key)) == value for key, value in zip(keys, found.groups()[2:8], strict=True) if value
            )
        if not right:
            return "the line states a score, need, rate or target that is not the match's"
    return ""


def _length(line: str, ball: Ball) -> str:
    count, (low, high) = len(line.split()), ball.words
    return "" if low <= count <= high else f"{count} words, want {low} to {high}"


def _level(problem: Callable[[str, Ball], str]) -> Callable[..., Score]:
    def level(reference: Any, candidate: Any, *, prompt: str, **options: Any) -> Score:
        """Scores the candidate line against the ball in `prompt`, 0 or 1; the reference line has no say."""
        ball = read(prompt)
        if ball is None:
            return slots.error("the prompt holds no ball")
        what = problem(candidate, ball) if isinstance(candidate, str) else "no text, want a line"
        return Score(0.0 if what else 1.0, not what, "scored", what or "true to the ball")

    return level


CHECKS: dict[str, Callable[[str, Ball], str]] = {
    "fact_runs": _runs,
    "fact_batter": _batter,
    "fact_bowler": _bowler,
    "fact_wicket": _wicket,
    "fact_fielder": _fielder,
    "fact_context": _context,
    "length_for_persona": _length,
}
LEVELS: dict[str, Callable[..., Score]] = {name: _level(check) for name, check in CHECKS.items()}


def problems(line: str, prompt: str) -> dict[str, str]:
    """What is wrong with a line, by level; empty when nothing is. Raises ValueError for a prompt without a ball."""
    ball = read(prompt)
    if ball is None:
        raise ValueError("the prompt holds no ball")
    found = {name: check(line, ball) for name, check in CHECKS.items()}
    return {name: what for name, what in found.items() if what}
