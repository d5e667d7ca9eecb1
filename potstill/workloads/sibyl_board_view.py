"""The tactics board in plain text for a person: the grid, what a unit may do, and what an action did."""

from collections.abc import Sequence
from itertools import groupby
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from potstill import shown
from potstill.workloads import sibyl_rules as rules
from potstill.workloads import sibyl_text as text
from potstill.workloads.sibyl_rules import Action, Board, Unit

LETTERS = ascii_uppercase + ascii_lowercase


def play(prompt: str, answer: dict[str, Any]) -> str:
    """The board of a prompt, drawn, and again after each action of the answer; what is not legal does nothing."""
    found = text.parse(prompt)
    if found is None:
        return "The prompt holds no board."
    lines = [f"{found.you}, round {found.board.round}. {shown.line(found.orders)}", draw(found.board, found.you)]
    keys = ("firstAction", "secondAction")
    actions = [text.read_action(answer.get(key)) for key in keys]
    outcomes = rules.play_out(found.board, found.you, actions)
    for key, action, (wrong, board) in zip(keys, actions, outcomes, strict=True):
        lines.append(f"{key}: {said(action)}" + (f" - not legal: {wrong}" if wrong else ""))
        lines += [] if wrong else [draw(board, found.you)]
    return "\n".join(lines)


def draw(board: Board, you: str = "", roster: Sequence[str] = ()) -> str:
    """The grid, and under it who is who. # wall, ~ mud, : cover; @ is the unit that acts, `you`.

    The others have letters in the order of `roster` (default: of the board without `you`), so that a unit keeps its
    letter throughout a game.
    """
    names = roster or [unit.name for unit in board.units if unit.name != you]
    letters = {name: LETTERS[n % len(LETTERS)] for n, name in enumerate(names)} | {you: "@"}
    marks = {cell: mark for mark, cells in (("~", board.mud), (":", board.cover), ("#", board.walls)) for cell in cells}
    marks |= {unit.at: letters[unit.name] for unit in board.units}
    rows = ["  " + " ".join(str(x % 10) for x in range(board.width))]
    for y in range(board.height):
        rows.append(f"{y % 10} " + " ".join(marks.get((x, y), ".") for x in range(board.width)))
    return "\n".join([*rows, *(f"{letters[unit.name]} {unit.side} {text.unit_text(unit)}" for unit in board.units)])


def traits(unit: Unit) -> str:
    """What a unit can do: its points to move, reach, damage and ability."""
    own = f"move {unit.move} reach {unit.reach} hits {unit.damage}"
    return f"{own} {unit.ability} {f'in {unit.cooldown}' if unit.cooldown else 'ready'}" if unit.ability else own


def options(board: Board, name: str, done: Sequence[str] = ()) -> str:
    """Every legal action of a unit, a line for each type, in the words in which a person types it."""
    lines = []
    for kind, actions in groupby(rules.options(board, name, done), key=lambda action: action.type):
        goals = [f"{a.position[0]},{a.position[1]}" if a.position else a.target or "" for a in actions]
        lines.append(f"  {kind} {'  '.join(goals)}".rstrip())
    return "\n".join(lines)


def said(action: Action | None) -> str:
    """An action in words. Its target may be a model's output, so it is made safe for a terminal."""
    if action is None:
        return "no action"
    at = text.cell_text(action.position) if action.position else None
    return shown.line(" ".join(word for word in (action.type, action.target, at) if word))


def changes(before: Board, after: Board) -> str:
    """What an action did to the units' hit points and statuses, or ""; where a unit went is in the action."""
    found = []
    for unit in before.units:
        now = after.unit(unit.name)
        if now is None:
            found.append(f"{unit.name} is out")
            continue
        if now.hp != unit.hp:
            found.append(f"{unit.name} {unit.hp} -> {now.hp}")
        had, has = dict(unit.status), dict(now.status)
        found += [f"{unit.name} {status} {turns}" for status, turns in has.items() if turns != had.get(status)]
        found += [f"{unit.name} no longer has {status}" for status in had if status not in has]
    return ", ".join(found)
