"""A live bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
PLAIN_INTERVAL_S = 5.0


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yields `items`, showing items done, items/s and the time left."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        yield from _bar(items, what, total)
    else:
        yield from _lines(items, what, total)


def _bar(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, rate="")
        for count, item in enumerate(items, 1):
            yield item
            progress.update(task, advance=1, rate=f"{count / max(time.monotonic() - started, 1e-9):.1f}/s")


def _lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    started = shown = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown >= PLAIN_INTERVAL_S:
            shown = now
            rate = count / (now - started)
            left = f", {(total - count) / rate:.0f} s left" if total else ""
            print(f"{what}: {count}{f' of {total}' if total else ''}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)
