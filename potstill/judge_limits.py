"""What keeps a judge run within bounds: requests and tokens per minute, and money reserved before it is spent."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from potstill.stop import REJECT, Stop


class CapReached(Stop):
    """What is left under a cap does not pay for one more call."""

    def __init__(self, message: str):
        super().__init__(message, REJECT)


class Rate:
    """At most `per_minute` units a minute, evenly: no burst at the start, which providers count against the minute.

    Each amount is given its own stretch of time; who comes while stretches are taken waits for them to pass (the
    generic cell rate algorithm, ITU-T I.371, with no burst tolerance). None is no limit. For one event loop.
    """

    def __init__(
        self,
        per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        self.per_minute = per_minute
        self._clock, self._sleep = clock, sleep
        self._free_at = 0.0

    async def acquire(self, amount: float = 1.0) -> None:
        if self.per_minute is None:
            return
        now = self._clock()
        starts = max(now, self._free_at)
        # taken before the wait, so that who comes next queues behind it
        self._free_at = starts + amount * 60.0 / self.per_minute
        if starts > now:
            await self._sleep(starts - now)


class Budget:
    """Money spent and reserved. Every request reserves the most it can cost before it is sent, so no cap is passed.

    `caps`: [(what is spent already, the cap, what to tell when it is reached)], all in USD.
    """

    def __init__(self, caps: list[tuple[float, float, str]]):
        self._caps = caps
        self.spent_usd, self._reserved = 0.0, 0.0

    def reserve(self, most_usd: float) -> None:
        """Raises CapReached, and reserves nothing, when one more such call could pass a cap."""
        taken = self.spent_usd + self._reserved + most_usd
        for before, cap, told in self._caps:
            # a call that costs nothing is fine until the cap itself is passed
            if before + taken > cap:
                raise CapReached(told.format(spent=before + self.spent_usd, cap=cap))
        self._reserved += most_usd

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        self._reserved -= reserved_usd
        self.spent_usd += cost_usd
