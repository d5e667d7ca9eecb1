"""Game logs: training-*.json, one game a file, read turn by turn. docs/workloads/sibyl.md describes the format.

What makes a file unreadable ends the reading with an error; what makes one turn unusable skips that turn, and the skip
names the file, the event and the rule. SKIPS and LEFT_OUT list the rules.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from potstill.files import sha256_text
from potstill.records import explain
from potstill.stop import DATA, USAGE, Stop
from potstill.workloads import sibyl_rules as rules
from potstill.workloads import sibyl_text as text
from potstill.workloads.sibyl_rules import Action, Board, Cell, Unit

# rule -> what is wrong with the turn
SKIPS = {
    "missing_decision": "a turn_start without an agent_decision before the next turn",
    "two_decisions": "a turn_start with more than one agent_decision",
    "decision_without_turn": "an agent_decision before any turn_start",
    "other_unit": "the decision is of another unit than the turn",
    "unknown_unit": "a unit that the log's `units` do not have, or one that is not on the board in its own turn",
    "malformed_event": "a turn_start that lacks a key or has one of the wrong kind",
    "malformed_decision": "an agent_decision that lacks thinking or an action, or has one of the wrong kind",
    "impossible_board": "two units in one cell, a cell off the board, hit points beyond their bounds",
    "illegal_action": "an action that the rules do not allow on the board of its turn",
    "duplicate_game": "the same game, event for event, in a file before",
}
# rule -> what is left out because of how convert was asked
LEFT_OUT = {
    "losing_side": "turns of the losing side (--all-sides keeps them)",
    "no_winner": "turns of games without a winner (--all-sides keeps them)",
    "older_version": "games older than --min-version",
}
MAX_BYTES = 64_000_000
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")
Name = Annotated[str, Field(pattern=r"^[\w'-]{1,24}$")]
Point = Annotated[list[Annotated[int, Field(ge=0, lt=text.MAX_SIDE)]], Field(min_length=2, max_length=2)]
Small = Annotated[int, Field(ge=0, le=99)]
Skip = Callable[[Path, int | None, str], None]


class Logged(BaseModel):
    """Keys that the converter does not need may be there."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)


class Ground(Logged):
    width: Annotated[int, Field(gt=0, le=text.MAX_SIDE)]
    height: Annotated[int, Field(gt=0, le=text.MAX_SIDE)]
    walls: list[Point] = []
    mud: list[Point] = []
    cover: list[Point] = []


class Fighter(Logged):
    """A unit at the start. `prompt` is the player's standing prompt."""

    side: Name
    kind: Annotated[Name, Field(alias="class")]
    hp: Annotated[int, Field(gt=0, le=999)]
    move: Small
    reach: Small
    damage: Small
    ability: str | None = None
    recharge: Small = 0
    prompt: Annotated[str, Field(max_length=1000)]

    @field_validator("ability")
    @classmethod
    def _known(cls, ability: str | None) -> str | None:
        if ability is not None and ability not in rules.ABILITIES:
            raise ValueError(f"want one of {', '.join(rules.ABILITIES)}")
        return ability


class Game(Logged):
    game: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    version: Annotated[str, Field(pattern=rf"^{_VERSION.pattern}$")]
    winner: str | None
    board: Ground
    units: Annotated[dict[Name, Fighter], Field(min_length=2)]
    events: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Standing(Logged):
    """A unit during the game."""

    at: Point
    hp: int
    status: dict[str, Annotated[int, Field(gt=0, le=99)]] = {}
    cooldown: Small = 0

    @field_validator("status")
    @classmethod
    def _known(cls, status: dict[str, int]) -> dict[str, int]:
        if not status.keys() <= rules.STATUSES.keys():
            raise ValueError(f"want no others than {', '.join(rules.STATUSES)}")
        return status


class TurnStart(Logged):
    round: Annotated[int, Field(gt=0, le=9999)]
    unit: str
    units: dict[str, Standing]


class Decision(Logged):
    unit: str
    thinking: Annotated[str, Field(min_length=1)]
    firstAction: dict[str, Any]
    secondAction: dict[str, Any]


class Turn(NamedTuple):
    """A turn with its decision. `event` is the index of the turn_start in the log; `result` is won, lost or draw."""

    game: str
    version: str
    event: int
    result: str
    board: Board
    unit: Unit
    orders: str
    thinking: str
    actions: tuple[Action, Action]


