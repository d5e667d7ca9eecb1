"""What calls to a model cost, and a cap on it that holds while several are under way."""

import math
import threading
from typing import NamedTuple

from potstill import judge
from potstill.stop import Stop

# English and JSON have three to four bytes a token; two is the most tokens a prompt will have
BYTES_PER_TOKEN, BYTES_PER_TOKEN_LEAST = 3.3, 2.0


class Price(NamedTuple):
    """USD per token."""

    input: float
    output: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        return prompt_tokens * self.input + completion_tokens * self.output


class CapReached(Exception):
    """What is left under the cap does not pay for one more call."""


class Budget:
    """Money spent and reserved, for several threads."""

    def __init__(self, cap_usd: float, spent_usd: float = 0.0):
        self.cap_usd = cap_usd
        self._spent, self._reserved = spent_usd, 0.0
        self._lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        return self._spent

    def reserve(self, most_usd: float) -> None:
        with self._lock:
            if self._spent + self._reserved + most_usd > self.cap_usd:
                raise CapReached
            self._reserved += most_usd

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        with self._lock:
            self._reserved -= reserved_usd
            self._spent += cost_usd


def known_price(model: str) -> Price | None:
    """What LiteLLM's own table says the model costs, or None. Raises Stop 2 for a model of no provider it knows."""
    import openai

    litellm = judge.load_litellm()
    try:
        litellm.get_llm_provider(model)
    except openai.BadRequestError:
        raise Stop(
            f"--model {model!r} names no provider LiteLLM knows. Want provider/model, as in openai/gpt-4o-mini."
        ) from None
    try:
        info = litellm.get_model_info(model)
    except Exception:  # LiteLLM raises a bare Exception for a model it does not know
        return None
    prices = info.get("input_cost_per_token"), info.get("output_cost_per_token")
    return None if None in prices else Price(*prices)


def tokens(text: str) -> int:
    """About how many tokens a text has, with any tokenizer."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)
