"""Adversarial variants of train rows, each with its parent's answer, and repair rows made of broken answers.

A variant's random stream follows from the seed, the row's id, the kind and the variant's number alone, so neither the
order of rows nor other rows, nor other kinds, change it.
"""

import functools
import json
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from potstill import corrupt, disturb
from potstill.config import nearest
from potstill.disturb import Keep
from potstill.files import canonical_json, sha256_text
from potstill.holds import Held, leaves, words
from potstill.records import Example
from potstill.stop import USAGE, Stop
from potstill.workload import Augment, Workload

BROKEN_JSON = "broken_json"
KINDS = (*disturb.KINDS, BROKEN_JSON)
# a draw that fails the checks is followed by others of the same stream
TRIES = 4
# characters; a longer prompt is no prompt for a small model, and would take long to disturb
LONGEST_PROMPT = 200_000
SNAKE_CASE = re.compile(r"[a-z]+(?:_[a-z]+)*")
# reason -> what it means
REASONS = {
    "nothing_to_change": "the prompt has nothing that this kind changes",
    "not_free_text": "the prompt is markup or data, which nobody types",
    "prompt_too_long": f"the prompt has more than {LONGEST_PROMPT} characters",
    "answer_lost": "a value of the answer that the parent's prompt has would be gone",
    "order_changed": "items of the answer would stand in another order than in the prompt",
    "not_json": "the answer is no JSON object, so it cannot be broken JSON",
    "other_schema": "the answer is not one of the repair task",
    "equal_to_parent": "the same prompt as the parent's",
    "equal_to_variant": "the same prompt as another variant's",
    "equal_to_row": "but for case and spacing, the prompt of another row",
}


class Discarded(NamedTuple):
    kind: str
    reason: str


def settings(job: Workload) -> Augment:
    """The workload's augment block. Raises Stop 2 when it is missing, names an unknown kind or lacks a repair task."""
    where = f"configs/workloads/{job.name}.yaml"
    block = job.settings.augment
    if block is None or not block.kinds:
        raise Stop(
            f"{where} says nothing of variants. Add a block such as "
            f"augment: {{per_row: 1, kinds: [whitespace, casing, typos], seed: 17}}. Kinds: {', '.join(KINDS)}.",
            USAGE,
        )
    for kind in block.kinds:
        if kind not in KINDS:
            raise Stop(
                f"{where}: augment.kinds names {kind!r}.{nearest(kind, KINDS)} Kinds: {', '.join(KINDS)}.", USAGE
            )
    if BROKEN_JSON in block.kinds and repair_task(job) is None:
        raise Stop(
            f"{where}: augment.kinds names {BROKEN_JSON}, but potstill/workloads/{job.name}.py does not say which task "
            f'mends broken answers. Take the kind out, or add REPAIR_TASK = "<task>" there '
            f"(tasks: {', '.join(job.settings.tasks)}).",
            USAGE,
        )
    return block


def repair_task(job: Workload) -> str | None:
    """The task whose prompts are broken answers: the module's REPAIR_TASK. Raises Stop 2 when it is no task."""
    task = getattr(job.module, "REPAIR_TASK", None)
    if task is not None and task not in job.settings.tasks:
        raise Stop(
            f"potstill/workloads/{job.name}.py: REPAIR_TASK is {task!r}.{nearest(str(task), job.settings.tasks)}"
            f" Tasks: {', '.join(job.settings.tasks)}.",
            USAGE,
        )
    return task


def trainable(example: Example) -> bool:
    """Whether a row may be in train: it is in no slice and not pinned to val or test."""
    return not example.metadata.get("slice") and example.metadata.get("split") in (None, "train")


def variants(job: Workload, parent: Example) -> Iterator[Example | Discarded]:
    """Up to `augment.per_row` variants of a row, the kinds in an order of the row's own, and what was not made."""
    block = settings(job)
    kinds = sorted(set(block.kinds), key=lambda kind: sha256_text(f"{block.seed} {parent.id} {kind}"))
    if len(parent.prompt) > LONGEST_PROMPT:
        yield from (Discarded(kind, "prompt_too_long") for kind in kinds[: block.per_row])
        return
    held = Held(parent)
    keep = Keep(task_words(job, parent.task) | held.words, held.spans, held.cased)
    taken = {parent.prompt}
    made = 0
    for number in range(1, block.per_row + 1):
        for kind in list(kinds):
            if made == block.per_row:
                return
            rng = random.Random(f"{block.seed} {parent.id} {kind} {number}")
            if kind == BROKEN_JSON:
                variant = _broken(job, parent, rng, taken)
            else:
                variant = _disturbed(parent, kind, rng, held, keep, taken)
            if isinstance(variant, Discarded):
                yield variant
                kinds.remove(kind)
            else:
                taken.add(variant.prompt)
                made += 1
                yield _named(variant, parent, kind, number)


