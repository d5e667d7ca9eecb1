"""What reports/<run>/parity.json holds, and how two models' answers are compared."""

import json
from typing import Any

from pydantic import Field

from potstill.prompt import END_OF_TURN
from potstill.records import Prediction, Record
from potstill.token_lock import Mismatch, first_difference, item

SHOWN = 20


class Divergence(Record):
    """Where an answer leaves the merged model's: the index of the first token that differs, and both tokens.

    A token is null where one answer ends. `gap` is how much likelier the merged float32 model finds its own token there
    than the other one, as a difference of natural logarithms: 0.01 is a near tie, 3 is twenty times as likely.
    """

    id: str
    token: int
    merged: str | None
    artifact: str | None
    gap: float | None


class Forced(Record):
    """Both models' next-token distributions at every place of the same answers, the artifact's own.

    `top1` is the share of places where both find the same token likeliest. `kl` is the mean Kullback-Leibler divergence
    of the artifact from the merged float32 model in nats per token, and `kl_max` the largest. `tokens_seen` is of how
    many tokens an engine shows probabilities; the others count as one, so that `kl` is a lower bound.
    """

    rows: int
    places: int
    top1: float
    kl: float
    kl_max: float
    tokens_seen: int


class Slots(Record):
    """Slots that a rule can grade in both models' answers: the share that passed, and the difference.

    `left_out` were not: they need a model judge (fab eval.judge), or a rule failed on them.
    """

    scored: int
    left_out: int
    merged: float | None
    artifact: float | None
    drop: float | None


class ArtifactParity(Record):
    """One artifact in one engine. Shares are of `n` test rows; null where an engine does not show what they need.

    Speeds are of one stream, in tokens per second; `answers_per_s` is of all prompts at once. `peak_bytes` is the most
    memory the engine took: of its process, or what this process grew by where the engine runs inside it.
    """

    artifact: str
    engine: str
    engine_version: str
    file: str
    bytes: int
    sha256: str | None
    n: int
    same_output: float
    same_json: float
    min_same_json: float | None
    slots: Slots
    max_slot_drop: float | None
    same_prompt_ids: float | None
    first_token_mismatch: Mismatch | None
    forced: Forced | None
    passed: bool
    # why it did not pass, in words
    reasons: list[str]
    # the first few rows that differ
    divergences: list[Divergence] = Field(max_length=SHOWN)
    load_ms: float
    peak_bytes: int | None
    prompt_tokens_per_s: float
    decode_tokens_per_s: float
    answers_per_s: float


class Pair(Record):
    """Two engines with the same artifact."""

    one: str
    other: str
    same_output: float
    same_json: float
    # its `merged` token is the one of `one`, and the gap is still the merged float32 model's
    first: Divergence | None


class Parity(Record):
    """reports/<run>/parity.json

    `artifacts` are by name: the artifact's, in the engine it is made for, or <artifact>-<engine> in another one.
    `not_run` says of every other pair why it was not asked. `rejected` artifacts are over their limits and have left
    the package.
    """

    run: str
    snapshot: str
    context: int
    slots: int
    threads: int
    artifacts: dict[str, ArtifactParity]
    pairs: list[Pair]
    not_run: dict[str, str]
    rejected: list[str]


def equal_json(one: Prediction, other: Prediction) -> bool:
    """Whether both parsed to the same value, the order of keys aside; text without any JSON must be the same text."""
    if one.parsed is None or other.parsed is None:
        return one.output == other.output
    # as text, because Python takes true, 1 and 1.0 for equal
    return json.dumps(one.parsed, sort_keys=True) == json.dumps(other.parsed, sort_keys=True)


def diverge(own: str, merged: str, tokenizer: Any) -> tuple[int, list[int], list[int]]:
    """(index of the first token that differs, the merged answer's ids, the other's); both with their end of turn."""
    texts = [merged + END_OF_TURN, own + END_OF_TURN]
    wanted, found = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return first_difference(wanted, found), wanted, found


def divergence(own: Prediction, merged: Prediction, tokenizer: Any, gap: float | None) -> Divergence:
    at, *both = diverge(own.output, merged.output, tokenizer)
    # the end of turn is no token of an answer
    wanted, found = (tokenizer.convert_ids_to_tokens(ids[:-1]) for ids in both)
    return Divergence(id=own.id, token=at, merged=item(wanted, at), artifact=item(found, at), gap=gap)


def pair(one: str, other: str, rows: list[tuple[Prediction, Prediction]], first: Divergence | None) -> Pair:
    """`rows` has both engines' answers to the same prompts."""
    return Pair(
        one=one,
        other=other,
        same_output=sum(a.output == b.output for a, b in rows) / len(rows),
        same_json=sum(equal_json(a, b) for a, b in rows) / len(rows),
        first=first,
    )
