"""The rules of the tactics board as pure functions: who reaches what, which actions are legal, and what they do.

A turn is two actions of different types (only `wait` may repeat). The simulator plays by these rules and the slot level
`legal_action` judges by them. Distances are steps along rows and columns; cells are (x, y) from (0, 0).
"""

import heapq
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

Cell = tuple[int, int]
# status -> turns it is set for; a turn of the unit itself takes one off when it begins
STATUSES = {"cloak": 3, "trap": 2, "burn": 3, "guard": 1}
# ability -> its targets
ABILITIES = {"cloak": "self", "heal": "ally", "shield": "ally", "trap": "enemy", "burn": "enemy"}
ACTIONS = ("move", "attack", *ABILITIES, "guard", "wait")
HEALED, BURNT, MUD_COST = 4, 2, 2


class Unit(NamedTuple):
    """`damage` is in hit points; `cooldown` is the turns until `ability` is ready; `status` is in STATUSES' order."""

    name: str
    side: str
    kind: str
    at: Cell
    hp: int
    max_hp: int
    move: int = 0
    reach: int = 0
    damage: int = 0
    ability: str | None = None
    recharge: int = 0
    cooldown: int = 0
    status: tuple[tuple[str, int], ...] = ()

    def has(self, status: str) -> bool:
        return any(name == status for name, _ in self.status)

    @property
    def hurt(self) -> bool:
        return self.hp * 2 <= self.max_hp


class Board(NamedTuple):
    """Living units only."""

    round: int
    width: int
    height: int
    walls: frozenset[Cell]
    mud: frozenset[Cell]
    cover: frozenset[Cell]
    units: tuple[Unit, ...]

    def unit(self, name: str) -> Unit | None:
        return next((unit for unit in self.units if unit.name == name), None)


class Action(NamedTuple):
    type: str
    target: str | None = None
    position: Cell | None = None


