"""What calls to a model cost, and a cap on it that holds while several are under way."""

import math
import threading
from typing import NamedTuple

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


def tokens(text: str) -> int:
    """About how many tokens a text has, with any tokenizer."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def most_usd(price: Price, text: str, max_tokens: int) -> float:
    """The most that one call with this prompt can cost."""
    # a few tokens for the roles and marks around the text
    return price.of(len(text.encode()) / BYTES_PER_TOKEN_LEAST + 50, max_tokens)