def still_holds(parent: Example, variant_prompt: str) -> bool:
    """Whether every value of the answer that the parent's prompt has is in the variant's prompt, in the same order."""
    return Held(parent).problem(variant_prompt) is None


@functools.lru_cache
def task_words(job: Workload, task: str) -> frozenset[str]:
    """The words of a task's schema - its keys and the values it allows -, casefolded: a typo must not make one."""
    found: set[str] = set()
    todo: list[Any] = [job.schemas[task].model_json_schema()]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            for text in [*node.get("properties", {}), *node.get("enum", []), node.get("const")]:
                found |= words(str(text)) if text is not None else set()
            todo += node.values()
        elif isinstance(node, list):
            todo += node
    return frozenset(found)


def _disturbed(
    parent: Example, kind: str, rng: random.Random, held: Held, keep: Keep, taken: set[str]
) -> Example | Discarded:
    if kind in disturb.FREE_TEXT and (disturb.is_markup(parent.prompt) or disturb.is_data(parent.prompt)):
        return Discarded(kind, "not_free_text")
    reason = "nothing_to_change"
    for _ in range(TRIES):
        prompt = disturb.KINDS[kind](parent.prompt, rng, keep)
        problem = "nothing_to_change" if prompt == parent.prompt else held.problem(prompt)
        if problem is None and prompt in taken:
            problem = "equal_to_variant"
        if problem is None:
            return parent.model_copy(update={"prompt": prompt})
        # a later draw that changes nothing does not hide why an earlier one failed
        reason = problem if problem != "nothing_to_change" else reason
    return Discarded(kind, reason)


def _broken(job: Workload, parent: Example, rng: random.Random, taken: set[str]) -> Example | Discarded:
    """A repair row: the prompt is the parent's answer with a fault in its text and, at times, in its keys."""
    task = repair_task(job)
    try:
        answer = json.loads(parent.response)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not answer:
        return Discarded(BROKEN_JSON, "not_json")
    mended, _ = job.check(str(task), answer)
    if task is None or mended is None or canonical_json(mended) != parent.response:
        return Discarded(BROKEN_JSON, "other_schema")
    reason = "answer_lost"
    for _ in range(TRIES):
        fault = rng.choice(sorted(corrupt.TEXTS))
        text = corrupt.TEXTS[fault](_respelt(answer, rng), rng)
        prompt = getattr(job.module, "REPAIR_PREFIX", "") + text
        if not all(_written(value, text) for _, value in leaves(answer)):
            reason = "answer_lost"
        elif prompt in taken:
            reason = "equal_to_variant" if prompt != parent.prompt else "equal_to_parent"
        else:
            metadata = {key: value for key, value in parent.metadata.items() if key != "grounded"}
            slots = job.settings.tasks[task].slots
            return parent.model_copy(update={"task": task, "prompt": prompt, "slots": slots, "metadata": metadata})
    return Discarded(BROKEN_JSON, reason)


def _respelt(answer: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Keys in another order, in camelCase and the like, or as they are. Only snake_case keys can be spelt back."""
    kind = rng.choice(("shuffled_keys", "camel_keys", None, None))
    if kind is None or (kind == "camel_keys" and not _snake_case(answer)):
        return answer
    return corrupt.KEYS[kind](answer, rng)


def _snake_case(value: Any) -> bool:
    if isinstance(value, list):
        return all(_snake_case(item) for item in value)
    if not isinstance(value, dict):
        return True
    return all(SNAKE_CASE.fullmatch(key) and _snake_case(item) for key, item in value.items())


def _written(value: Any, text: str) -> bool:
    """Whether a leaf is in a broken JSON text, in any of the ways the faults escape it."""
    if not isinstance(value, str):
        spellings = {json.dumps(value), repr(value)}
    else:
        once = json.dumps(value, ensure_ascii=False)[1:-1]
        spellings = {once, json.dumps(once, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    return any(spelling in text for spelling in spellings)


def _named(variant: Example, parent: Example, kind: str, number: int) -> Example:
    return variant.model_copy(
        update={
            "id": f"{parent.id}~{kind}{number if number > 1 else ''}",
            "metadata": {**variant.metadata, "parent": parent.id, "augmented": kind},
            "source_sha256": sha256_text(canonical_json([variant.system, variant.prompt, variant.response])),
        }
    )
