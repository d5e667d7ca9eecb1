"""Runs batches of rows through guarded workers, in order: processes of this machine, or a Ray cluster's.

Both run the same batch function, `Worker.run`, so both give the same rows in the same order.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from potstill.stop import UNAVAILABLE, Stop
from potstill.worker import Row, Worker

# a batch is sent when it has so many rows or characters: memory is bounded by batches, not by the corpus
BATCH_ROWS, BATCH_CHARS = 64, 4_000_000
# what a cluster's workers need of the project: code, configs and samples
NOT_SENT = [".venv", ".git", "data/raw", "data/processed", "models", "reports", "mlruns", "mlflow.db"]


def clean(rows: Iterable[Row], workload: str, pii_key: bytes, engine: str, workers: int = 0) -> Iterator[Row]:
    """Yields the answer of each row, in the order of `rows`. `workers` 0 takes every core.

    Raises Stop 69 when the Ray cluster cannot be reached.
    """
    if engine == "ray":
        yield from _on_ray(rows, workload, pii_key, workers)
        return
    count = workers or len(os.sched_getaffinity(0))
    pool = [Worker(workload, pii_key) for _ in range(count)]
    try:
        yield from ordered(batches(rows), [worker.run for worker in pool])
    finally:
        for worker in pool:
            worker.close()


def _on_ray(rows: Iterable[Row], workload: str, pii_key: bytes, workers: int) -> Iterator[Row]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray announces at every start that it will once change what this does; nothing here uses an accelerator
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address:
        options["runtime_env"] = {"working_dir": ".", "excludes": NOT_SENT}
    else:
        options |= {"include_dashboard": False, "num_cpus": workers or len(os.sched_getaffinity(0))}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError) as error:
        raise Stop(f"Ray cannot be reached ({error}). Set RAY_ADDRESS, or engine: local.", UNAVAILABLE) from None
    try:
        count = workers or int(ray.cluster_resources().get("CPU", 1))
        # a Ray worker holds the guarded process, so that a hostile row ends neither
        remote: Any = ray.remote(num_cpus=1)(Worker)
        actors = [remote.remote(workload, pii_key) for _ in range(count)]

        def runner(actor: Any) -> Callable[[list[Row]], list[Row]]:
            return lambda batch: ray.get(actor.run.remote(batch))

        yield from ordered(batches(rows), [runner(actor) for actor in actors])
        ray.get([actor.close.remote() for actor in actors])
    finally:
        ray.shutdown()


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    chars = 0
    for row in rows:
        batch.append(row)
        chars += len(row.get("prompt_text", ""))
        if len(batch) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def ordered(batches: Iterable[list[Row]], runners: list[Callable[[list[Row]], list[Row]]]) -> Iterator[Row]:
    """Runs each batch on whichever runner is free; yields answers in the order of the rows."""
    free: SimpleQueue[Callable[[list[Row]], list[Row]]] = SimpleQueue()
    for runner in runners:
        free.put(runner)

    def work(batch: list[Row]) -> list[Row]:
        runner = free.get()
        try:
            return runner(batch)
        finally:
            free.put(runner)

    waiting: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(len(runners)) as threads:
        for batch in batches:
            waiting.append(threads.submit(work, batch))
            if len(waiting) > 2 * len(runners):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
