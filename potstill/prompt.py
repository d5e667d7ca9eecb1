"""The one place that turns an example into chat messages and token ids.

Training, evaluation, the Modelfile and the packaged model are checked against it, token id by token id.
Gemma 3 has no system role: its template puts the system text and a blank line in front of the first user turn.
"""

from dataclasses import dataclass
from typing import Any

from potstill.records import Example
from potstill.stop import DATA, Stop

# what closes a model turn in Gemma's template, and so what a completion must end with
END_OF_TURN = "<end_of_turn>"


@dataclass(frozen=True)
class Rendered:
    """`prompt_ids` end where the model's turn begins; `completion_ids` end with <end_of_turn>."""

    messages: list[dict[str, str]]
    prompt_ids: list[int]
    completion_ids: list[int]


def messages(system: str, prompt: str) -> list[dict[str, str]]:
    """The conversation before the answer. An empty system text is no message."""
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": prompt}]


def prompt_ids(system: str, prompt: str, tokenizer: Any) -> list[int]:
    """Token ids of the prompt, with <bos>, up to and including the opening of the model's turn."""
    text = tokenizer.apply_chat_template(messages(system, prompt), add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def render(example: Example, tokenizer: Any) -> Rendered:
    """Messages and ids of one example. Raises Stop 65 when the answer would not survive the template as it is."""
    # the template trims contents, so an answer with outer whitespace would be trained in another form than it is graded
    if example.response != example.response.strip():
        raise Stop(f"example {example.id}: the response starts or ends with whitespace. Run fab dataset.clean.", DATA)
    answer = tokenizer(example.response + END_OF_TURN, add_special_tokens=False)["input_ids"]
    return Rendered(
        messages(example.system, example.prompt), prompt_ids(example.system, example.prompt, tokenizer), answer
    )
