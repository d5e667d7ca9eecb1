"""One exemplar in, an Example or a Reject with a stable reason out. Rows are independent but for duplicates.

normalise -> reduce the page -> check the answer -> ground its values -> pseudonyms; potstill/near.py finds duplicates.
"""

import base64
import json
import re
import unicodedata
from typing import Any

from potstill import grounding, html, near, pii
from potstill.files import canonical_json
from potstill.leaves import place, steps
from potstill.records import Example, Exemplar, Reject
from potstill.tombstones import source_sha256
from potstill.workload import Html, Workload

# reason code -> what it means and what to do; dataset_validation.md prints it
REASONS = {
    "malformed_row": "The row breaks the table's contract; see docs/contracts.md.",
    "taken_down": "The row was taken down (fab dataset.takedown) and must not come back.",
    "no_consent": "metadata.consent is false; the row must not be trained on.",
    "empty_prompt": "There is nothing to answer; drop the row at its source.",
    "prompt_too_large": "The prompt is larger than any page; store the page, not its archive.",
    "page_too_large": "The page is too large to be read; store the page without embedded files.",
    "page_too_deep": "The page nests deeper than a browser allows; it was made to break readers.",
    "too_many_tags": "The page has more elements than a page has; it was made to break readers.",
    "too_many_attributes": "The page has more attributes than a page has; it was made to break readers.",
    "tangled_markup": "The page's tags cross each other so often that reading it takes too long.",
    "no_text": "Nothing readable was left of the page; store it as a browser rendered it.",
    "not_text": "The prompt is no text (binary, or text in another encoding read as UTF-8); store decoded text.",
    "too_costly": "Cleaning the row took too much CPU or memory; look at the row before you trust its source.",
    "invalid_json": "The strong model's answer is not JSON; ask it again or repair it by hand.",
    "schema_violation": "The answer breaks the task's schema; correct the row or the schema.",
    "unknown_slot": "slot_specs names a path the answer's schema does not have.",
    "ungrounded_value": "The raw prompt does not have a value of the answer; the strong model made it up.",
    "pii_in_schema": "The answer is valid only with the personal data in it; loosen the schema or drop the slot.",
    "duplicate": "The same prompt and answer were kept once already.",
    "near_duplicate": "Nearly the same prompt with the same answer was kept once already.",
    "conflicting_answer": "An equal prompt was kept with another answer; decide which is right and delete the other.",
}
# a prompt of more characters is refused before anything is done with it
MAX_PROMPT_CHARS = 20_000_000
# control characters but tab and newline carry nothing a prompt needs, and lone surrogates cannot be encoded
UNWANTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
UNWANTED_ASCII = bytes([*range(9), *range(11, 32), 127])


class Cleaner:
    """Cleans the rows of one workload, each on its own: what a worker process does with a line."""

    def __init__(self, job: Workload, pii_key: bytes):
        self.job = job
        self.pii_key = pii_key

    def clean(self, row: dict[str, Any]) -> dict[str, Any]:
        """An Exemplar's fields -> {"example", "signature"} or {"reject"}; the signature is base64, or null."""
        result = clean_row(self.job, Exemplar.model_validate(row), self.pii_key)
        if isinstance(result, Reject):
            return {"reject": result.model_dump()}
        signature = None
        if self.job.settings.near_duplicates:
            signature = base64.b64encode(near.signature(result.prompt)).decode("ascii")
        return {"example": result.model_dump(), "signature": signature}


