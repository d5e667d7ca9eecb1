"""What calls to a model cost, and a cap on it that holds while several are under way."""

import math
import threading
from typing import NamedTuple

from potstill.stop import REJECT, Stop

# English and JSON have three to four bytes a token; two is the most tokens a prompt will have
BYTES_PER_TOKEN, BYTES_PER_TOKEN_LEAST = 3.3, 2.0


class Price(NamedTuple):
    """USD per token."""

    input: float
    output: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        return prompt_tokens * self.input + completion_tokens * self.output


class CapReached(Stop):
    """What is left under a cap does not pay for one more call."""

    def __init__(self, message: str):
        super().__init__(message, REJECT)


class Cap(NamedTuple):
    """`before_usd` is what was spent under this cap already; `told` when it is reached, with {spent} and {cap}."""

    before_usd: float
    usd: float
    told: str


class Budget:
    """Money spent and reserved, for several threads or one event loop.

    Every request reserves the most it can cost before it is sent, so calls under way never add up to more than a cap.
    """

    def __init__(self, *caps: Cap):
        self._caps = caps
        self.spent_usd, self._reserved = 0.0, 0.0
        self._lock = threading.Lock()

    def reserve(self, most_usd: float) -> None:
        """Raises CapReached, and reserves nothing, when one more such call could pass a cap."""
        with self._lock:
            taken = self.spent_usd + self._reserved + most_usd
            for cap in self._caps:
                # a call that costs nothing is fine until the cap itself is passed
                if cap.before_usd + taken > cap.usd:
                    raise CapReached(cap.told.format(spent=cap.before_usd + self.spent_usd, cap=cap.usd))
            self._reserved += most_usd

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        with self._lock:
            self._reserved -= reserved_usd
            self.spent_usd += cost_usd


def tokens(text: str) -> int:
    """About how many tokens a text has, with any tokenizer."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def most_usd(price: Price, text: str, max_tokens: int) -> float:
    """The most that one call with this prompt can cost."""
    # a few tokens for the roles and marks around the text
    return price.of(len(text.encode()) / BYTES_PER_TOKEN_LEAST + 50, max_tokens)