def version_key(version: str) -> tuple[int, ...]:
    """Numeric by part: 0.10.0 is after 0.9.3, and 0.5 is 0.5.0. Raises Stop 2 for anything but numbers and dots."""
    if not _VERSION.fullmatch(version):
        raise Stop(f"version {version[:40]!r}: want numbers joined by dots, as in 0.5.3", USAGE)
    parts = [int(part) for part in version.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def read_games(folder: Path, skip: Skip) -> Iterator[tuple[Path, Game]]:
    """Yields every game once, in the order of the file names. Raises Stop 65 that names the file and what is wrong."""
    paths = sorted(folder.glob("training-*.json"))
    if not paths:
        raise Stop(
            f"{folder}: no game log (training-*.json) there. Name another folder with --training-dir or "
            "SIBYL_TRAINING_DIR, or run fab dataset.samples -w sibyl.",
            DATA,
        )
    seen: dict[str, tuple[Path, str]] = {}
    for path in paths:
        game = read_game(path)
        digest = sha256_text(game.model_dump_json())
        first = seen.setdefault(game.game, (path, digest))
        if first[0] is path:
            yield path, game
        elif first[1] == digest:
            skip(path, None, "duplicate_game")
        else:
            raise Stop(f"{path}: game {game.game!r} is already in {first[0]}, with other events. Keep one.", DATA)


def read_game(path: Path) -> Game:
    if path.stat().st_size > MAX_BYTES:
        raise Stop(f"{path}: more than {MAX_BYTES:,} bytes, which is no log of one game. Take it away.", DATA)
    try:
        # dataset.clean makes prompts NFC, and an answer must spell names as its prompt does
        game = Game.model_validate_json(unicodedata.normalize("NFC", path.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise Stop(f"{path}: byte {error.start} is not UTF-8. Mend the log or take it away.", DATA) from None
    except ValidationError as error:
        what = explain(error).replace("the row: ", "")
        raise Stop(f"{path}: {what}. Mend the log or take it away.", DATA) from None
    sides = sorted({unit.side for unit in game.units.values()})
    if game.winner is not None and game.winner not in sides:
        raise Stop(f"{path}: winner: want null or a side of `units`: {', '.join(sides)}. Mend the log.", DATA)
    return game


def turns(path: Path, game: Game, skip: Skip, *, all_sides: bool = False) -> Iterator[Turn]:
    """Yields the usable turns of a game; every other one goes to `skip`, with the index of its event."""
    ground = {word: frozenset(map(_cell, getattr(game.board, word))) for word in ("walls", "mud", "cover")}
    for index, start, decisions in _paired(path, game, skip):
        side = game.units[start.unit].side
        if game.winner != side and not all_sides:
            skip(path, index, "no_winner" if game.winner is None else "losing_side")
            continue
        if len(decisions) != 1:
            skip(path, index, "two_decisions" if decisions else "missing_decision")
            continue
        units = tuple(_unit(name, game.units[name], state) for name, state in start.units.items())
        board = Board(start.round, game.board.width, game.board.height, **ground, units=units)
        unit = board.unit(start.unit)
        if unit is None:
            skip(path, index, "unknown_unit")
        elif text.impossible(board):
            skip(path, index, "impossible_board")
        elif isinstance(found := _decision(decisions[0], board, start.unit), str):
            skip(path, index, found)
        else:
            result = "draw" if game.winner is None else "won" if game.winner == side else "lost"
            orders = game.units[start.unit].prompt
            yield Turn(game.game, game.version, index, result, board, unit, orders, *found)


def _paired(path: Path, game: Game, skip: Skip) -> Iterator[tuple[int, TurnStart, list[dict[str, Any]]]]:
    """Every readable turn_start with the decisions before the next one."""
    opened: tuple[int, TurnStart | None, list[dict[str, Any]]] | None = None
    for index, event in enumerate(game.events):
        if event.get("type") == "turn_start":
            if opened and opened[1]:
                yield opened[0], opened[1], opened[2]
            opened = index, _turn_start(path, index, event, game, skip), []
        elif event.get("type") == "agent_decision":
            if opened:
                opened[2].append(event)
            else:
                skip(path, index, "decision_without_turn")
    if opened and opened[1]:
        yield opened[0], opened[1], opened[2]


def _turn_start(path: Path, index: int, event: dict[str, Any], game: Game, skip: Skip) -> TurnStart | None:
    try:
        start = TurnStart.model_validate(event)
    except ValidationError:
        skip(path, index, "malformed_event")
        return None
    if not {start.unit, *start.units} <= game.units.keys():
        skip(path, index, "unknown_unit")
        return None
    return start


def _decision(event: dict[str, Any], board: Board, name: str) -> tuple[str, tuple[Action, Action]] | str:
    """(thinking, actions) of a decision, or the rule it breaks."""
    try:
        decision = Decision.model_validate(event)
    except ValidationError:
        return "malformed_decision"
    thinking = " ".join(decision.thinking.split())
    first, second = text.read_action(decision.firstAction), text.read_action(decision.secondAction)
    if decision.unit != name:
        return "other_unit"
    if not thinking or first is None or second is None:
        return "malformed_decision"
    illegal = any(wrong for wrong, _ in rules.play_out(board, name, (first, second)))
    return "illegal_action" if illegal else (thinking, (first, second))


def _unit(name: str, fighter: Fighter, state: Standing) -> Unit:
    status = tuple((word, state.status[word]) for word in rules.STATUSES if word in state.status)
    fixed = Unit(name, fighter.side, fighter.kind, _cell(state.at), state.hp, fighter.hp, status=status)
    own = fixed._replace(move=fighter.move, reach=fighter.reach, damage=fighter.damage, ability=fighter.ability)
    return own._replace(recharge=fighter.recharge, cooldown=state.cooldown)


def _cell(point: list[int]) -> Cell:
    return point[0], point[1]
