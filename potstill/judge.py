"""Asks a judge model how close two texts are, through LiteLLM's `completion`, with our own retries and cache.

The texts are hostile: a candidate is whatever a model wrote. They are neutralised and fenced with a code that is new in
every call, and the verdict must be one strict JSON object. Anything else is asked again, then an error, never a zero.

`embedded/lexical` is a provider of our own registered in LiteLLM: it compares words and characters. It is not an LLM.
"""

import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from potstill.config import Config
from potstill.fences import FENCED, Question, fill
from potstill.files import canonical_json, sha256_text
from potstill.records import Record
from potstill.stop import REJECT, UNAVAILABLE, Stop

EMBEDDED = "embedded/lexical"
# counts into the cache key: raise it when the rules below change what a model is shown or how it is read
PROTOCOL = 1
BACKOFF_MAX_S = 20


class JudgeConfig(Config):
    """configs/judge.yaml"""

    model: Annotated[str, Field(min_length=1)]
    api_base: str | None = None
    max_tokens: Annotated[int, Field(gt=0)]
    concurrency: Annotated[int, Field(gt=0, le=256)]
    retries: Annotated[int, Field(ge=0, le=10)]
    timeout_s: Annotated[float, Field(gt=0)]
    max_cost_usd: Annotated[float, Field(gt=0)]


class Ruling(Record):
    """What a judge must answer, and nothing else."""

    score: Annotated[float, Field(ge=0, le=1)]
    reason: str


class Reply(NamedTuple):
    """`ruling` is None when there is an `error`. `calls` counts requests, `cost_usd` what they cost if known."""

    ruling: Ruling | None
    error: str
    cached: bool
    calls: int
    cost_usd: float


class Malformed(Exception):
    """The model answered, but not with a verdict."""


class Cache:
    """Rulings by question, in one SQLite file. For one thread."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS rulings(key TEXT PRIMARY KEY, ruling TEXT NOT NULL)")

    def get(self, key: str) -> Ruling | None:
        row = self._db.execute("SELECT ruling FROM rulings WHERE key = ?", (key,)).fetchone()
        return Ruling.model_validate_json(row[0]) if row else None

    def put(self, key: str, ruling: Ruling) -> None:
        self._db.execute("INSERT OR REPLACE INTO rulings VALUES (?, ?)", (key, ruling.model_dump_json()))

    def close(self) -> None:
        self._db.close()


def label(model: str) -> str:
    """The judge's name as reports show it."""
    return f"{model} - not an LLM" if model == EMBEDDED else model


def cache_key(settings: JudgeConfig, template: str, question: Question) -> str:
    """A hash of everything a ruling depends on. The nonce is not part of it."""
    asked = [PROTOCOL, settings.model, settings.api_base, settings.max_tokens, template, *question]
    return sha256_text(json.dumps(asked))


