"""How many requests and tokens a minute a judge is asked for."""

import asyncio
from typing import Any


class Rate:
    """At most `per_minute` units a minute, evenly, on aiolimiter's leaky bucket; None is no limit. For one event loop.

    The bucket holds one second's worth, or one request: a minute's worth at once, as a bucket of a minute lets through
    at the start, counts against the minute that providers look at. Whoever comes first goes first, which the bucket by
    itself, where the smallest amount goes first, does not promise.
    """

    def __init__(self, per_minute: float | None):
        self._turn = asyncio.Lock()
        self._bucket: Any = None
        if per_minute is not None:
            from aiolimiter import AsyncLimiter

            holds = max(1.0, per_minute / 60)
            self._bucket = AsyncLimiter(holds, holds * 60 / per_minute)

    async def acquire(self, amount: float = 1.0) -> None:
        if self._bucket is None:
            return
        async with self._turn:
            while amount > 0:
                part = min(amount, self._bucket.max_rate)
                await self._bucket.acquire(part)
                amount -= part
