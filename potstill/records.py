"""The rows that pass between stages (docs/contracts.md), checked whenever they are read.

A file is an interface: an unknown, missing or wrong key is an error that names the file, the line and the key.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from potstill.files import atomic_open
from potstill.stop import DATA, Stop


class Record(BaseModel):
    # an offending value can be personal data or a secret, so errors name the key and the rule only
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


# how texts are made alike before they are compared, in this order (potstill/rules.py)
Step = Literal["text", "unicode", "lower", "punctuation", "articles", "space", "nospace"]


# an option that is not given is not written either: rows without it stay as they were, byte by byte
def _is_unset(value: Any) -> bool:
    return not value


_OMIT: Any = {"exclude_if": _is_unset}


class KeyAlign(Record):
    """List items are the same item when the value at `key` inside them is; `key` is a dotted path."""

    key: str
    normalise: list[Step] = Field(default_factory=list)


Align = Literal["index", "best"] | KeyAlign


class SlotSpec(Record):
    """How one leaf of the answer is scored. `tolerance` is in the slot's own unit. docs/slots.md explains every key.

    `path` is where the leaf is, when that is not the slot's own name: several slots may look at one leaf, and "." is
    the whole answer.
    """

    level: str
    path: str | None = None
    tolerance: float | None = None
    threshold: float | None = None
    critical: bool = False
    relative_tolerance: Annotated[float | None, Field(ge=0, allow_inf_nan=False, **_OMIT)] = None
    type: Annotated[Literal["number", "price", "date"] | None, Field(**_OMIT)] = None
    # a fixed one ("de", "en-GB"), or "metadata.<key>": what the row says of itself
    locale: Annotated[str | None, Field(**_OMIT)] = None
    normalise: list[Step] = Field(default_factory=list, exclude_if=_is_unset)
    # what counts as null: absent keys, or absent keys and empty texts, lists and objects
    nulls: Annotated[Literal["absent", "empty"] | None, Field(**_OMIT)] = None
    multiplicity: Annotated[bool, Field(**_OMIT)] = False
    partial: Annotated[Literal["f1", "jaccard", "precision", "recall"] | None, Field(**_OMIT)] = None
    # one for every [] of the path, or a list of one each
    align: Annotated[Align | list[Align] | None, Field(**_OMIT)] = None

    @model_validator(mode="after")
    def _options_fit_the_level(self) -> "SlotSpec":
        for name in self.model_fields_set & _LEVELS_WITH.keys():
            if getattr(self, name) and self.level not in _LEVELS_WITH[name]:
                raise ValueError(f"{name} is an option of {', '.join(_LEVELS_WITH[name])}, not of {self.level}")
        if self.type == "date" and self.level == "numeric_tol":
            raise ValueError("numeric_tol reads type number or price; a date is level date_norm")
        if self.locale and not self.type and self.level != "date_norm":
            raise ValueError(f"{self.level} reads a locale only with type number or price")
        return self


_SIX = ("exact", "substring", "numeric_tol", "set_match", "date_norm", "llm_similarity")
_LEVELS_WITH = {
    "relative_tolerance": ("numeric_tol",),
    "type": ("numeric_tol", "set_match"),
    "locale": ("numeric_tol", "set_match", "date_norm"),
    "normalise": ("exact", "substring", "set_match"),
    "nulls": _SIX,
    "multiplicity": ("set_match",),
    "partial": ("set_match",),
}


class Exemplar(Record):
    """One logged strong-model call: a row of the DuckDB table `examples`."""

    id: str
    task: str
    prompt_text: str
    response_strong: str
    metadata: dict[str, Any] = {}
    slot_specs: dict[str, SlotSpec] | None = None
    system_prompt: str | None = None


class Example(Record):
    """A cleaned exemplar: one line of clean.jsonl or of a snapshot."""

    id: str
    task: str
    system: str
    prompt: str
    response: str
    slots: dict[str, SlotSpec]
    metadata: dict[str, Any]
    schema_version: str
    source_sha256: str


class Reject(Record):
    id: str
    task: str
    stage: str
    reason: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    detail: str


class Prediction(Record):
    """One answer of a model. `output` is the text as generated; `parsed` the object in it, repaired if need be."""

    id: str
    task: str
    output: str
    parsed: Any
    valid_json: bool
    valid_schema: bool
    repaired: bool
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    finish_reason: Literal["stop", "length", "error"]
    backend: str


class Verdict(Record):
    """The score of one slot of one answer. An error is never a zero: its score and passed are null."""

    id: str
    task: str
    slot: str
    level: str
    reference: Any
    candidate: Any
    score: float | None
    passed: bool | None
    status: Literal["scored", "error"]
    judge: str
    reason: str
    cached: bool
    cost_usd: float


R = TypeVar("R", bound=BaseModel)


def explain(error: ValidationError) -> str:
    """One line: every offending key with the rule it broke, never the value."""
    parts = []
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(step) for step in item["loc"]) or "the row"
        parts.append(f"{key}: {item['msg']}")
    return "; ".join(parts)


def parse_row(line: str, model: type[R], where: str, mend: str) -> R:
    """Parses one JSON line. Raises Stop 65 that names `where`, the key and the rule, and ends with `mend`."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise Stop(f"{where}: not JSON ({error}). {mend}", DATA) from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Stop(f"{where}: {explain(error)}. {mend}", DATA) from None


def read_jsonl(path: Path, model: type[R], mend: str = "Run the stage that writes it again.") -> Iterator[R]:
    """Streams the rows of a JSONL file. Raises Stop 65 when it is missing or a row breaks the contract."""
    path = Path(path)
    if not path.is_file():
        raise Stop(f"{path} is not there. {mend}", DATA)
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield parse_row(line, model, f"{path} line {number}", mend)


def write_jsonl(path: Path, rows: Iterable[BaseModel]) -> int:
    """Writes rows as JSON lines, whole or not at all; returns how many."""
    count = 0
    with atomic_open(path) as file:
        for row in rows:
            file.write(row.model_dump_json() + "\n")
            count += 1
    return count
