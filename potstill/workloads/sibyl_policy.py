"""How a steady agent plays: a rule for every position, from nothing but what the text of the board says.

Standing orders are two clauses: whom to strike (the weakest, the nearest, or healers first) and what to do after a
strike (guard, or fall back). Their wordings are PREFER and THEN.
"""

import random

from potstill.workloads import sibyl_rules as rules
from potstill.workloads import sibyl_text as text
from potstill.workloads.sibyl_rules import Action, Board, Unit
from potstill.workloads.sibyl_text import View

# the wordings of each clause; none is part of another clause's
PREFER = {
    "weakest": ["Hunt the weakest", "Strike whoever has the least health", "Finish the weak ones", "Go for low health"],
    "nearest": ["Strike the nearest", "Take the closest enemy", "Hit whoever is next to you", "Start with the nearest"],
    "healer": ["Healers first", "Strike their healer first", "Take out healers", "Stop the healer before the rest"],
}
THEN = {
    "guard": ["then guard", "then hold your ground", "and keep your guard up", "then stand firm"],
    "back": ["then fall back", "then step back", "and retreat after the strike", "then get away from them"],
}
Decision = tuple[str, Action, Action]
WAIT, GUARD = Action("wait"), Action("guard")


def draw_orders(rng: random.Random) -> str:
    prefer, then = rng.choice(sorted(PREFER)), rng.choice(sorted(THEN))
    return f"{rng.choice(PREFER[prefer])}, {rng.choice(THEN[then])}."


def read_orders(orders: str) -> tuple[str, str]:
    """(whom to strike, what then) of standing orders; the nearest and guard where they say nothing known."""
    prefer = next((key for key, words in PREFER.items() if any(word in orders for word in words)), "nearest")
    then = next((key for key, words in THEN.items() if any(word in orders for word in words)), "guard")
    return prefer, then


def decide(board: Board, name: str, orders: str) -> Decision:
    """(thinking, first action, second action) of the unit's turn; both are legal, the second after the first."""
    return decide_view(board.round, text.view(board, name), orders)


def decide_view(round_: int, seen: View, orders: str) -> Decision:
    you = seen.you
    prefer, then = read_orders(orders)
    ready = you.ability if not you.cooldown else None
    if ready == "cloak" and not you.has("cloak") and (round_ == 1 or you.hurt):
        return _cloak(seen, round_)
    if ready in ("heal", "shield") and (found := _help(seen, ready, prefer)):
        return found
    hit, near, far = (
        [u for u in seen.enemies if seen.marks[u.name].reach == reach] for reach in ("hit", "near", "far")
    )
    if hit:
        target, why = _choose(hit, prefer)
        strike = Action("attack", target.name)
        if ready in ("trap", "burn") and not target.has(ready):
            return f"{target.name} is {why} in reach: {ready}, then attack.", Action(ready, target.name), strike
        if then == "back" and seen.back:
            return f"{target.name} is {why} in reach: attack, then move back.", strike, Action("move", None, seen.back)
        return f"{target.name} is {why} in reach: attack, then guard.", strike, GUARD
    if near:
        target, why = _choose(near, prefer)
        approach = Action("move", None, seen.marks[target.name].via)
        return f"{target.name} is {why} I can get to: move, then attack.", approach, Action("attack", target.name)
    if far:
        approach = Action("move", None, seen.marks[far[0].name].via)
        return f"No one in reach: move to {far[0].name}, then guard.", approach, GUARD
    return "No way to anyone: guard and wait.", GUARD, WAIT


def _cloak(seen: View, round_: int) -> Decision:
    why = "First round" if round_ == 1 else "I am hurt"
    nearest = next((unit for unit in seen.enemies if seen.marks[unit.name].reach), None)
    via = seen.marks[nearest.name].via if nearest else None
    if nearest is None or via is None:
        return f"{why}: cloak, then guard.", Action("cloak"), GUARD
    return f"{why}: cloak, then move to {nearest.name}.", Action("cloak"), Action("move", None, via)


def _help(seen: View, ability: str, prefer: str) -> Decision | None:
    """Heals or shields the worst hurt ally in reach, else oneself (heal), else goes to one (heal)."""
    hurt = [unit for unit in seen.allies if unit.hurt]
    target = next((unit for unit in hurt if seen.marks[unit.name].reach == "hit"), None)
    if target is None and ability == "heal":
        target = seen.you if seen.you.hurt else None
    if target is None:
        near = next((unit for unit in hurt if seen.marks[unit.name].reach == "near"), None)
        if ability != "heal" or near is None:
            return None
        via = seen.marks[near.name].via
        return f"{near.name} is hurt: move, then heal.", Action("move", None, via), Action("heal", near.name)
    who = "I am" if target is seen.you else f"{target.name} is"
    hit = [unit for unit in seen.enemies if seen.marks[unit.name].reach == "hit"]
    if not hit:
        return f"{who} hurt: {ability}, then guard.", Action(ability, target.name), GUARD
    struck = _choose(hit, prefer)[0].name
    return f"{who} hurt: {ability}, then attack {struck}.", Action(ability, target.name), Action("attack", struck)


def _choose(units: list[Unit], prefer: str) -> tuple[Unit, str]:
    """The unit to strike of some in the order of the text, and why it."""
    healers = [unit for unit in units if unit.kind == "healer"] if prefer == "healer" else []
    if healers:
        return healers[0], "the healer"
    if prefer == "weakest":
        return min(units, key=lambda unit: unit.hp), "the weakest"
    return units[0], "the nearest"


def gamble(board: Board, name: str, rng: random.Random) -> Decision:
    """Any two legal actions: what a rash agent does now and then."""
    first = rng.choice(list(rules.options(board, name)))
    second = rng.choice(list(rules.options(rules.apply(board, name, first), name, [first.type])))
    return f"A gamble: {first.type}, then {second.type}.", first, second
