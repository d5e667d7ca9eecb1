"""A game from a position, turn by turn: players decide, the rules say what that does. Pure, as far as the players are.

Every unit that is left has one turn a round, in the order of the position. What is not legal does nothing, and the game
goes on. It ends when one side is left or the rounds have run out.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from potstill.stop import DATA, USAGE, Stop
from potstill.workloads import sibyl_log as log
from potstill.workloads import sibyl_policy as policy
from potstill.workloads import sibyl_rules as rules
from potstill.workloads import sibyl_simulator as simulator
from potstill.workloads.sibyl_rules import Action, Board, Unit


class Position(NamedTuple):
    """`order` names all units; the living unit at `place` is next. A log's turn_start has `begun` its turn."""

    board: Board
    order: tuple[str, ...]
    # unit -> the player's standing orders
    orders: Mapping[str, str]
    place: int = 0
    begun: bool = False


class Turn(NamedTuple):
    """What a player is asked: a living unit of its side, on the board as it is when the unit's turn has begun."""

    board: Board
    unit: Unit
    orders: str


class Decision(NamedTuple):
    """`unusable` says why an answer could not be read, and `output` is that answer: hostile, as all model output is."""

    thinking: str
    actions: tuple[Action | None, Action | None]
    unusable: str = ""
    output: str = ""


# undo takes back the last turn of the player's side and all turns since; quit ends the game
Reply = Decision | Literal["undo", "quit"]
Player = Callable[[Turn], Reply]


class Taken(NamedTuple):
    """A turn. `outcomes` has (why it is not legal or "", the board after it) for each of the two actions."""

    turn: Turn
    decision: Decision
    outcomes: tuple[tuple[str, Board], ...]


class Undone(NamedTuple):
    """The last so many turns are taken back; 0: there was none to take back."""

    turns: int


class Ended(NamedTuple):
    """Always the last event. `winner` is the side that is left when the others have no units."""

    board: Board
    winner: str | None
    why: Literal["one side is left", "the rounds have run out", "stopped"]


Event = Taken | Undone | Ended


class Tally(NamedTuple):
    """Of a side. `unusable` counts answers; their two actions each are among `actions` and not among `legal`."""

    turns: int
    actions: int
    legal: int
    unusable: int


class _Moment(NamedTuple):
    """A unit's turn has begun; `board` is what its player will see."""

    board: Board
    place: int


def play(position: Position, players: Mapping[str, Player], rounds: int) -> Iterator[Event]:
    """Plays so many rounds, the position's own included; `players` has one for every side of the board."""
    last = position.board.round + rounds - 1
    past: list[_Moment] = []
    board = position.board
    moment = _upcoming(position.order, board, position.place, last, begun=position.begun)
    while moment:
        board = moment.board
        turn = _turn(position, moment)
        reply = players[turn.unit.side](turn)
        if reply == "quit":
            yield Ended(board, None, "stopped")
            return
        if reply == "undo":
            back = max((n for n, m in enumerate(past) if _side(position, m) == turn.unit.side), default=len(past))
            yield Undone(len(past) - back)
            moment, past = [*past, moment][back], past[:back]
            continue
        taken = Taken(turn, reply, tuple(rules.play_out(board, turn.unit.name, reply.actions)))
        yield taken
        past.append(moment)
        board = taken.outcomes[-1][1]
        moment = _upcoming(position.order, board, moment.place + 1, last)
    sides = _sides(board)
    if len(sides) > 1:
        yield Ended(board, None, "the rounds have run out")
    else:
        yield Ended(board, next(iter(sides), None), "one side is left")


def _upcoming(order: tuple[str, ...], board: Board, place: int, last: int, *, begun: bool = False) -> _Moment | None:
    """The next living unit's turn, begun, from `place` in the order; None when the game is over."""
    while len(_sides(board)) > 1 and board.round <= last:
        if place >= len(order):
            board, place = board._replace(round=board.round + 1), 0
        elif board.unit(order[place]):
            return _Moment(board if begun else rules.begin_turn(board, order[place]), place)
        else:
            place += 1
    return None


def _turn(position: Position, moment: _Moment) -> Turn:
    name = position.order[moment.place]
    unit = moment.board.unit(name)
    assert unit is not None
    return Turn(moment.board, unit, position.orders[name])


def _side(position: Position, moment: _Moment) -> str:
    return _turn(position, moment).unit.side


def _sides(board: Board) -> set[str]:
    return {unit.side for unit in board.units}


def tally(turns: Iterable[Taken]) -> dict[str, Tally]:
    """Side -> what its turns came to, in the order in which the sides first act."""
    found: dict[str, Tally] = {}
    for taken in turns:
        side = taken.turn.unit.side
        old = found.get(side, Tally(0, 0, 0, 0))
        legal = sum(not wrong for wrong, _ in taken.outcomes)
        unusable = old.unusable + bool(taken.decision.unusable)
        found[side] = Tally(old.turns + 1, old.actions + len(taken.outcomes), old.legal + legal, unusable)
    return found


def fresh(seed: int) -> Position:
    """A drawn board with drawn standing orders and order of turns; the same for the same seed."""
    rng = random.Random(f"position {seed}")
    board = simulator.draw_board(rng)
    orders = {unit.name: policy.draw_orders(rng) for unit in board.units}
    order = list(orders)
    rng.shuffle(order)
    return Position(board, tuple(order), orders)


def logged(path: Path, round_: int | None = None, unit: str | None = None) -> Position:
    """The first turn of a game log, or of a round, a unit, or both. Raises Stop when there is no such log or turn."""
    if not path.is_file():
        raise Stop(f"--log names {path}, where no file is. Name a game log, training-*.json.", USAGE)
    skipped: list[str] = []
    game = log.read_game(path)

    def skip(_: Path, event: int | None, rule: str) -> None:
        skipped.append(f"event {event}: {rule}")

    turns = list(log.turns(path, game, skip, all_sides=True))
    wanted = (t for t in turns if round_ in (None, t.board.round) and unit in (None, t.unit.name))
    turn = next(wanted, None)
    if turn is None:
        asked = [f"of round {round_}"] * (round_ is not None) + [f"of {unit}"] * (unit is not None)
        rounds = sorted({t.board.round for t in turns})
        there = f"rounds {rounds[0]} to {rounds[-1]}, units {', '.join(game.units)}" if rounds else "no usable turn"
        also = f"; skipped: {', '.join(skipped[:3])}" if skipped else ""
        raise Stop(f"{path}: no turn {' '.join(asked)}. It has {there}{also}. Name another with --round.", DATA)
    starts = [(event.get("round"), event.get("unit")) for event in game.events if event.get("type") == "turn_start"]
    known = [(when, name) for when, name in starts if isinstance(name, str) and name in game.units]
    # the round's own order first; who has no turn in it was out by then
    first = [name for when, name in known if when == turn.board.round]
    order = tuple(dict.fromkeys([*first, *(name for _, name in known), *game.units]))
    orders = {name: fighter.prompt for name, fighter in game.units.items()}
    return Position(turn.board, order, orders, order.index(turn.unit.name), begun=True)
