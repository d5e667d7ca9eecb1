"""What a piece of work costs, steady enough for a test that compares two sizes of it."""

import gc
import time
from collections.abc import Callable


def cpu_s(work: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of the cheapest of `repeats` calls; the collector is off, as it costs by the size of the process."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        best = float("inf")
        for _ in range(repeats):
            started = time.process_time()
            work()
            best = min(best, time.process_time() - started)
        return best
    finally:
        if was_on:
            gc.enable()
