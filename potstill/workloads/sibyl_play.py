"""Plays a position: the board of a prompt before and after the two actions of an answer, for a person to look at."""

from string import ascii_uppercase
from typing import Any

from potstill.workloads import sibyl_rules as rules
from potstill.workloads import sibyl_text as text
from potstill.workloads.sibyl_rules import Action, Board


def play(prompt: str, answer: dict[str, Any]) -> str:
    """The board of a prompt, drawn, and again after each action of the answer; what is not legal does nothing."""
    shown = text.parse(prompt)
    if shown is None:
        return "The prompt holds no board."
    lines = [f"{shown.you}, round {shown.board.round}. {shown.orders}", draw(shown.board, shown.you)]
    keys = ("firstAction", "secondAction")
    actions = [text.read_action(answer.get(key)) for key in keys]
    outcomes = rules.play_out(shown.board, shown.you, actions)
    for key, action, (wrong, board) in zip(keys, actions, outcomes, strict=True):
        lines.append(f"{key}: {_said(action)}" + (f" - not legal: {wrong}" if wrong else ""))
        lines += [] if wrong else [draw(board, shown.you)]
    return "\n".join(lines)


def draw(board: Board, you: str) -> str:
    """The grid, and under it who is who. # wall, ~ mud, : cover; @ is the unit that acts."""
    others = [unit.name for unit in board.units if unit.name != you]
    letters = {name: ascii_uppercase[n % 26] for n, name in enumerate(others)} | {you: "@"}
    marks = {cell: mark for mark, cells in (("~", board.mud), (":", board.cover), ("#", board.walls)) for cell in cells}
    marks |= {unit.at: letters[unit.name] for unit in board.units}
    rows = ["  " + " ".join(str(x % 10) for x in range(board.width))]
    for y in range(board.height):
        rows.append(f"{y % 10} " + " ".join(marks.get((x, y), ".") for x in range(board.width)))
    return "\n".join([*rows, *(f"{letters[unit.name]} {unit.side} {text.unit_text(unit)}" for unit in board.units)])


def _said(action: Action | None) -> str:
    if action is None:
        return "no action"
    at = text.cell_text(action.position) if action.position else None
    return " ".join(word for word in (action.type, action.target, at) if word)
