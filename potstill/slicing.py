"""Slices of graded answers: the rows of one task, one tenant, one domain, one language."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, TypeVar

from potstill.records import Example

# with more of them each has too few rows for a number
MAX_DOMAINS = 30
KINDS = ("task", "tenant", "domain", "language")


class Graded(Protocol):
    """A row with its example, as `grading.Row` is."""

    @property
    def example(self) -> Example: ...


R = TypeVar("R", bound=Graded)


def slices_of(rows: Sequence[R]) -> dict[str, list[R]]:
    """ "task=t1_parse", "tenant=acme", "domain=shop.example", "language=de" -> the rows of it, in their order.

    The last three are `metadata` of a row's example; a row without one is in no slice of that kind. Domains are left
    out where there are more than 30. Sorted by kind as above, then by name.
    """
    found: dict[str, defaultdict[str, list[R]]] = {kind: defaultdict(list) for kind in KINDS}
    for row in rows:
        for kind in KINDS:
            name = row.example.task if kind == "task" else row.example.metadata.get(kind)
            if isinstance(name, str | int) and not isinstance(name, bool) and name != "":
                found[kind][str(name)].append(row)
    if len(found["domain"]) > MAX_DOMAINS:
        del found["domain"]
    return {f"{kind}={name}": own[name] for kind, own in found.items() for name in sorted(own)}
