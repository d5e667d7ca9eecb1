"""A board as the text a model reads, and back: compact lines from the point of view of the unit whose turn it is.

    round 3 board 7x7
    orders: Hunt the weakest, then fall back.
    you Wraith specter (2,3) 7/8 move 3 reach 1 hits 3 cloak in 2
    ally Orin healer (1,3) 3/8 hurt guard 1
    enemy Kesh archer (4,3) 2/8 hurt near (3,3)
    wall (2,2)(4,4)
    back (1,1)

What a player's screen works out is in the text too: `hurt` (at most half the hit points), whether an enemy - for a unit
that helps allies, an ally - can be reached now (`hit`), after one move (`near`, with the cell) or not in this turn
(`far`, with the cell of the approach), and `back`, the cell farthest from the enemies. `parse` leaves these out: they
follow from the rest. Enemies come nearest first, allies worst hurt first.
"""

import re
from typing import NamedTuple

from potstill.workloads import sibyl_rules as rules
from potstill.workloads.sibyl_rules import Action, Board, Cell, Unit

_CELL = r"\((\d{1,2}),(\d{1,2})\)"
_STATUS = "|".join(rules.STATUSES)
_HEAD = re.compile(r"round (\d{1,4}) board (\d{1,2})x(\d{1,2})")
_UNIT = re.compile(
    rf"(you|ally|enemy) ([\w'-]{{1,24}}) ([\w'-]{{1,24}}) {_CELL} (\d{{1,4}})/(\d{{1,4}})(?: hurt)?"
    rf"((?: (?:{_STATUS}) \d{{1,2}})*)"
    rf"(?: move (\d{{1,2}}) reach (\d{{1,2}}) hits (\d{{1,3}})"
    rf"(?: ({'|'.join(rules.ABILITIES)}) (?:ready|in (\d{{1,3}})))?)?"
    rf"(?: (?:hit|(?:near|far) {_CELL}))?"
)
_TERRAIN = re.compile(rf"(wall|mud|cover) ((?:{_CELL})+)")
_BACK = re.compile(rf"back {_CELL}")
# a board is at most 40 x 40: the text of a prompt is not to be trusted with more
MAX_SIDE, MAX_LINES = 40, 200


class Mark(NamedTuple):
    """`reach` is hit, near, far or ""; `via` is where to move to for near and far."""

    reach: str
    via: Cell | None = None


class Shown(NamedTuple):
    """A prompt, read back. `you` names the unit that acts; sides are `ally` and `enemy`."""

    board: Board
    you: str
    orders: str


class View(NamedTuple):
    """What the text says of a position, worked out: the lines' order, the marks and the way back."""

    you: Unit
    allies: list[Unit]
    enemies: list[Unit]
    marks: dict[str, Mark]
    back: Cell | None


def view(board: Board, name: str) -> View:
    you = board.unit(name)
    assert you is not None
    allies = [unit for unit in board.units if unit.side == you.side and unit.name != name]
    enemies = [unit for unit in board.units if unit.side != you.side]
    allies.sort(key=lambda unit: (unit.hp, unit.name))
    enemies.sort(key=lambda unit: (rules.distance(you.at, unit.at), unit.name))
    cells = rules.destinations(board, you)
    helped = allies if rules.ABILITIES.get(you.ability or "") == "ally" else []
    marks = {unit.name: _mark(board, you, unit, cells) for unit in [*helped, *enemies]}
    return View(you, allies, enemies, marks, _back(you, enemies, cells))


def _mark(board: Board, you: Unit, other: Unit, cells: dict[Cell, int]) -> Mark:
    if other.side != you.side and other.has("cloak"):
        return Mark("")
    if rules.in_range(board, you.at, you.reach, other.at):
        return Mark("hit")
    by_cost = sorted(cells, key=lambda cell: (cells[cell], cell))
    near = next((cell for cell in by_cost if rules.in_range(board, cell, you.reach, other.at)), None)
    if near is not None:
        return Mark("near", near)
    if not cells:
        return Mark("")
    steps = rules.costs(board, other.at, float("inf"), board.walls)
    here = steps.get(you.at)
    best = min((cell for cell in by_cost if cell in steps), key=lambda cell: steps[cell], default=None)
    return Mark("far", best) if best is not None and here is not None and steps[best] < here else Mark("")


def _back(you: Unit, enemies: list[Unit], cells: dict[Cell, int]) -> Cell | None:
    seen = [unit.at for unit in enemies if not unit.has("cloak")]
    if not seen:
        return None

    def gap(cell: Cell) -> int:
        return min(rules.distance(cell, at) for at in seen)

    best = max(sorted(cells, key=lambda cell: (cells[cell], cell)), key=gap, default=you.at)
    return best if gap(best) > gap(you.at) else None


def serialise(board: Board, name: str, orders: str) -> str:
    """The prompt of a unit's turn. `orders` is the player's standing prompt, put on one line."""
    return render(board, view(board, name), orders)


