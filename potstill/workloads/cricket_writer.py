"""The teacher: writes the line that a persona of personas.yaml says about a ball, seeded by the ball's place.

A line is drawn from the persona's sentences and their lists of words, and kept when it is as long as the persona speaks
and passes every check of cricket_facts: what the student learns from is true.
"""

import random
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from potstill import config
from potstill.config import Config
from potstill.stop import DATA, Stop
from potstill.workloads import cricket_facts
from potstill.workloads.cricket_facts import NUMBERS, Ball

Type = Literal["dot", "runs", "four", "six", "wide", "no_ball", "byes", "leg_byes", "penalty", "retired", "wicket"]
Fact = Literal["runs", "batter", "bowler", "wicket", "fielder"]
ATTEMPTS = 200
_HOLE = re.compile(r"\{(\w+)\}")
_START = re.compile(r"(^|[.!?] )([a-z])")
EXTRA_NAMES = {"wides": "wide", "noballs": "no-ball", "byes": "bye", "legbyes": "leg bye"}


class Persona(Config):
    """`words`: fewest and most. Keys of `lines`: kinds of ball and of wicket; of `before`, `after`: states too."""

    style: str
    words: Annotated[list[Annotated[int, Field(gt=0, le=60)]], Field(min_length=2, max_length=2)]
    say: dict[Type, list[Fact]]
    lines: dict[str, Annotated[list[str], Field(min_length=1)]]
    before: dict[str, list[str]] = Field(default_factory=dict)
    after: dict[str, list[str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _in_order(self) -> "Persona":
        if self.words[0] > self.words[1]:
            raise ValueError("words: want the fewest first")
        return self


class Personas(Config):
    """data/samples/cricket/personas.yaml. `calls`: of how many personas a kind of ball gets a line."""

    calls: dict[Type, Annotated[float, Field(ge=0)]]
    words: dict[str, Annotated[list[str], Field(min_length=1)]]
    personas: Annotated[dict[str, Persona], Field(min_length=1)]


@lru_cache(4)
def _load(path: Path, changed: int) -> Personas:
    book = config.load(path, Personas)
    known = {*book.words, *_FILL, "runs", "bat", "extra", "kind", "batter", "bowler", "non_striker", "out", "fielder"}
    for name, persona in book.personas.items():
        groups = [*persona.lines.values(), *persona.before.values(), *persona.after.values(), *book.words.values()]
        for hole in (hole for texts in groups for text in texts for hole in _HOLE.findall(text)):
            if hole not in known:
                near = config.nearest(hole, known)
                raise Stop(f"{path}: persona {name!r} has a line with {{{hole}}}, which is no word list.{near}")
    return book


def load(path: Path) -> Personas:
    """Raises Stop 2 that names the file, the key and the rule."""
    return _load(path, path.stat().st_mtime_ns if path.is_file() else 0)


def write(book: Personas, name: str, prompt: str, rng: random.Random) -> str:
    """The persona's line about the ball in `prompt`.

    Raises Stop 65 when the persona's sentences give no line that is true and of the right length.
    """
    persona, ball = book.personas[name], cricket_facts.read(prompt)
    assert ball is not None
    values = _values(ball)
    tags = _tags(ball)
    cores = [_fillable(persona.lines.get(kind, []), values, book.words) for kind in _kinds(ball)]
    last: dict[str, str] = {}
    for _ in range(ATTEMPTS if cores and all(cores) else 0):
        sentences = [
            _fill(rng.choice(options), {**values, **own}, book.words, rng) for options, own in _paired(cores, ball)
        ]
        if rng.random() < 0.5:
            sentences = _extra(persona.before, tags, values, book.words, rng) + sentences
        if rng.random() < 0.6:
            sentences += _extra(persona.after, tags, values, book.words, rng)
        line = _START.sub(lambda match: match[1] + match[2].upper(), " ".join(sentences))
        last = cricket_facts.problems(line, prompt)
        if not last:
            return line
    event = ball.event
    why = "; ".join(f"{level}: {what}" for level, what in last.items()) or f"no line for {', '.join(_kinds(ball))}"
    raise Stop(
        f"persona {name!r} has no true line for a ball of type {event['type']!r} with words {ball.words}: {why}. "
        "Add lines to personas.yaml, or loosen words or say.",
        DATA,
    )


def runs_phrase(count: int) -> list[str]:
    """Ways to say runs: 1 -> "one", "a single"; 7 -> "seven"; 15 -> "15 runs"."""
    special = {1: ["one", "a single"], 2: ["two", "a couple"]}
    return special.get(count) or ([NUMBERS[count]] if 0 < count < len(NUMBERS) else [f"{count} runs"])


def extra_phrase(event: dict[str, Any]) -> str:
    """How the ball's extras are called: "a wide", "five wides", "a no-ball, three in all"; "" without any."""
    extras, total = event.get("extras", {}), event["runs"]
    kinds = [kind for kind in EXTRA_NAMES if kind in extras]
    if not kinds:
        return ""
    name = EXTRA_NAMES[kinds[0]]
    if total == 1:
        return f"a {name}"
    if len(kinds) == 1 and kinds[0] != "noballs":
        return f"{runs_phrase(total)[0].removesuffix(' runs')} {name}s"
    rest = [f"a {EXTRA_NAMES[kind]}" if extras[kind] == 1 else f"{EXTRA_NAMES[kind]}s" for kind in kinds[1:]]
    return f"{' and '.join([f'a {name}', *rest])}, {runs_phrase(total)[0]} in all"


_FILL = ("score", "overs", "target", "needed", "balls_left", "rate")


def _values(ball: Ball) -> dict[str, list[str]]:
    """What the holes of a sentence can be filled with on this ball; a hole that is not here cannot be filled."""
    event, context = ball.event, ball.context
    short = cricket_facts.spoken(ball)
    values = {role: [short[event[role]]] for role in ("batter", "bowler", "non_striker")}
    for wicket in event.get("wickets", [])[:1]:
        values |= _wicket_values(wicket, short)
    if event["runs"]:
        values["runs"] = runs_phrase(event["runs"])
    if event.get("bat"):
        values["bat"] = [runs_phrase(event["bat"])[0]]
    if extra := extra_phrase(event):
        values["extra"] = [extra]
    for hole in _FILL:
        value = context.get("required_rate" if hole == "rate" else hole)
        if value is not None:
            values[hole] = [str(value)]
    return values


def _wicket_values(wicket: dict[str, Any], short: dict[str, str]) -> dict[str, list[str]]:
    fielders = [short[name] for name in wicket.get("fielders", [])]
    return {"out": [short[wicket["out"]]], "kind": [wicket["kind"]]} | ({"fielder": fielders} if fielders else {})


def _kinds(ball: Ball) -> list[str]:
    """The keys of `lines` for the ball: one, and "also" for every wicket after the first."""
    event = ball.event
    wickets = event.get("wickets", [])
    if wickets:
        kind = wickets[0]["kind"]
        return [kind if kind in _SAID else "other", *["also"] * (len(wickets) - 1)]
    return ["no_ball_bat" if event["type"] == "no_ball" and event.get("bat") else event["type"]]


_SAID: tuple[str, ...] = (
    "bowled",
    "caught",
    "caught and bowled",
    "lbw",
    "run out",
    "stumped",
    "hit wicket",
    "retired hurt",
)
_SAID += ("retired not out",)


def _paired(cores: list[list[str]], ball: Ball) -> list[tuple[list[str], dict[str, list[str]]]]:
    """Each core's sentences with what is special to them: the second wicket has a batter and a kind of its own."""
    short = cricket_facts.spoken(ball)
    later = [_wicket_values(wicket, short) for wicket in ball.event.get("wickets", [])[1:]]
    return list(zip(cores, [{}, *later], strict=True))


def _tags(ball: Ball) -> list[str]:
    context = ball.context
    chase = ["chase"] if context.get("balls_left") and context.get("needed") else []
    return ["any", ball.event["type"], context["phase"], context["pressure"], *chase]


def _fillable(sentences: list[str], values: dict[str, list[str]], words: dict[str, list[str]]) -> list[str]:
    return [text for text in sentences if all(hole in values or hole in words for hole in _HOLE.findall(text))]


def _extra(
    groups: dict[str, list[str]],
    tags: list[str],
    values: dict[str, list[str]],
    words: dict[str, list[str]],
    rng: random.Random,
) -> list[str]:
    """One sentence of the groups that fit the ball, filled; or none."""
    fitting = _fillable([text for tag in tags for text in groups.get(tag, [])], values, words)
    return [_fill(rng.choice(fitting), values, words, rng)] if fitting else []


def _fill(text: str, values: dict[str, list[str]], words: dict[str, list[str]], rng: random.Random) -> str:
    return _HOLE.sub(lambda hole: rng.choice(values.get(hole[1]) or words[hole[1]]), text)
