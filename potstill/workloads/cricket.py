"""Cricket: a ball with its match and a persona -> one line of commentary that is true to the ball.

`convert` reads Cricsheet matches (JSON or YAML) from data/samples/cricket/matches/, or from the folder that
CRICKET_DATA_DIR names, and has each line written by the seeded teacher of potstill/workloads/cricket_writer.py. LEVELS
check a line's facts. python -m scripts.dataset.samples -w cricket writes the sample matches.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from potstill.files import canonical_json
from potstill.records import Exemplar, Record, SlotSpec
from potstill.stop import DATA, Stop
from potstill.workloads import cricket_facts, cricket_match, cricket_simulator, cricket_writer
from potstill.workloads.cricket_match import NO_WICKET, Delivery
from potstill.workloads.cricket_writer import Personas

SCHEMA_VERSION = "1"
TASK = "commentary"
LEVELS = cricket_facts.LEVELS
FIELDER_SLOT = {"fielder": SlotSpec(level="fact_fielder", path="line", critical=True)}
# the bowler has no part in these
NOT_THE_BOWLERS = {"run out", "retired out", "timed out", "obstructing the field", "hit the ball twice"}
NOT_THE_BOWLERS |= {"handled the ball", *NO_WICKET}
A_FIELDERS = ("caught", "run out", "stumped")


class Answer(Record):
    line: Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f]+$")]


SCHEMAS = {TASK: Answer}


def convert(samples: Path) -> Iterator[Exemplar]:
    """Yields an exemplar for every line: per ball, as many personas as `calls` in personas.yaml gives its kind.

    The JSON and the YAML file of a match give the same exemplars, and where both are there the JSON is read. Raises
    Stop 65 that names the file, the innings, the over and the ball.
    """
    book = cricket_writer.load(samples / "personas.yaml")
    for path in matches(Path(os.environ.get("CRICKET_DATA_DIR") or samples / "matches")):
        for ball in cricket_match.deliveries(path):
            for persona in callers(ball, book):
                yield exemplar(ball, persona, book)


def matches(folder: Path) -> list[Path]:
    """The match files of a folder, one for each match."""
    found = {path.stem: path for suffix in (".yaml", ".json") for path in sorted(folder.glob(f"*{suffix}"))}
    if not found:
        raise Stop(f"{folder}: no match (*.json or *.yaml) there. Run fab dataset.samples -w cricket.", DATA)
    return [found[stem] for stem in sorted(found)]


def callers(ball: Delivery, book: Personas) -> list[str]:
    """The personas that call a ball, drawn from its place in the match alone."""
    share = book.calls.get(kind_of(ball), 1)
    names = list(book.personas)
    if share >= len(names):
        return names
    rng = random.Random(f"{place(ball)} callers")
    return rng.sample(names, int(share) + (rng.random() < share % 1))


def exemplar(ball: Delivery, persona: str, book: Personas) -> Exemplar:
    """One line as the strong model would have been asked for it. Raises Stop 65 when the persona has no true line."""
    text = prompt(ball, persona, book)
    try:
        line = cricket_writer.write(book, persona, text, random.Random(f"{place(ball)} {persona}"))
    except Stop as stop:
        where = f"{ball.match} innings {ball.innings} over {ball.over} ball {ball.ball}"
        raise Stop(f"{where}: {stop}", stop.code) from None
    return Exemplar(
        id=f"{place(ball)}-{persona}",
        task=TASK,
        prompt_text=text,
        response_strong=canonical_json({"line": line}),
        metadata={
            "group": ball.match,
            "innings": ball.innings,
            "over": f"{ball.over}.{ball.ball}",
            "persona": persona,
            "kind": kind_of(ball),
            "language": "en",
            "schema_version": SCHEMA_VERSION,
        },
        slot_specs=FIELDER_SLOT if "fielder" in say(ball, persona, book) else None,
    )


def prompt(ball: Delivery, persona: str, book: Personas) -> str:
    """What the model is asked: compact JSON of the event, its context, the persona, its words and what it must say."""
    low, high = book.personas[persona].words
    asked = {"persona": persona, "words": f"{low}-{high}", "say": say(ball, persona, book)}
    return canonical_json({"event": event(ball), "context": context(ball), **asked})


def event(ball: Delivery) -> dict[str, Any]:
    """`runs` are all the ball brought; `bat`, of an extra, those off the bat."""
    found: dict[str, Any] = {"type": kind_of(ball), "batter": ball.batter, "bowler": ball.bowler}
    found |= {"non_striker": ball.non_striker, "runs": ball.runs_total}
    if ball.extras:
        found |= {"bat": ball.runs_batter} if ball.runs_batter else {}
        found["extras"] = ball.extras
    if ball.wickets:
        found["wickets"] = [_wicket(*wicket) for wicket in ball.wickets]
    return found


def _wicket(kind: str, out: str, fielders: tuple[str, ...]) -> dict[str, Any]:
    return {"kind": kind, "out": out} | ({"fielders": list(fielders)} if fielders else {})


def context(ball: Delivery) -> dict[str, Any]:
    """The match after the ball; what there is none of is left out."""
    state = ball.state
    found = {
        "innings": ball.innings,
        "score": f"{state.runs}/{state.wickets}",
        "overs": state.overs,
        "phase": state.phase,
        "pressure": state.pressure,
        "target": state.target,
        "needed": state.needed,
        "balls_left": state.balls_left,
        "required_rate": None if state.required_rate is None else str(state.required_rate),
    }
    return {key: value for key, value in found.items() if value is not None}


def kind_of(ball: Delivery) -> cricket_writer.Type:
    """What the ball was, first of all: a wicket before an extra, an extra before runs."""
    if ball.wickets:
        return "retired" if all(wicket.kind in NO_WICKET for wicket in ball.wickets) else "wicket"
    extra = next((name for kind, name in _EXTRA_KINDS.items() if kind in ball.extras), None)
    if extra is not None:
        return extra
    if ball.runs_batter in (4, 6) and not ball.non_boundary:
        return "four" if ball.runs_batter == 4 else "six"
    return "runs" if ball.runs_total else "dot"


_EXTRA_KINDS: dict[str, cricket_writer.Type] = {
    "penalty": "penalty",
    "wides": "wide",
    "noballs": "no_ball",
    "byes": "byes",
    "legbyes": "leg_byes",
}


def say(ball: Delivery, persona: str, book: Personas) -> list[str]:
    """The facts the persona's line must name, of those the ball has."""
    facts = book.personas[persona].say.get(kind_of(ball), [])
    has = {"batter": True, "wicket": bool(ball.wickets), "runs": bool(ball.runs_total)}
    has["bowler"] = not any(wicket.kind in NOT_THE_BOWLERS for wicket in ball.wickets)
    has["fielder"] = any(wicket.fielders and wicket.kind in A_FIELDERS for wicket in ball.wickets[:1])
    return [fact for fact in facts if has[fact]]


def place(ball: Delivery) -> str:
    return f"{ball.match}-{ball.innings}-{ball.over}.{ball.ball}"


def make_samples(out: Path, seed: int) -> list[Path]:
    """Writes out/matches/ anew; personas.yaml and system.txt are made by hand. The same seed gives the same bytes."""
    return cricket_simulator.write(out / "matches", seed)
