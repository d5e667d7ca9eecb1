"""One exemplar in, an Example or a Reject with a stable reason out. Rows are independent but for duplicates."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from potstill.files import canonical_json, sha256_text
from potstill.records import Example, Exemplar, Reject
from potstill.workload import Workload

# reason code -> what it means and what to do; dataset_validation.md prints it
REASONS = {
    "malformed_row": "The row breaks the table's contract; see docs/contracts.md.",
    "no_consent": "metadata.consent is false; the row must not be trained on.",
    "empty_prompt": "There is nothing to answer; drop the row at its source.",
    "invalid_json": "The strong model's answer is not JSON; ask it again or repair it by hand.",
    "schema_violation": "The answer breaks the task's schema; correct the row or the schema.",
    "unknown_slot": "slot_specs names a path the answer's schema does not have.",
    "duplicate": "The same prompt and answer were kept once already.",
    "conflicting_answer": "An equal prompt was kept with another answer; decide which is right and delete the other.",
}


def clean(job: Workload, rows: Iterable[Exemplar | Reject]) -> Iterator[Example | Reject]:
    """Yields one record for every row: rows in = kept + rejected."""
    seen: dict[str, tuple[str, str]] = {}
    for row in rows:
        yield row if isinstance(row, Reject) else _unseen(clean_row(job, row), seen)


def clean_row(job: Workload, row: Exemplar) -> Example | Reject:
    task = job.settings.tasks[row.task]

    def reject(reason: str, detail: str) -> Reject:
        return Reject(id=row.id, task=row.task, stage="clean", reason=reason, detail=detail)

    if row.metadata.get("consent") is False:
        return reject("no_consent", "metadata.consent is false")
    prompt = normalise(row.prompt_text)
    if not prompt:
        return reject("empty_prompt", "prompt_text is empty once whitespace is trimmed")
    parsed, problem = _parse(row.response_strong)
    if problem:
        return reject("invalid_json", problem)
    answer, problem = job.check(row.task, parsed)
    if answer is None:
        return reject("schema_violation", problem)
    slots = {**task.slots, **(row.slot_specs or {})}
    unknown = sorted(path for path in slots if not _has_path(answer, path))
    if unknown:
        return reject("unknown_slot", f"{unknown[0]} is no path in the answer")
    return Example(
        id=row.id,
        task=row.task,
        system=normalise(job.system_prompt if row.system_prompt is None else row.system_prompt),
        prompt=prompt,
        response=canonical_json(answer),
        slots=slots,
        metadata=row.metadata,
        schema_version=job.settings.schema_version,
        source_sha256=sha256_text(canonical_json([row.system_prompt, row.prompt_text, row.response_strong])),
    )


def normalise(text: str) -> str:
    """NFC, line ends as \\n, no control characters but newline and tab, no whitespace at line ends or around."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    # lone surrogates cannot be encoded and control characters carry nothing a prompt needs
    kept = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    return "\n".join(line.rstrip() for line in kept.split("\n")).strip()


def _parse(response: str) -> tuple[Any, str]:
    try:
        value = json.loads(response)
        # a log may hold the answer as text inside a JSON string
        return (json.loads(value) if isinstance(value, str) else value), ""
    except ValueError as error:
        return None, f"response_strong is not JSON: {error}"


def _has_path(answer: Any, path: str) -> bool:
    for step in path.split("."):
        if step.endswith("[]"):
            return isinstance(answer, dict) and step[:-2] in answer
        if not isinstance(answer, dict) or step not in answer:
            return False
        answer = answer[step]
    return True


def _unseen(result: Example | Reject, seen: dict[str, tuple[str, str]]) -> Example | Reject:
    """Rejects a second row with the same task, system text and prompt. `seen` keeps hashes, not texts."""
    if isinstance(result, Reject):
        return result
    key = sha256_text(canonical_json([result.task, result.system, result.prompt]))
    answer = sha256_text(result.response)
    if key not in seen:
        seen[key] = (result.id, answer)
        return result
    first, first_answer = seen[key]
    same = answer == first_answer
    return Reject(
        id=result.id,
        task=result.task,
        stage="dedupe",
        reason="duplicate" if same else "conflicting_answer",
        detail=f"{'equal to' if same else 'same prompt as'} {first}",
    )
