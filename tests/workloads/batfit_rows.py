"""What the tests of BatFit share: its committed samples as exemplars, and a search for whole words."""

import os
import re
from functools import cache

from potstill import grammar
from potstill.records import Exemplar
from potstill.workloads import batfit
from potstill.workloads.batfit_schema import Context
from projects import REPO

# a developer's own overrides are no part of a test
for name in ("DATA_DIR", "MANIFEST", "SYSTEM_PROMPT", "BASE_MODEL"):
    os.environ.pop(f"BATFIT_{name}", None)

SAMPLES = REPO / "data/samples/batfit"
BOOK = grammar.load(SAMPLES / "grammar.yaml")
NOTHING = {
    "context": dict.fromkeys(Context.model_fields),
    "interaction": {"asked": [], "skipped": [], "why_next_question": None},
}


@cache
def samples() -> list[Exemplar]:
    return list(batfit.convert(SAMPLES))


def talks(**wanted: str) -> list[Exemplar]:
    rows = [row for row in samples() if row.task == "t1_parse"]
    return [row for row in rows if all(row.metadata.get(key) == value for key, value in wanted.items())]


def answer(**changes) -> dict:
    return {part: {**NOTHING[part], **{k: v for k, v in changes.items() if k in NOTHING[part]}} for part in NOTHING}


def says(text: str, phrase: str) -> bool:
    """Whether `phrase` stands in `text` as whole words."""
    text, phrase = text.casefold(), phrase.casefold()
    # the plain search spares nearly every regular expression
    return phrase in text and re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text) is not None
