"""Plays a position of the tactics board against a run's model, or lets the model play, and counts its legal actions.

Run: python -m potstill.workloads.sibyl_play [-r <run>] [--artifact gguf-q8_0] [--seed 7] [--side ember] [--rounds 12]
     python -m potstill.workloads.sibyl_play --log data/samples/sibyl/training/training-0001.json --round 3
     python -m potstill.workloads.sibyl_play --auto [--against policy]
The units of one side are yours: type move 3,2; attack Bear - or ? for all legal actions, undo, quit. The other side's
units are asked of the model with the prompt of training. docs/workloads/sibyl.md says more.
"""

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from potstill import answers, asking, cli, config, project, runs, shown, workload
from potstill.asking import Ask
from potstill.stop import OK, USAGE, Stop
from potstill.workload import Workload
from potstill.workloads import sibyl_board_view as view
from potstill.workloads import sibyl_game as game
from potstill.workloads import sibyl_policy as policy
from potstill.workloads import sibyl_simulator as simulator
from potstill.workloads import sibyl_text as text
from potstill.workloads.sibyl_game import Decision, Ended, Event, Player, Taken, Turn, Undone
from potstill.workloads.sibyl_person import HELP, person

NAME = "sibyl"


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    log, seed = arguments.log, arguments.seed
    position = game.logged(log, arguments.round, arguments.unit) if log else game.fresh(seed)
    sides = list(dict.fromkeys(unit.side for unit in position.board.units))
    side = arguments.side or next(u.side for u in position.board.units if u.name == position.order[position.place])
    if side not in sides:
        raise Stop(f"no side {side!r} on the board.{config.nearest(side, sides)} It has {', '.join(sides)}.", USAGE)
    run = project.find_run(NAME, arguments.run)
    own = (arguments.against if arguments.auto else "you") or "model"
    played_by = {name: own if name == side else "model" for name in sides}
    turns: list[Taken] = []
    try:
        with opened(run, arguments.artifact) as (ask, job):
            known: dict[str, Player] = {"you": person(position.order), "model": model(ask, job), "policy": by_policy}
            print(view.draw(position.board, roster=position.order))
            print(", ".join(f"{name}: {by}" for name, by in played_by.items()))
            if "you" in played_by.values():
                print(HELP)
            events = game.play(position, {name: known[by] for name, by in played_by.items()}, arguments.rounds)
            end = follow(events, played_by, position.order, turns)
    except KeyboardInterrupt:
        end = None
    show_end(end, turns, played_by)
    return OK


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__, workload=False, run=True)
    parser.add_argument("--artifact", help="a GGUF artifact of the package, in llama.cpp (default: the run's model)")
    parser.add_argument("--log", type=Path, help="a game log, training-*.json, to take the position from")
    parser.add_argument("--round", type=int, help="with --log: the round to begin at (default: its first)")
    parser.add_argument("--unit", help="with --log: the unit whose turn it is (default: the first of the round)")
    parser.add_argument("--seed", type=int, default=7, help="without --log: draws the board (default: 7)")
    parser.add_argument("--side", help="the side you play (default: the one that acts first)")
    parser.add_argument("--rounds", type=int, default=simulator.MAX_ROUNDS, help="so many at most (default: 12)")
    parser.add_argument("--auto", action="store_true", help="nobody types: the model plays your side as well")
    parser.add_argument("--against", choices=["policy", "model"], help="with --auto: who plays your side")
    arguments = parser.parse_args(argv)
    if arguments.log is None and (arguments.round is not None or arguments.unit is not None):
        raise Stop("--round and --unit name a turn of a game log; give the log with --log.", USAGE)
    if arguments.against and not arguments.auto:
        raise Stop("--against says who plays your side in your place; add --auto.", USAGE)
    if arguments.rounds < 1:
        raise Stop(f"--rounds {arguments.rounds}: want at least 1.", USAGE)
    return arguments


@contextlib.contextmanager
def opened(run: str, artifact: str | None) -> Iterator[tuple[Ask, Workload]]:
    """The run's model, with the system text it was trained with, and the workload whose answers it owes."""
    record = runs.require_trained(run)
    job = workload.load(NAME)
    if record.workload != NAME:
        print(f"note: {run} was trained for {record.workload}, not for {NAME}")
    limit = max(task.max_new_tokens for task in job.settings.tasks.values())
    system = asking.system_of(record, workload.load(record.workload))
    with asking.open_model(run, artifact, system, limit) as ask:
        yield ask, job


# --- the players


def model(ask: Ask, job: Workload) -> Player:
    """Asks for every turn with the prompt of training. An answer that breaks JSON or the schema has no actions."""
    (task,) = job.settings.tasks

    def decide(turn: Turn) -> Decision:
        output = "".join(ask(text.serialise(turn.board, turn.unit.name, turn.orders)))
        answer = answers.parse(output)
        checked, problem = job.check(task, answer.parsed) if answer.valid_json else (None, "it is not valid JSON")
        if checked is None:
            return Decision("", (None, None), problem, output)
        first, second = (text.read_action(checked[key]) for key in ("firstAction", "secondAction"))
        return Decision(checked["thinking"], (first, second))

    return decide


def by_policy(turn: Turn) -> Decision:
    thinking, first, second = policy.decide(turn.board, turn.unit.name, turn.orders)
    return Decision(thinking, (first, second))


# --- the screen


def follow(
    events: Iterator[Event], played_by: Mapping[str, str], roster: tuple[str, ...], turns: list[Taken]
) -> Ended | None:
    """Shows a game as it is played, and keeps in `turns` those that are not taken back."""
    for event in events:
        if isinstance(event, Ended):
            print(f"\n{view.draw(event.board, roster=roster)}")
            return event
        if isinstance(event, Undone):
            del turns[len(turns) - event.turns :]
            print(
                f"  {event.turns} turns are taken back" if event.turns else "  there is no turn of yours to take back"
            )
            continue
        turns.append(event)
        print("\n".join(told(event, played_by[event.turn.unit.side])))
    return None


def told(taken: Taken, player: str) -> Iterator[str]:
    """A turn in lines; what a model wrote is on one line, cut off, and cannot act on the terminal."""
    board, unit, _ = taken.turn
    decision = taken.decision
    thinking = f": {shown.line(decision.thinking)}" if decision.thinking else ""
    yield f"round {board.round}, {unit.name} ({unit.side} {unit.kind} {unit.hp}/{unit.max_hp}), {player}{thinking}"
    if decision.unusable:
        yield f"  unusable, so nothing is done: {shown.line(decision.unusable)}"
        yield f"  the answer: {shown.line(decision.output) or 'empty'}"
        return
    for action, (wrong, after) in zip(decision.actions, taken.outcomes, strict=True):
        effect = f"not legal, so nothing is done: {wrong}" if wrong else view.changes(board, after)
        yield f"  {view.said(action)}{f' - {effect}' if effect else ''}"
        board = after


def show_end(end: Ended | None, turns: list[Taken], played_by: Mapping[str, str]) -> None:
    """The last lines, after a game that was interrupted as well."""
    print()
    for side, found in game.tally(turns).items():
        unusable = f", {found.unusable} answers unusable" if found.unusable else ""
        counts = f"{found.turns} turns, {found.legal} of {found.actions} actions legal{unusable}"
        print(f"{side} ({played_by[side]}): {counts}")
    if end is None:
        print(f"interrupted after {len(turns)} turns; no winner")
    else:
        print(f"{end.why} after {len(turns)} turns; {f'{end.winner} wins' if end.winner else 'no winner'}")


if __name__ == "__main__":
    cli.run(main)
