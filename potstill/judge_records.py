"""What the judge's modules pass to each other: its configuration, its rulings, and what one question took."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from potstill.config import Config
from potstill.records import Record

EMBEDDED = "embedded/lexical"


class Prices(Config):
    """USD per million tokens."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class JudgeConfig(Config):
    """configs/judge.yaml"""

    model: Annotated[str, Field(min_length=1)]
    api_base: str | None = None
    max_tokens: Annotated[int, Field(gt=0)]
    concurrency: Annotated[int, Field(gt=0, le=256)]
    retries: Annotated[int, Field(ge=0, le=10)]
    timeout_s: Annotated[float, Field(gt=0)]
    max_cost_usd: Annotated[float, Field(gt=0)]
    daily_cost_usd: Annotated[float, Field(gt=0)] = 5.0
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    repeats: Annotated[int, Field(ge=1, le=9)] = 1
    price_per_million: Prices | None = None
    # names of environment variables the judge may see besides those of its provider
    environment: Annotated[list[str], Field(default_factory=list)]


class Ruling(Record):
    """What a judge must answer, and nothing else."""

    score: Annotated[float, Field(ge=0, le=1)]
    reason: str


class Preference(Record):
    """What a judge must answer to a pairwise question: which of the two candidates is closer to the reference."""

    closer: Literal["A", "B", "tie"]
    reason: str


class Attempt(NamedTuple):
    """One request. `outcome` is `ruling`, or what was wrong; `raw` the answer's text, None where there was none."""

    outcome: str
    raw: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    latency_ms: float


class Reply(NamedTuple):
    """`ruling` is None when there is an `error`. `calls` counts requests, `cost_usd` what they cost if known.

    With repeats, `ruling` has the median score and `spread` is the highest score less the lowest.
    """

    ruling: Any
    error: str
    cached: bool
    calls: int
    cost_usd: float
    attempts: tuple[Attempt, ...] = ()
    spread: float | None = None
    # no answer at all, of whatever kind: the service may be down
    unanswered: bool = False


class Malformed(Exception):
    """The model answered, but not with a verdict."""
