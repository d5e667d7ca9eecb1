"""Captured pages as exemplars: a folder of *.jsonl, one page a line.

    {"id": ..., "url": ..., "task": "productpage", "html": ..., "response": {...}, "metadata": {...}}

`id` is left out where the address of the page will do. A page without a `response` has not been answered yet: it is
counted and left out. Lists of an answer that are longer than the schema allows are cut: the first ones of a page count.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from potstill.files import canonical_json, sha256_text
from potstill.records import Exemplar, Record, read_jsonl
from potstill.stop import DATA, Stop

MEND = 'Mend the line: want {"url", "task", "html", "response"}; see docs/workloads/blazed_deals.md.'


class Capture(Record):
    """One line of a file. `html` is the page as the browser or the crawler got it, decoded."""

    id: str | None = None
    url: str
    task: str
    html: str
    response: dict[str, Any] | str | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def of(cls, exemplar: Exemplar) -> "Capture":
        """The capture that `read` turns into the exemplar."""
        metadata = {
            key: value for key, value in exemplar.metadata.items() if key not in ("source_url", "schema_version")
        }
        return cls(
            id=exemplar.id,
            url=exemplar.metadata["source_url"],
            task=exemplar.task,
            html=exemplar.prompt_text.removeprefix(framed(exemplar.task, "")),
            response=json.loads(exemplar.response_strong),
            metadata=metadata,
        )


def framed(task: str, html: str) -> str:
    """The prompt of a page: the task's name on a line before it, which dataset.clean leaves as it is."""
    return f"{task}\n{html}"


def read(folder: Path, schemas: Mapping[str, type[BaseModel]], schema_version: str) -> Iterator[Exemplar]:
    """Yields the answered pages of a folder, file by file, and says on stderr how many others there are.

    Raises Stop 65, naming the file and the line: an unknown task, an address without a host, an id that is there twice,
    no answered page at all.
    """
    files = sorted(folder.glob("*.jsonl"))
    seen: dict[str, str] = {}
    kept = unanswered = 0
    for path in files:
        for number, capture in enumerate(read_jsonl(path, Capture, MEND), 1):
            where = f"{path} page {number}"
            exemplar = _exemplar(capture, where, schemas, schema_version)
            if (first := seen.setdefault(exemplar.id, where)) != where:
                raise Stop(f"{where}: id {exemplar.id!r} is already taken by {first}. Give one of them another.", DATA)
            if capture.response is None:
                unanswered += 1
                continue
            kept += 1
            yield exemplar
    if unanswered:
        print(f"blazed_deals: {unanswered:,} pages without a response left out", file=sys.stderr)
    if not kept:
        raise Stop(f"{folder}: {len(files)} *.jsonl with {unanswered} pages, none with a response. {MEND}", DATA)


def _exemplar(capture: Capture, where: str, schemas: Mapping[str, type[BaseModel]], schema_version: str) -> Exemplar:
    if capture.task not in schemas:
        raise Stop(f"{where}: no task {capture.task!r}, want one of {', '.join(sorted(schemas))}. {MEND}", DATA)
    try:
        domain = urlsplit(capture.url).hostname
    except ValueError:
        domain = None
    if not domain:
        raise Stop(f"{where}: url is no address with a host. {MEND}", DATA)
    answer = _parsed(capture.response)
    page_type = answer.get("page_type") if isinstance(answer, dict) else None
    if isinstance(answer, dict):
        try:
            answer = canonical_json(cut(answer, schemas[capture.task]))
        except ValueError:
            raise Stop(f"{where}: the response holds NaN or Infinity, which is no JSON. {MEND}", DATA) from None
    own = {"source_url": capture.url, "domain": domain.removeprefix("www."), "schema_version": schema_version}
    own["page_type"] = "product" if capture.task == "productpage" else str(page_type)
    return Exemplar(
        id=capture.id or f"{capture.task}-{sha256_text(capture.url)[:16]}",
        task=capture.task,
        prompt_text=framed(capture.task, whole(capture.html)),
        response_strong=answer,
        metadata={**own, **(capture.metadata or {})},
    )


def whole(html: str) -> str:
    """The page with "?" for halves of characters: JSON can hold them, a database cannot."""
    return html.encode("utf-8", "replace").decode("utf-8")


def _parsed(response: dict[str, Any] | str | None) -> dict[str, Any] | str:
    """An answer that was logged as text, as the object in it; dataset.clean says what is wrong with any other text."""
    if isinstance(response, str):
        try:
            found = json.loads(response)
        except ValueError:
            return response
        return found if isinstance(found, dict) else response
    return response or {}


def cut(answer: dict[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """The answer with its lists no longer than the schema allows."""
    most = {
        key: item.max_length
        for key, field in schema.model_fields.items()
        for item in field.metadata
        if hasattr(item, "max_length")
    }
    return {
        key: value[: most[key]] if key in most and isinstance(value, list) else value for key, value in answer.items()
    }