def read_ruling(content: Any) -> Ruling:
    """Reads a verdict. Raises Malformed unless the content is one JSON object with exactly score and reason."""
    if not isinstance(content, str):
        raise Malformed("the answer is empty")
    try:
        return Ruling.model_validate(json.loads(content, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        what = "has other keys or values" if isinstance(error, ValidationError) else "is not one JSON object"
        raise Malformed(f"the answer {what}") from None


def rule_on(
    settings: JudgeConfig, template: str, cache: Cache, questions: list[Question], spent_usd: float = 0.0
) -> Iterator[tuple[int, Reply]]:
    """Yields (index, reply) for every question, as they come in; equal questions are asked once.

    Raises Stop 69 when the judge refuses the key or is not there, and Stop 100 when `spent_usd` and what these calls
    cost reach max_cost_usd; what was answered before is in the cache.
    """
    asked: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        asked.setdefault(cache_key(settings, template, question), []).append(index)
    todo = []
    for key, indexes in asked.items():
        if ruling := cache.get(key):
            yield from ((index, Reply(ruling, "", True, 0, 0.0)) for index in indexes)
        else:
            todo.append((key, indexes))
    for key, reply in _ask_all(settings, template, [(key, questions[where[0]]) for key, where in todo], spent_usd):
        if reply.ruling:
            cache.put(key, reply.ruling)
        first, *others = asked[key]
        yield first, reply
        yield from ((index, reply._replace(cached=reply.ruling is not None, calls=0, cost_usd=0.0)) for index in others)


def _ask_all(
    settings: JudgeConfig, template: str, questions: list[tuple[str, Question]], spent_usd: float
) -> Iterator[tuple[str, Reply]]:
    if questions:
        _check_model(settings.model)
    waiting = deque(questions)
    running: dict[Future[Reply], str] = {}
    with ThreadPoolExecutor(settings.concurrency) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < settings.concurrency and spent_usd < settings.max_cost_usd:
                    key, question = waiting.popleft()
                    running[pool.submit(ask, settings, template, question)] = key
                # what was under way when the cap was reached is paid for, so it is taken first
                if not running:
                    raise Stop(
                        f"the judge has cost {spent_usd:.4f} USD, max_cost_usd in configs/judge.yaml is "
                        f"{settings.max_cost_usd}: the run is incomplete. Raise it and run this again to go on.",
                        REJECT,
                    )
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    reply = future.result()
                    spent_usd += reply.cost_usd
                    yield running.pop(future), reply
        finally:
            for future in running:
                future.cancel()


def ask(settings: JudgeConfig, template: str, question: Question) -> Reply:
    """Asks until there is a verdict or the tries are used up. Only kinds of errors are told: messages can hold keys."""
    import openai
    import tenacity

    backoff = tenacity.wait_random_exponential(multiplier=0.5, max=BACKOFF_MAX_S)
    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(1 + settings.retries),
        retry=tenacity.retry_if_exception(_is_transient),
        # a malformed answer is asked again at once: nobody is overloaded
        wait=lambda state: 0 if isinstance(state.outcome and state.outcome.exception(), Malformed) else backoff(state),
        reraise=True,
    )
    costs: list[float] = []
    try:
        ruling = policy(_call, settings, template, question, costs)
    except Malformed as error:
        return Reply(None, f"{error}, {len(costs)} times", False, len(costs), sum(costs))
    except openai.OpenAIError as error:
        # by number: LiteLLM raises errors with such a status that are not OpenAI's classes for it
        if getattr(error, "status_code", None) in (401, 403, 404):
            raise Stop(
                f"the judge {settings.model} refuses the call ({type(error).__name__}). "
                "Check model in configs/judge.yaml and its key in the environment or .env.",
                UNAVAILABLE,
            ) from None
        return Reply(None, f"{type(error).__name__}, {len(costs)} times", False, len(costs), sum(costs))
    return Reply(ruling, "", False, len(costs), sum(costs))


def _call(settings: JudgeConfig, template: str, question: Question, costs: list[float]) -> Ruling:
    litellm = load_litellm()
    # counted before it is sent: a call that fails was made too
    costs.append(0.0)
    reply = litellm.completion(
        model=settings.model,
        api_base=settings.api_base,
        messages=[{"role": "user", "content": fill(template, question)}],
        temperature=0,
        max_tokens=settings.max_tokens,
        timeout=settings.timeout_s,
        num_retries=0,
        max_retries=0,
    )
    costs[-1] = reply._hidden_params.get("response_cost") or 0.0
    if not reply.choices:
        raise Malformed("the answer is empty")
    return read_ruling(reply.choices[0].message.content)


def _is_transient(error: BaseException) -> bool:
    import openai

    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in (408, 409, 429) or status >= 500
    return isinstance(error, Malformed | openai.APIError)


def _check_model(model: str) -> None:
    """Raises Stop 2 for a name LiteLLM knows no provider for."""
    import openai

    litellm = load_litellm()
    try:
        litellm.get_llm_provider(model)
    except openai.BadRequestError:
        raise Stop(
            f"configs/judge.yaml: model {model!r} names no provider LiteLLM knows. Want provider/model, "
            f"for example gpt-4o-mini, ollama/llama3.1 or {EMBEDDED}."
        ) from None


def load_litellm() -> Any:
    """LiteLLM, offline and quiet, with `embedded/lexical` registered. The import takes seconds."""
    # in its default mode LiteLLM reads every .env file above the working folder
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    if all(item["provider"] != "embedded" for item in litellm.custom_provider_map):
        litellm.custom_provider_map.append({"provider": "embedded", "custom_handler": _lexical_provider()})
    return litellm


def _lexical_provider() -> Any:
    from litellm.llms.custom_llm import CustomLLM, CustomLLMError

    class Lexical(CustomLLM):
        def completion(self, *, model: str, messages: list[Any], model_response: Any, **_: Any) -> Any:  # type: ignore[override]
            found = FENCED.search(messages[-1]["content"])
            if model != "lexical" or not found:
                raise CustomLLMError(400, f"embedded/{model} found no fenced texts")
            similarity = lexical_similarity(found["reference"], found["candidate"])
            content = canonical_json({"score": similarity, "reason": "words and characters compared, not an LLM"})
            model_response.choices[0].message.content = content
            model_response.model = model
            return model_response

    return Lexical()


def lexical_similarity(a: str, b: str) -> float:
    """0 to 1: the mean of the similarity in order and that with the words sorted; case and punctuation do not count."""
    from rapidfuzz import fuzz, utils

    left, right = utils.default_process(a), utils.default_process(b)
    if not left or not right:
        return float(a.strip() == b.strip())
    return round((fuzz.ratio(left, right) + fuzz.token_sort_ratio(left, right)) / 200, 4)


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) != len(items):
        raise ValueError("a key is repeated")
    return value