def clean_row(job: Workload, row: Exemplar, pii_key: bytes = b"") -> Example | Reject:
    """One exemplar through every step but deduplication. The steps a workload has no settings for are left out."""
    task = job.settings.tasks[row.task]

    def reject(reason: str, detail: str) -> Reject:
        return Reject(id=row.id, task=row.task, stage="clean", reason=reason, detail=detail)

    if row.metadata.get("consent") is False:
        return reject("no_consent", "metadata.consent is false")
    if len(row.prompt_text) > MAX_PROMPT_CHARS:
        return reject("prompt_too_large", f"{len(row.prompt_text)} characters, at most {MAX_PROMPT_CHARS}")
    raw = normalise(row.prompt_text)
    try:
        prompt = reduced(raw, job.settings.html)
    except html.Unreducible as error:
        return reject(error.reason, error.detail)
    if not prompt:
        return reject("empty_prompt", "prompt_text is empty once markup and whitespace are taken away")
    parsed, problem = _parse(row.response_strong)
    if problem:
        return reject("invalid_json", problem)
    answer, problem = job.check(row.task, parsed)
    if answer is None:
        return reject("schema_violation", problem)
    slots = {**task.slots, **(row.slot_specs or {})}
    unknown = sorted(name for name, spec in slots.items() if not _has_path(answer, place(name, spec)))
    if unknown:
        return reject("unknown_slot", f"{unknown[0]} has no place in the answer")
    metadata = dict(row.metadata)
    if job.settings.html:
        metadata["reduction"] = {"raw_chars": len(raw), "reduced_chars": len(prompt)}
    if job.settings.grounding:
        language = metadata.get("language")
        locale = language if isinstance(language, str) else None
        found = grounding.classify(answer, slots, raw, prompt, job.settings.grounding.skip, locale=locale)
        metadata["grounded"] = found
        unfounded = sorted(slot for slot, how in found.items() if how == "unfounded")
        if unfounded and job.settings.grounding.unfounded == "reject":
            return reject("ungrounded_value", f"{', '.join(unfounded)}: not in the raw prompt")
    example = Example(
        id=row.id,
        task=row.task,
        system=normalise(job.system_prompt if row.system_prompt is None else row.system_prompt),
        prompt=prompt,
        response=canonical_json(answer),
        slots=slots,
        metadata=metadata,
        schema_version=job.settings.schema_version,
        source_sha256=source_sha256(row),
    )
    return pseudonymous(job, example, pii_key) if job.settings.pii else example


def reduced(text: str, settings: Html | None) -> str:
    """The prompt of a page: what stands before the first tag and after the last one stays, the page is reduced."""
    place = html.page_place(text) if settings else None
    if settings is None or place is None:
        return text
    start, end = place
    page = html.reduce_html(
        text[start:end],
        settings.budget_tokens,
        keep_attributes=tuple(settings.keep_attributes),
        keep_jsonld=settings.keep_jsonld,
    )
    parts = (text[:start].strip(), normalise(page), text[end:].strip())
    return "\n".join(part for part in parts if part)


def pseudonymous(job: Workload, example: Example, pii_key: bytes) -> Example | Reject:
    """The same pseudonyms in prompt, answer, system text and metadata."""
    settings = job.settings.pii
    assert settings is not None
    texts = [example.prompt, example.response, example.system, canonical_json(example.metadata)]
    spans = pii.find_all(texts, settings.allow, settings.recogniser)
    if not any(spans):
        return example
    prompt, response, system, metadata = pii.replace(texts, spans, pii_key)
    answer, problem = job.check(example.task, json.loads(response))
    if answer is None:
        return Reject(id=example.id, task=example.task, stage="clean", reason="pii_in_schema", detail=problem)
    update = {
        "prompt": prompt,
        "response": canonical_json(answer),
        "system": system,
        # of the prompt alone: the answer repeats it
        "metadata": {**json.loads(metadata), "pii": pii.counts(spans[:1])},
    }
    return example.model_copy(update=update)


def normalise(text: str) -> str:
    """NFC, line ends as \\n, no control characters but newline and tab, no whitespace at line ends or around."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        kept = text.encode().translate(None, UNWANTED_ASCII).decode()
    else:
        kept = UNWANTED.sub("", unicodedata.normalize("NFC", text))
    return "\n".join(line.rstrip() for line in kept.split("\n")).strip()


def _parse(response: str) -> tuple[Any, str]:
    try:
        value = json.loads(response)
        # a log may hold the answer as text inside a JSON string
        return (json.loads(value) if isinstance(value, str) else value), ""
    except ValueError as error:
        return None, f"response_strong is not JSON: {error}"


def _has_path(answer: Any, path: str) -> bool:
    for step in steps(path):
        if step == "[]":
            return isinstance(answer, list)
        if not isinstance(answer, dict) or step not in answer:
            return False
        answer = answer[step]
    return True
