"""Slot levels of the tactics game: pure functions of the candidate and of the board that the prompt describes."""

import functools
import re
from typing import Any

from potstill import slots
from potstill.slots import Score
from potstill.workloads import sibyl_rules as rules
from potstill.workloads import sibyl_text as text
from potstill.workloads.sibyl_text import Shown

NO_BOARD = "the prompt holds no board"


def legal_action(reference: Any, candidate: Any, *, prompt: str, **options: Any) -> Score:
    """Whether the candidate's action is legal on the board of the prompt, 0 or 1; the reference has no say.

    An action is judged as the first of the turn. A whole answer (a slot with path ".") is judged by its second action,
    on the board that its first one leaves; a first one that is not legal leaves the board as it was.
    """
    shown = _read(prompt)
    if shown is None:
        return slots.error(NO_BOARD)
    whole = isinstance(candidate, dict) and "secondAction" in candidate
    parts = [candidate.get("firstAction"), candidate["secondAction"]] if whole else [candidate]
    *_, (wrong, _) = rules.play_out(shown.board, shown.you, map(text.read_action, parts))
    return _judged(wrong)


def mentions(reference: Any, candidate: Any, *, prompt: str, **options: Any) -> Score:
    """Whether a text names the same units of the board and the same kinds of action as the reference does.

    The score is the share that both name of all that either names; it passes at 1.
    """
    shown = _read(prompt)
    if shown is None:
        return slots.error(NO_BOARD)
    if not isinstance(reference, str):
        return slots.error("the reference is no text")
    if not isinstance(candidate, str) or not candidate.strip():
        return _judged("no text")
    known = {unit.name.casefold() for unit in shown.board.units} | set(rules.ACTIONS)
    want, found = (known & set(re.findall(r"[\w'-]+", side.casefold())) for side in (reference, candidate))
    share = len(want & found) / len(want | found) if want | found else 1.0
    named = f"{len(want - found)} missing, {len(found - want)} too many"
    return Score(share, share == 1, "scored", "names the same" if share == 1 else named)


LEVELS = {"legal_action": legal_action, "mentions": mentions}


def _judged(wrong: str) -> Score:
    return Score(0.0 if wrong else 1.0, not wrong, "scored", wrong or "legal")


@functools.lru_cache(1024)
def _read(prompt: str) -> Shown | None:
    return text.parse(prompt)
