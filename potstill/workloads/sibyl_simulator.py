"""Seeded games of scripted agents, written as game logs: the workload's committed samples.

Of the two sides of a game one is steady, and plays potstill/workloads/sibyl_policy.py in every turn; the other is rash,
and gambles in some of its turns. A game that the rash side wins is played anew with other orders, so what winners do is
what the policy says.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.files import canonical_json, write_text
from potstill.workloads import sibyl_policy as policy
from potstill.workloads import sibyl_rules as rules
from potstill.workloads.sibyl_rules import Action, Board, Cell, Unit

GAMES = 144
# a game of more rounds has no winner
MAX_ROUNDS = 12
SIDE, PER_TEAM = 7, 3
SIDES = ("ember", "tide")
# how often the rash side gambles
GAMBLES = 0.3
VERSIONS = ("0.5.3", "0.9.3", "0.10.0")
# class -> hit points, move, reach, damage, ability, turns until the ability is ready again
CLASSES: dict[str, tuple[int, int, int, int, str | None, int]] = {
    "specter": (8, 3, 1, 3, "cloak", 4),
    "healer": (8, 2, 2, 2, "heal", 2),
    "archer": (8, 2, 4, 2, "trap", 3),
    "wizard": (7, 2, 3, 2, "burn", 3),
    "knight": (12, 2, 1, 3, "shield", 3),
    "giant": (11, 3, 1, 4, None, 0),
}
CALL_SIGNS = (
    "Ash Clay Coal Crow Dawn Echo Fox Frost Gale Heron Jade Lark Mint Nova Oak Opal Pine Rain Reed Rook Rust Sage "
    "Salt Slate Snow Storm Swan Vale Wren Sun Moon Star Stone Silver Gold Bear Wolf Dove Arrow Lance Blade Spark "
    "Rose Lily Ginger Olive Plum Berry Sky Wind Cloud Thunder Finch Gull Hound Bull Ram Hare Stag Elk "
)
Log = dict[str, Any]


def write_games(folder: Path, seed: int, games: int = GAMES) -> list[Path]:
    """Writes training-<number>.json files, the same bytes for the same seed; other training-*.json there go."""
    paths = []
    for number in range(1, games + 1):
        path = folder / f"training-{number:04d}.json"
        write_text(path, log_text(play_game(number, seed)))
        paths.append(path)
    for path in sorted(set(folder.glob("training-*.json")) - set(paths)):
        path.unlink()
    return paths


def log_text(log: Log) -> str:
    """JSON with an event a line, so that a line of a file is an event of a game."""
    head = canonical_json({key: value for key, value in log.items() if key != "events"})
    events = ",\n".join(canonical_json(event) for event in log["events"])
    return f'{head[:-1]},"events":[\n{events}\n]}}\n'


def play_game(number: int, seed: int) -> Log:
    """The log of a game that the steady side wins, or that nobody wins."""
    attempt = 0
    while True:
        rng = random.Random(f"{seed} {number} {attempt}")
        steady = SIDES[number % 2]
        board, orders = draw_board(rng), {}
        for unit in board.units:
            orders[unit.name] = policy.draw_orders(rng)
        events, winner = _play(board, orders, steady, rng)
        if winner in (steady, None):
            break
        attempt += 1
    roster = {u.name: _roster(u, orders[u.name]) for u in board.units}
    ground = {word: [list(c) for c in sorted(getattr(board, word))] for word in ("walls", "mud", "cover")}
    head = {"game": f"g{number:04d}", "version": VERSIONS[number % len(VERSIONS)], "winner": winner}
    return {**head, "board": {"width": SIDE, "height": SIDE, **ground}, "units": roster, "events": events}


def _play(board: Board, orders: dict[str, str], steady: str, rng: random.Random) -> tuple[list[Log], str | None]:
    events: list[Log] = [{"type": "game_start"}]
    order = [unit.name for unit in board.units]
    rng.shuffle(order)
    for round_ in range(1, MAX_ROUNDS + 1):
        board = board._replace(round=round_)
        events.append({"type": "round_start", "round": round_})
        for name in order:
            unit = board.unit(name)
            if unit is None:
                continue
            board = rules.begin_turn(board, name)
            rash = unit.side != steady and rng.random() < GAMBLES
            thinking, *actions = policy.gamble(board, name, rng) if rash else policy.decide(board, name, orders[name])
            events.append({"type": "turn_start", "round": round_, "unit": name, "units": _state(board)})
            decided = dict(zip(("firstAction", "secondAction"), map(_logged, actions), strict=True))
            events.append({"type": "agent_decision", "unit": name, "thinking": thinking, **decided})
            for action in actions:
                after = rules.apply(board, name, action)
                events += _outcomes(board, after)
                board = after
            left = {other.side for other in board.units}
            if len(left) == 1:
                return [*events, {"type": "game_end", "winner": left.pop()}], unit.side
    return [*events, {"type": "game_end", "winner": None}], None


def draw_board(rng: random.Random) -> Board:
    """Three units of different classes a side, at opposite edges, with a way between them."""
    while True:
        inner = [(x, y) for x in range(1, SIDE - 1) for y in range(SIDE)]
        rng.shuffle(inner)
        cuts = [rng.randint(3, 5), rng.randint(0, 1), rng.randint(1, 2)]
        walls, mud, cover = (frozenset(inner[sum(cuts[:n]) : sum(cuts[: n + 1])]) for n in range(3))
        names = rng.sample(CALL_SIGNS.split(), 2 * PER_TEAM)
        units = [unit for n, side in enumerate(SIDES) for unit in _team(side, names[n::2], (SIDE - 1) * n, walls, rng)]
        board = Board(1, SIDE, SIDE, walls, mud, cover, tuple(units))
        if len(rules.costs(board, units[0].at, float("inf"), walls)) == SIDE * SIDE - len(walls):
            return board


def _team(side: str, names: list[str], edge: int, walls: frozenset[Cell], rng: random.Random) -> Iterator[Unit]:
    near = [(x, y) for x in (edge, edge + (1 if edge == 0 else -1)) for y in range(SIDE) if (x, y) not in walls]
    kinds, cells = rng.sample(sorted(CLASSES), PER_TEAM), rng.sample(near, PER_TEAM)
    for name, kind, at in zip(names, kinds, cells, strict=True):
        hp, move, reach, damage, ability, recharge = CLASSES[kind]
        yield Unit(name, side, kind, at, hp, hp, move, reach, damage, ability, recharge)


def _roster(unit: Unit, orders: str) -> Log:
    own = {"side": unit.side, "class": unit.kind, "hp": unit.max_hp, "move": unit.move, "reach": unit.reach}
    ability = {"ability": unit.ability, "recharge": unit.recharge} if unit.ability else {}
    return {**own, "damage": unit.damage, **ability, "prompt": orders}


def _state(board: Board) -> Log:
    """Where every living unit is; a status and a cooldown only where there is one."""
    found: Log = {}
    for unit in board.units:
        found[unit.name] = {"at": list(unit.at), "hp": unit.hp}
        if unit.status:
            found[unit.name]["status"] = dict(unit.status)
        if unit.cooldown:
            found[unit.name]["cooldown"] = unit.cooldown
    return found


def _logged(action: Action) -> Log:
    position = list(action.position) if action.position else None
    full = {"type": action.type, "target": action.target, "position": position}
    return {key: value for key, value in full.items() if value is not None}


def _outcomes(before: Board, after: Board) -> Iterator[Log]:
    for unit in before.units:
        now = after.unit(unit.name)
        if now is None:
            yield {"type": "defeated", "unit": unit.name}
        elif now.hp != unit.hp:
            yield {"type": "hp", "unit": unit.name, "by": now.hp - unit.hp}
