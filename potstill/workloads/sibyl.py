"""SIBYL: the board of a tactics game, as text -> a short reason and the two actions of one unit's turn.

`convert` reads game logs (training-*.json) from data/samples/sibyl/training/, from the folder that SIBYL_TRAINING_DIR
names, or from --training-dir. `play` shows a position before and after an answer. The slot levels of LEVELS judge
answers by the rules of the game. python -m scripts.dataset.samples -w sibyl writes the sample games.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from potstill.files import canonical_json, write_text
from potstill.records import Exemplar, Record
from potstill.stop import DATA, Stop
from potstill.workloads import sibyl_board_view, sibyl_levels, sibyl_log, sibyl_simulator, sibyl_text
from potstill.workloads.sibyl_log import Turn
from potstill.workloads.sibyl_rules import Action

SCHEMA_VERSION = "1"
TASK = "turn"
SYSTEM = "SIBYL tactics: a short reason and two actions, in JSON."
LEVELS = sibyl_levels.LEVELS
play = sibyl_board_view.play
Coordinate = Annotated[int, Field(ge=0, lt=sibyl_text.MAX_SIDE)]


class Move(Record):
    """One action; what an action does not take is null."""

    type: Literal["move", "attack", "cloak", "heal", "shield", "trap", "burn", "guard", "wait"]
    target: Annotated[str, Field(min_length=1, max_length=24)] | None
    position: tuple[Coordinate, Coordinate] | None


class Answer(Record):
    thinking: Annotated[str, Field(min_length=1, max_length=2000)]
    firstAction: Move
    secondAction: Move


SCHEMAS = {TASK: Answer}
# options of dataset.convert that are this workload's own: name -> (type, help); a bool is a flag
CONVERT_OPTIONS: dict[str, tuple[type, str]] = {
    "all_sides": (bool, "keep the turns of both sides and of games without a winner (default: winners only)"),
    "min_version": (str, "leave games of older versions out, for example 0.5.3"),
    "training_dir": (Path, "the folder of training-*.json (default: SIBYL_TRAINING_DIR, else the samples)"),
}


def convert(
    samples: Path, *, all_sides: bool = False, min_version: str | None = None, training_dir: Path | str | None = None
) -> Iterator[Exemplar]:
    """Yields an exemplar for every turn that is kept, and says on stderr what was left out and why, turn by turn.

    Raises Stop 65 that names the file for a log that cannot be read (sibyl_log), and when no turn is kept.
    """
    folder = Path(training_dir or os.environ.get("SIBYL_TRAINING_DIR") or samples / "training")
    least = sibyl_log.version_key(min_version) if min_version else ()
    left_out: Counter[str] = Counter()
    skipped: list[str] = []

    def skip(path: Path, event: int | None, rule: str) -> None:
        if rule in sibyl_log.LEFT_OUT:
            left_out[rule] += 1
        else:
            skipped.append(f"{path}{'' if event is None else f' event {event}'}: {rule}: {sibyl_log.SKIPS[rule]}")

    games = kept = 0
    for path, game in sibyl_log.read_games(folder, skip):
        if sibyl_log.version_key(game.version) < least:
            skip(path, None, "older_version")
            continue
        games += 1
        for turn in sibyl_log.turns(path, game, skip, all_sides=all_sides):
            kept += 1
            yield exemplar(turn)
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)
    said = [f"{count:,} {sibyl_log.LEFT_OUT[rule]}" for rule, count in sorted(left_out.items())]
    said += [f"{len(skipped):,} skipped"] if skipped else []
    told = f"{kept:,} turns of {games:,} games kept; left out: {', '.join(said) or 'nothing'}"
    if not kept:
        raise Stop(f"{folder}: {told}. Nothing to convert.", DATA)
    print(f"sibyl: {told}", file=sys.stderr)


def exemplar(turn: Turn) -> Exemplar:
    first, second = (_move(action) for action in turn.actions)
    return Exemplar(
        id=f"{turn.game}-{turn.event:04d}",
        task=TASK,
        prompt_text=sibyl_text.serialise(turn.board, turn.unit.name, turn.orders),
        response_strong=canonical_json({"thinking": turn.thinking, "firstAction": first, "secondAction": second}),
        metadata={
            "group": turn.game,
            "class": turn.unit.kind,
            "round": turn.board.round,
            "version": turn.version,
            "result": turn.result,
            "schema_version": SCHEMA_VERSION,
        },
        system_prompt=SYSTEM,
    )


def _move(action: Action) -> dict[str, object]:
    return {"type": action.type, "target": action.target, "position": action.position}


def make_samples(out: Path, seed: int) -> list[Path]:
    """Writes the system text and the games of sibyl_simulator. The same seed gives the same bytes."""
    write_text(out / "system.txt", SYSTEM + "\n")
    return [out / "system.txt", *sibyl_simulator.write_games(out / "training", seed)]
