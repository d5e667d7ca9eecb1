"""One request to a judge model through LiteLLM's `acompletion`: errors by kind, cost by tokens."""

import asyncio
import email.utils
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from potstill import judge_lexical
from potstill.judge_records import EMBEDDED, JudgeConfig
from potstill.pricing import Price
from potstill.stop import UNAVAILABLE, Stop

# the key, the account or the address is wrong: the next question would be refused as well
REFUSED = (401, 402, 403, 404)
BACKOFF_MAX_S = 20
# who asks for a longer wait than this is out of quota, not busy
RETRY_AFTER_MAX_S = 300


class Answer(NamedTuple):
    """`prompt_tokens` is 0 where the service does not say what it used."""

    content: Any
    prompt_tokens: int
    completion_tokens: int


class Failed(Exception):
    """A request that got no answer. `kind` never holds the service's message: that can hold keys.

    `billed`: the answer may have been made, and billed, without reaching us.
    """

    def __init__(self, kind: str, status: int | None, retry_after_s: float | None = None, billed: bool = False):
        super().__init__(kind)
        self.kind, self.status, self.retry_after_s, self.billed = kind, status, retry_after_s, billed

    @property
    def transient(self) -> bool:
        # LiteLLM gives an answer that it cannot read the status 200
        return self.status is None or self.status in (200, 408, 409, 425, 429) or self.status >= 500


async def call(settings: JudgeConfig, prompt: str) -> Answer:
    """Raises Failed. A stalled or dripping answer fails after timeout_s."""
    import openai

    litellm = load_litellm()
    try:
        # LiteLLM's timeout is that of one read: a server that drips bytes would never reach it
        async with asyncio.timeout(settings.timeout_s):
            reply = await litellm.acompletion(
                model=settings.model,
                api_base=settings.api_base,
                messages=[{"role": "user", "content": prompt}],
                temperature=0,
                max_tokens=settings.max_tokens,
                timeout=settings.timeout_s,
                num_retries=0,
                max_retries=0,
            )
    except TimeoutError:
        raise Failed("Timeout", 408, billed=True) from None
    except openai.OpenAIError as error:
        # by number: LiteLLM raises errors with such a status that are not OpenAI's classes for it
        status = getattr(error, "status_code", None)
        status = status if isinstance(status, int) else None
        kind = type(error).__name__ if status is None else f"{type(error).__name__} {status}"
        raise Failed(kind, status, retry_after(headers_of(error)), billed=status in (200, 408)) from None
    usage = getattr(reply, "usage", None)
    taken, made = (int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens"))
    return Answer(reply.choices[0].message.content if reply.choices else None, taken, made)


def is_local(address: str) -> bool:
    return urlsplit(address).hostname in ("127.0.0.1", "::1", "localhost")


def headers_of(error: BaseException) -> Mapping[str, str]:
    # which of the two is filled depends on the provider
    found = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    return {str(name).lower(): str(value) for name, value in dict(found or {}).items()}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from Retry-After as a number or an HTTP date (RFC 9110, 10.2.3); None where there is none.

    A date is taken against the answer's own Date, so that a clock that is off does not matter.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    until = _seconds(value)
    if until is None:
        return None
    now = _seconds(headers.get("date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def patient(model: str, asked_s: Callable[[BaseException], float | None]) -> Callable[[Any], float]:
    """Tenacity's wait: as long as the service asks (`asked_s` of the error), and at least a random, growing time.

    No wait at all where `asked_s` is negative. Raises Stop 69 when the service asks for more than RETRY_AFTER_MAX_S.
    """
    import tenacity

    backoff = tenacity.wait_random_exponential(multiplier=0.5, max=BACKOFF_MAX_S)

    def wait(state: Any) -> float:
        asked = asked_s(state.outcome.exception()) or 0.0
        if asked > RETRY_AFTER_MAX_S:
            raise Stop(
                f"{model} asks to wait {asked:.0f} s, more than {RETRY_AFTER_MAX_S} s: its quota may be used up. Run "
                "this again later to go on.",
                UNAVAILABLE,
            )
        return 0.0 if asked < 0 else max(asked, backoff(state))

    return wait


def _seconds(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def listed_price(model: str) -> Price | None:
    """What LiteLLM's own table says a model costs, or None. What is embedded, or Ollama's, costs nothing."""
    # LiteLLM would ask an Ollama server about the model
    if model == EMBEDDED or model.startswith(("ollama/", "ollama_chat/")):
        return Price(0.0, 0.0)
    try:
        info = load_litellm().get_model_info(model)
    except Exception:  # LiteLLM raises a bare Exception for a model it does not know
        return None
    prices = info.get("input_cost_per_token"), info.get("output_cost_per_token")
    return None if None in prices else Price(*prices)


def price_of(settings: JudgeConfig) -> Price | None:
    """The configured price, else LiteLLM's, else None. What is embedded or on this machine costs nothing.

    Raises Stop 2 for a model of no provider LiteLLM knows.
    """
    check_model(settings.model)
    if settings.price_per_million is not None:
        return Price(settings.price_per_million.input / 1e6, settings.price_per_million.output / 1e6)
    if (listed := listed_price(settings.model)) is not None:
        return listed
    return Price(0.0, 0.0) if settings.api_base is not None and is_local(settings.api_base) else None


def check_model(model: str) -> None:
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
    # its warnings quote requests and answers
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    if all(item["provider"] != "embedded" for item in litellm.custom_provider_map):
        litellm.custom_provider_map.append({"provider": "embedded", "custom_handler": judge_lexical.provider()})
    return litellm