def distance(a: Cell, b: Cell) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def sees(walls: Collection[Cell], a: Cell, b: Cell) -> bool:
    """Whether the line between two cell centres misses the inside of every wall. What a sees sees a."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    low_x, high_x, low_y, high_y = min(a[0], b[0]), max(a[0], b[0]), min(a[1], b[1]), max(a[1], b[1])
    for x, y in walls:
        inside = low_x <= x <= high_x and low_y <= y <= high_y
        if inside and 2 * abs(dx * (y - a[1]) - dy * (x - a[0])) < abs(dx) + abs(dy):
            return False
    return True


def in_range(board: Board, start: Cell, reach: int, goal: Cell) -> bool:
    return distance(start, goal) <= reach and sees(board.walls, start, goal)


def costs(board: Board, start: Cell, limit: float, blocked: Collection[Cell]) -> dict[Cell, int]:
    """Cell -> the movement points to it, for all within `limit`; `start` is among them at 0."""
    found: dict[Cell, int] = {}
    queue: list[tuple[int, Cell]] = [(0, start)]
    while queue:
        cost, cell = heapq.heappop(queue)
        if cell in found:
            continue
        found[cell] = cost
        x, y = cell
        for step in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            on_board = 0 <= step[0] < board.width and 0 <= step[1] < board.height
            if not on_board or step in found or step in blocked:
                continue
            then = cost + (MUD_COST if step in board.mud else 1)
            if then <= limit:
                heapq.heappush(queue, (then, step))
    return found


def destinations(board: Board, unit: Unit) -> dict[Cell, int]:
    """Where a unit may move to, with the cost. Walls and all other units are in the way."""
    if unit.has("trap"):
        return {}
    found = costs(board, unit.at, unit.move, board.walls | {other.at for other in board.units})
    del found[unit.at]
    return found


def problem(board: Board, name: str, action: Action, done: Collection[str] = ()) -> str:
    """Why the action is not legal for the unit, or "". `done` are the types of its earlier actions in this turn."""
    unit = board.unit(name)
    if unit is None:
        return "the unit is not on the board"
    if action.type not in ACTIONS:
        return "no such action"
    if action.type in done and action.type != "wait":
        return f"a second {action.type} in one turn"
    if action.type == "move":
        return "a move has no target" if action.target is not None else _move_problem(board, unit, action.position)
    if action.position is not None:
        return f"{action.type} has no position"
    if action.type in ABILITIES and (unit.ability != action.type or unit.cooldown):
        return f"{action.type} is not ready" if unit.ability == action.type else f"the unit has no {action.type}"
    wants = "enemy" if action.type == "attack" else ABILITIES.get(action.type, "self")
    if wants == "self":
        return "" if action.target is None else f"{action.type} has no target"
    return _target_problem(board, unit, action, wants)


def _move_problem(board: Board, unit: Unit, position: Cell | None) -> str:
    if position is None:
        return "a move without a position"
    return "" if position in destinations(board, unit) else "the unit cannot move there"


def _target_problem(board: Board, unit: Unit, action: Action, wants: str) -> str:
    target = board.unit(action.target or "")
    if target is None:
        return "the target is not on the board"
    if (target.side != unit.side) != (wants == "enemy"):
        return f"the target is no {wants}"
    if wants == "enemy" and target.has("cloak"):
        return "the target is cloaked"
    if action.type == "heal" and target.hp == target.max_hp:
        return "the target is not wounded"
    return "" if in_range(board, unit.at, unit.reach, target.at) else "the target is out of reach or sight"


def apply(board: Board, name: str, action: Action) -> Board:
    """The board after a legal action. Whoever strikes is no longer cloaked; whoever has no hit points left is gone."""
    unit = board.unit(name)
    assert unit is not None
    if action.type == "move" and action.position is not None:
        return _with(board, unit._replace(at=action.position))
    if action.type in ABILITIES:
        unit = unit._replace(cooldown=unit.recharge)
    if action.type in ("attack", "trap", "burn"):
        unit = _set(unit, "cloak", 0)
    if action.type in ("guard", "cloak"):
        unit = _set(unit, action.type)
    board = _with(board, unit)
    target = board.unit(action.target or "")
    if target is None:
        return board
    if action.type == "attack":
        target = target._replace(hp=target.hp - harm(board, unit, target))
    elif action.type == "heal":
        target = target._replace(hp=min(target.max_hp, target.hp + HEALED))
    else:
        target = _set(target, "guard" if action.type == "shield" else action.type)
    return _with(board, target)


def play_out(board: Board, name: str, actions: Iterable[Action | None]) -> Iterator[tuple[str, Board]]:
    """(why it is not legal or "", the board after it) for each action of a turn; one that is not legal does nothing."""
    done: list[str] = []
    for action in actions:
        wrong = "no action" if action is None else problem(board, name, action, done)
        if action is not None and not wrong:
            board = apply(board, name, action)
            done.append(action.type)
        yield wrong, board


def harm(board: Board, unit: Unit, target: Unit) -> int:
    """Hit points an attack takes: one less into cover from afar, half of it (rounded up) when guarded; never none."""
    points = unit.damage - (target.at in board.cover and distance(unit.at, target.at) > 1)
    return max(1, (points + 1) // 2 if target.has("guard") else points)


def begin_turn(board: Board, name: str) -> Board:
    """What happens to a unit before it acts: fire burns (but leaves one point), statuses and cooldown run down."""
    unit = board.unit(name)
    assert unit is not None
    hp = max(1, unit.hp - BURNT) if unit.has("burn") else unit.hp
    left = tuple((status, turns - 1) for status, turns in unit.status if turns > 1)
    return _with(board, unit._replace(hp=hp, status=left, cooldown=max(0, unit.cooldown - 1)))


def options(board: Board, name: str, done: Collection[str] = ()) -> Iterator[Action]:
    """Every legal action of a unit."""
    unit = board.unit(name)
    assert unit is not None
    for kind in ACTIONS:
        if kind == "move":
            candidates = [Action(kind, None, cell) for cell in sorted(destinations(board, unit))]
        elif kind == "attack" or ABILITIES.get(kind) in ("ally", "enemy"):
            candidates = [Action(kind, other.name) for other in board.units]
        else:
            candidates = [Action(kind)]
        yield from (action for action in candidates if not problem(board, name, action, done))


def _set(unit: Unit, status: str, turns: int | None = None) -> Unit:
    """The unit with a status set to its full turns, or taken away by `turns` 0."""
    held = dict(unit.status) | {status: STATUSES[status] if turns is None else turns}
    return unit._replace(status=tuple((name, held[name]) for name in STATUSES if held.get(name)))


def _with(board: Board, unit: Unit) -> Board:
    units = tuple(unit if other.name == unit.name else other for other in board.units)
    return board._replace(units=tuple(other for other in units if other.hp > 0))
