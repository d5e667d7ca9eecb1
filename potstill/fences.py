"""The judge's prompt: hostile texts are neutralised, then fenced with a code that is new in every call.

The prompt is a text file with the placeholders {{slot}}, {{nonce}}, {{reference}} and {{candidate}}.
"""

import re
import secrets
import unicodedata
from typing import NamedTuple

from potstill.stop import Stop

PLACEHOLDER = re.compile(r"\{\{(slot|nonce|reference|candidate)\}\}")
# chat-template tokens of Gemma, ChatML, Llama and Mistral
CONTROL_TOKEN = re.compile(
    r"<(/?(?:start_of_turn|end_of_turn|start_of_image|bos|eos|pad|unk|mask|s)|\|[^<>|\n]{1,40}\|)>|\[(/?INST)\]",
    re.IGNORECASE,
)
FENCE_RUN = re.compile(r"<{2,}|>{2,}")
FENCED = re.compile(
    r"^<<<REFERENCE (?P<nonce>[0-9a-f]{16})>>>\n(?P<reference>.*?)\n<<<END REFERENCE (?P=nonce)>>>$"
    r".*?^<<<CANDIDATE (?P=nonce)>>>\n(?P<candidate>.*?)\n<<<END CANDIDATE (?P=nonce)>>>$",
    re.DOTALL | re.MULTILINE,
)


class Question(NamedTuple):
    slot: str
    reference: str
    candidate: str


def check_template(template: str, where: str) -> str:
    """Raises Stop 2 unless every placeholder is there."""
    lacking = {"nonce", "reference", "candidate"} - set(PLACEHOLDER.findall(template))
    if lacking:
        raise Stop(f"{where}: the placeholder {{{{{sorted(lacking)[0]}}}}} is missing")
    return template


def neutralise(text: str) -> str:
    """The text with everything a chat template or our fence could take for its own made harmless, visibly."""
    # invisible characters first: they could hide the parts of a token from the patterns
    visible = "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co") else " " for char in text
    )
    visible = CONTROL_TOKEN.sub(lambda match: f"({match[1] or match[2]})", visible)
    return FENCE_RUN.sub(lambda match: {"<": "‹", ">": "›"}[match[0][0]] * len(match[0]), visible)


def fill(template: str, question: Question) -> str:
    """The prompt for one call. Values are put in once: braces and placeholders inside them stay as they are."""
    reference, candidate = neutralise(question.reference), neutralise(question.candidate)
    while (nonce := secrets.token_hex(8)) in reference or nonce in candidate:
        continue
    values = {"slot": neutralise(question.slot), "nonce": nonce, "reference": reference, "candidate": candidate}
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)
