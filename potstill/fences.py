"""The judge's prompt: hostile texts are neutralised, then fenced with a code that is new in every call.

The prompt is a text file with the placeholders {{slot}}, {{nonce}}, {{reference}} and {{candidate}}; in the pairwise
prompt {{first}} and {{second}} stand in place of {{candidate}}.
"""

import re
import secrets
import unicodedata
from typing import NamedTuple

from potstill.stop import Stop

PLACEHOLDER = re.compile(r"\{\{(slot|nonce|reference|candidate|first|second)\}\}")
# chat-template tokens of Gemma, ChatML, Llama and Mistral
CONTROL_TOKEN = re.compile(
    r"<(/?(?:start_of_turn|end_of_turn|start_of_image|bos|eos|pad|unk|mask|s)|\|[^<>|\n]{1,40}\|)>|\[(/?INST)\]",
    re.IGNORECASE,
)
# letters and marks that no font draws (Unicode, Default_Ignorable_Code_Point): a text can be hidden in them
HIDDEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
FENCE_RUN = re.compile(r"<{2,}|>{2,}")
FENCED = re.compile(
    r"^<<<REFERENCE (?P<nonce>[0-9a-f]{16})>>>\n(?P<reference>.*?)\n<<<END REFERENCE (?P=nonce)>>>$"
    r".*?^<<<CANDIDATE (?P=nonce)>>>\n(?P<candidate>.*?)\n<<<END CANDIDATE (?P=nonce)>>>$",
    re.DOTALL | re.MULTILINE,
)
FENCED_PAIR = re.compile(
    r"^<<<REFERENCE (?P<nonce>[0-9a-f]{16})>>>\n(?P<reference>.*?)\n<<<END REFERENCE (?P=nonce)>>>$"
    r".*?^<<<CANDIDATE A (?P=nonce)>>>\n(?P<first>.*?)\n<<<END CANDIDATE A (?P=nonce)>>>$"
    r".*?^<<<CANDIDATE B (?P=nonce)>>>\n(?P<second>.*?)\n<<<END CANDIDATE B (?P=nonce)>>>$",
    re.DOTALL | re.MULTILINE,
)


class Question(NamedTuple):
    """How close is the candidate to the reference?"""

    slot: str
    reference: str
    candidate: str


class PairQuestion(NamedTuple):
    """Which of two candidates is closer to the reference?"""

    slot: str
    reference: str
    first: str
    second: str


def check_template(template: str, where: str, kind: type[Question] | type[PairQuestion] = Question) -> str:
    """Raises Stop 2 unless every placeholder that the kind of question needs is there."""
    lacking = {"nonce", *kind._fields} - {"slot"} - set(PLACEHOLDER.findall(template))
    if lacking:
        raise Stop(f"{where}: the placeholder {{{{{sorted(lacking)[0]}}}}} is missing")
    return template


def neutralise(text: str) -> str:
    """The text with everything a chat template or our fence could take for its own made harmless, visibly."""
    # invisible characters first: they could hide the parts of a token from the patterns
    visible = "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn") else " "
        for char in HIDDEN.sub(" ", text)
    )
    visible = CONTROL_TOKEN.sub(lambda match: f"({match[1] or match[2]})", visible)
    return FENCE_RUN.sub(lambda match: {"<": "‹", ">": "›"}[match[0][0]] * len(match[0]), visible)


def fill(template: str, question: Question | PairQuestion) -> str:
    """The prompt for one call. Values are put in once: braces and placeholders inside them stay as they are."""
    values = {name: neutralise(text) for name, text in question._asdict().items()}
    while any((nonce := secrets.token_hex(8)) in text for text in values.values()):
        continue
    return PLACEHOLDER.sub(lambda match: nonce if match[1] == "nonce" else values.get(match[1], match[0]), template)