def render(board: Board, seen: View, orders: str) -> str:
    you = seen.you
    lines = [f"round {board.round} board {board.width}x{board.height}", f"orders: {' '.join(orders.split())}".rstrip()]
    ready = f" {you.ability} " + (f"in {you.cooldown}" if you.cooldown else "ready") if you.ability else ""
    lines.append(f"you {unit_text(you)} move {you.move} reach {you.reach} hits {you.damage}{ready}")
    lines += [f"ally {unit_text(unit)}{_marked(seen, unit)}" for unit in seen.allies]
    lines += [f"enemy {unit_text(unit)}{_marked(seen, unit)}" for unit in seen.enemies]
    for word, cells in (("wall", board.walls), ("mud", board.mud), ("cover", board.cover)):
        lines += [f"{word} {''.join(map(cell_text, sorted(cells)))}"] if cells else []
    return "\n".join([*lines, f"back {cell_text(seen.back)}"] if seen.back else lines)


def parse(prompt: str) -> Shown | None:
    """Reads a prompt back; None when it is no board: an unknown line, no `you`, or a unit where it cannot be."""
    lines = prompt.split("\n")
    head = _HEAD.fullmatch(lines[0])
    if head is None or len(lines) < 3 or len(lines) > MAX_LINES or not lines[1].startswith("orders:"):
        return None
    round_, width, height = map(int, head.groups())
    units: list[Unit] = []
    terrain: dict[str, frozenset[Cell]] = {}
    for line in lines[2:]:
        if found := _UNIT.fullmatch(line):
            units.append(_read_unit(found))
        elif ground := _TERRAIN.fullmatch(line):
            terrain[ground[1]] = frozenset((int(x), int(y)) for x, y in re.findall(_CELL, ground[2]))
        elif not _BACK.fullmatch(line):
            return None
    walls, mud, cover = (terrain.get(word, frozenset()) for word in ("wall", "mud", "cover"))
    board = Board(round_, width, height, walls, mud, cover, tuple(units))
    if lines[2][:4] != "you " or sum(line[:4] == "you " for line in lines) != 1 or impossible(board):
        return None
    return Shown(board, units[0].name, lines[1].removeprefix("orders:").strip())


def impossible(board: Board) -> str:
    """What no board can be: a cell that is off it or taken twice, a name twice, hit points beyond their bounds."""
    if not 0 < board.width <= MAX_SIDE or not 0 < board.height <= MAX_SIDE:
        return f"a board of {board.width}x{board.height}"
    cells = [*board.walls, *board.mud, *board.cover, *(unit.at for unit in board.units)]
    if any(not 0 <= x < board.width or not 0 <= y < board.height for x, y in cells):
        return "a cell off the board"
    taken = [unit.at for unit in board.units]
    if len({*taken, *board.walls}) != len(taken) + len(board.walls):
        return "two units, or a unit and a wall, in one cell"
    if len({unit.name for unit in board.units}) != len(board.units):
        return "a name twice"
    bad = any(not 0 < unit.hp <= unit.max_hp for unit in board.units)
    return "hit points of none, or more than the most" if bad else ""


def as_shown(board: Board, name: str) -> Board:
    """The board as its text has it: sides by point of view, and nothing of the others that the text leaves out."""
    seen = view(board, name)
    others = [(unit, "ally") for unit in seen.allies] + [(unit, "enemy") for unit in seen.enemies]
    shown = [Unit(u.name, side, u.kind, u.at, u.hp, u.max_hp, status=u.status) for u, side in others]
    return board._replace(units=(seen.you._replace(side="ally", recharge=0), *shown))


def read_action(value: object) -> Action | None:
    """An answer's action as the rules take it; None when it is none."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return None
    target, position = value.get("target"), value.get("position")
    if not isinstance(target, str | None):
        return None
    if position is None:
        return Action(value["type"], target)
    whole = isinstance(position, list | tuple) and len(position) == 2 and all(type(n) is int for n in position)
    return Action(value["type"], target, (position[0], position[1])) if whole else None


def _read_unit(found: re.Match[str]) -> Unit:
    who, name, kind, x, y, hp, most, statuses, move, reach, hits, ability, cooldown = found.groups()[:13]
    held = tuple((word, int(turns)) for word, turns in re.findall(rf"({_STATUS}) (\d+)", statuses))
    side = "enemy" if who == "enemy" else "ally"
    unit = Unit(name, side, kind, (int(x), int(y)), int(hp), int(most), status=held)
    own = unit._replace(move=int(move or 0), reach=int(reach or 0), damage=int(hits or 0))
    return own._replace(ability=ability, cooldown=int(cooldown or 0))


def unit_text(unit: Unit) -> str:
    hurt = " hurt" if unit.hurt else ""
    status = "".join(f" {name} {turns}" for name, turns in unit.status)
    return f"{unit.name} {unit.kind} {cell_text(unit.at)} {unit.hp}/{unit.max_hp}{hurt}{status}"


def _marked(seen: View, unit: Unit) -> str:
    mark = seen.marks.get(unit.name, Mark(""))
    return f" {mark.reach}{f' {cell_text(mark.via)}' if mark.via else ''}" if mark.reach else ""


def cell_text(cell: Cell) -> str:
    return f"({cell[0]},{cell[1]})"
