"""The player who types: shows the board, reads two actions, and asks again until they are legal."""

import re
import sys
from collections.abc import Iterator, Sequence
from io import TextIOWrapper

from potstill import config, shown
from potstill.workloads import sibyl_board_view as view
from potstill.workloads import sibyl_rules as rules
from potstill.workloads.sibyl_game import Decision, Player, Reply, Turn
from potstill.workloads.sibyl_rules import Action, Board

HELP = "Type two actions: move 3,2; attack Bear. ? lists what is legal, ? move 3,2 what then is. Or: undo, quit."
_CELL = re.compile(r"\(?\s*([0-9]{1,2})\s*[,\s]\s*([0-9]{1,2})\s*\)?")
# a longer line is nothing that a person typed
MAX_CHARS = 1000


def person(roster: Sequence[str]) -> Player:
    """Reads standard input; the game is over when it ends. `roster` gives the units their letters on the board."""

    # a byte that is no text is a typing error like others; this cannot be set once something has been read
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")

    def decide(turn: Turn) -> Reply:
        print(f"\n{view.draw(turn.board, turn.unit.name, roster)}")
        print(f"{turn.unit.name}: {view.traits(turn.unit)}. Orders: {shown.line(turn.orders) or 'none'}")
        for line in typed(turn.unit.name):
            if line == "quit":
                return "quit"
            if line == "undo":
                return "undo"
            try:
                if not line.startswith("?"):
                    return read_turn(turn, line)
                print(legal(turn, line[1:]))
            except ValueError as error:
                print(f"  {shown.line(str(error))}; nothing is done (? lists what is legal)")
        return "quit"

    return decide


def typed(name: str) -> Iterator[str]:
    """Lines as they are typed, stripped, none of them empty, until the input ends."""
    while True:
        if sys.stdin.isatty():
            print(f"{name}> ", end="", flush=True)
        line = sys.stdin.readline(MAX_CHARS)
        if not line:
            return
        if line.strip():
            yield line.strip()


def legal(turn: Turn, first: str) -> str:
    """The legal actions of a turn, or those that are left after a first action. Raises ValueError as read_turn does."""
    if not first.strip():
        return view.options(turn.board, turn.unit.name)
    action = read_action(turn.board, first)
    return view.options(_after(turn, [action]), turn.unit.name, [action.type])


def read_turn(turn: Turn, line: str) -> Decision:
    """One or two actions, divided by ';'; a single one is followed by wait.

    Raises ValueError, which says why, for what is no action or not legal.
    """
    parts = [part for part in line.split(";") if part.strip()]
    if not 1 <= len(parts) <= 2:
        raise ValueError(f"{len(parts)} actions, want two")
    first = read_action(turn.board, parts[0])
    second = read_action(turn.board, parts[1]) if len(parts) == 2 else Action("wait")
    _after(turn, [first, second])
    return Decision("", (first, second))


def read_action(board: Board, typed: str) -> Action:
    """`move 3,2`, `attack bear`, `wait`: a unit's name in any case. Raises ValueError that says what is wanted."""
    kind, _, rest = " ".join(typed.split()).partition(" ")
    kind = kind.lower()
    if kind not in rules.ACTIONS:
        raise ValueError(f"{kind!r} is none of {', '.join(rules.ACTIONS)}{config.nearest(kind, rules.ACTIONS)}")
    if not rest:
        return Action(kind)
    if kind == "move":
        found = _CELL.fullmatch(rest)
        if found is None:
            raise ValueError(f"{rest!r} is no cell, want x,y")
        return Action(kind, None, (int(found[1]), int(found[2])))
    names = [unit.name for unit in board.units]
    alike = [rest] if rest in names else [name for name in names if name.casefold() == rest.casefold()]
    if len(alike) != 1:
        raise ValueError(f"{rest!r} is none of {', '.join(names)}{config.nearest(rest, names)}")
    return Action(kind, alike[0])


def _after(turn: Turn, actions: list[Action]) -> Board:
    board = turn.board
    for action, (wrong, after) in zip(actions, rules.play_out(board, turn.unit.name, actions), strict=True):
        if wrong:
            raise ValueError(f"{view.said(action)} is not legal: {wrong}")
        board = after
    return board
