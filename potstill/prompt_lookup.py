"""How much of a job's answers is copied from its prompts, counted in decoding steps that n-gram speculation would save.

Speculation tries the tokens that followed the last few before and keeps those that greedy decoding would have said, so
answers stay the same. A wrong guess costs time, and so it is for jobs that copy, such as extraction from a page.

Prompt lookup: Saxena (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from collections.abc import Iterable

# what the served command has too (potstill/serving.py): tokens that must match, and tokens that are tried
MATCHED = 3
TRIED = 8
# below it the wrong guesses cost what the right ones save
WORTH_IT = 0.25


def steps_saved(examples: Iterable[tuple[list[int], list[int]]]) -> float:
    """Share of decoding steps, 0 to 1, that guessing ahead would save on (prompt ids, answer ids)."""
    tokens = steps = 0
    for prompt, answer in examples:
        tokens += len(answer)
        steps += _steps(prompt, answer)
    return 1 - steps / tokens if tokens else 0.0


def _steps(prompt: list[int], answer: list[int]) -> int:
    said = [*prompt, *answer]
    follows: dict[tuple[int, ...], int] = {}
    steps, at, indexed = 0, len(prompt), MATCHED
    while at < len(said):
        for end in range(indexed, at):
            follows[tuple(said[end - MATCHED : end])] = end
        indexed = max(indexed, at)
        start = follows.get(tuple(said[at - MATCHED : at]))
        guessed = [] if start is None else said[start : min(start + TRIED, at)]
        right = next((i for i, token in enumerate(guessed) if said[at + i : at + i + 1] != [token]), len(guessed))
        # the step itself says one token more than it confirms
        at += right + 1
        steps += 1
    return steps
