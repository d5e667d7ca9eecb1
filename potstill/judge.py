"""Asks a judge model how close two texts are, or which of two is closer, with our own retries and cache.

The texts are hostile: a candidate is whatever a model wrote. They are neutralised and fenced with a code that is new in
every call (potstill/fences.py), and the verdict must be one strict JSON object. Anything else is asked again, then an
error, never a zero, and never repaired. potstill/judge_engine.py does the asking.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from potstill import judge_calls, judge_engine
from potstill.fences import PairQuestion, Question
from potstill.files import sha256_text
from potstill.judge_cache import Cache
from potstill.judge_calls import load_litellm
from potstill.judge_engine import Job
from potstill.judge_lexical import similarity as lexical_similarity
from potstill.judge_limits import Rate
from potstill.judge_records import EMBEDDED, JudgeConfig, Malformed, Preference, Reply, Ruling
from potstill.pricing import Budget, Cap, CapReached, Price

__all__ = [
    "EMBEDDED",
    "Cache",
    "CapReached",
    "JudgeConfig",
    "Malformed",
    "Preference",
    "Reply",
    "Ruling",
    "lexical_similarity",
    "load_litellm",
]
# counts into the cache key: raise it when the rules below change what a model is shown or how it is read
PROTOCOL = 2
Tagged = tuple[int, Reply]


def label(model: str) -> str:
    """The judge's name as reports show it."""
    return f"{model} - not an LLM" if model == EMBEDDED else model


def cache_key(settings: JudgeConfig, template: str, question: Question | PairQuestion) -> str:
    """A hash of everything a ruling depends on. The nonce is not part of it."""
    asked = [PROTOCOL, settings.model, settings.api_base, settings.max_tokens, settings.repeats, _hash(template)]
    return sha256_text(json.dumps([*asked, type(question).__name__, *question]))


def read_ruling(content: Any) -> Ruling:
    """Reads a verdict. Raises Malformed unless the content is one JSON object with exactly score and reason."""
    return _read(content, Ruling)


def read_preference(content: Any) -> Preference:
    """Reads a pairwise verdict: exactly closer and reason, else Malformed."""
    return _read(content, Preference)


def _read(content: Any, wanted: Any) -> Any:
    if not isinstance(content, str):
        raise Malformed("the answer is empty")
    try:
        return wanted.model_validate(DECODER.decode(content))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        what = "has other keys or values" if isinstance(error, ValidationError) else "is not one JSON object"
        raise Malformed(f"the answer {what}") from None


def open_job(settings: JudgeConfig, template: str, budget: Budget, price: Price, kind: type = Question) -> Job:
    """A job whose rates start now. `kind` is Question or PairQuestion."""
    read: Callable[[Any], Any] = read_ruling if kind is Question else read_preference
    rates = (Rate(settings.requests_per_minute), Rate(settings.tokens_per_minute))
    return Job(settings, template, read, price, budget, *rates)


def budget_of(settings: JudgeConfig, spent_usd: float = 0.0, spent_today_usd: float = 0.0) -> Budget:
    """The caps of a run that has cost `spent_usd` so far, on a day on which all runs have cost `spent_today_usd`."""
    run = "the judge has cost {spent:.4f} USD and max_cost_usd is {cap}: one more call could pass it"
    day = "judging has cost {spent:.4f} USD today and daily_cost_usd is {cap}: one more call could pass it"
    return Budget(Cap(spent_usd, settings.max_cost_usd, run), Cap(spent_today_usd, settings.daily_cost_usd, day))


def rule_on(
    settings: JudgeConfig, template: str, cache: Cache, questions: Iterable[Question], spent_usd: float = 0.0
) -> Iterator[Tagged]:
    """Yields (index, reply) for every question, as they come in; questions that are equal are asked once.

    Raises Stop 69 when the judge refuses the key or is not there, and CapReached, a Stop 100, before `spent_usd` and
    what these calls cost could pass max_cost_usd; what was answered before is in the cache.
    """
    price = judge_calls.price_of(settings) or Price(0.0, 0.0)
    job = open_job(settings, template, budget_of(settings, spent_usd), price)
    for batch in rule_in_batches(job, cache, questions):
        yield from batch


def from_cache(job: Job, cache: Cache, question: Question | PairQuestion) -> Reply | None:
    """What was answered before, read as strictly as an answer."""
    known = cache.get(cache_key(job.settings, job.template, question))
    return None if known is None else Reply(job.read(known), "", True, 0, 0.0)


def rule_in_batches(job: Job, cache: Cache, questions: Iterable[Question | PairQuestion]) -> Iterator[list[Tagged]]:
    """`rule_on` in batches, each to be recorded before the next one is asked for. What is cached comes first."""
    asked: dict[str, list[int]] = {}
    first: dict[str, Any] = {}
    for index, question in enumerate(questions):
        key = cache_key(job.settings, job.template, question)
        asked.setdefault(key, []).append(index)
        first.setdefault(key, question)
    free = []
    for key, indexes in asked.items():
        if (known := cache.get(key)) is not None:
            del first[key]
            # read as strictly as an answer
            free += [(index, Reply(job.read(known), "", True, 0, 0.0)) for index in indexes]
    if free:
        yield free
    for replies in judge_engine.ask_all(job, first.items()) if first else ():
        cache.put((key, reply.ruling.model_dump_json()) for key, reply in replies if reply.ruling is not None)
        batch = []
        for key, reply in replies:
            one, *others = asked[key]
            batch.append((one, reply))
            shared = reply._replace(cached=reply.ruling is not None, calls=0, cost_usd=0.0, attempts=())
            batch += [(index, shared) for index in others]
        yield batch


@functools.lru_cache(maxsize=8)
def _hash(template: str) -> str:
    return sha256_text(template)


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) != len(items):
        raise ValueError("a key is repeated")
    return value


# made once: json.loads makes a decoder for every text
DECODER = json.JSONDecoder(object_pairs_hook=_unique)
