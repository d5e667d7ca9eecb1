"""Reads a samples folder - manifest.yaml, JSONL files by task and by tenant - as exemplars, for any workload.

manifest.yaml:
    system_prompt: common/prompts/system.txt
    tasks: {t1_parse: {files: [t1_parse/train.jsonl, t1_parse/val.jsonl], weight: 1.0}}
    tenants: {timberwolf: {files: {t1_parse: [tenants/timberwolf/t1_parse.jsonl]}, weight: 0.5}}
A weight is how often an entry's rows count in training (potstill/rows.py): 0 leaves the entry out, 2.5 takes every row
twice and half of them once more. A tenant's weight stands for itself, whatever its task's own is.
`read` can be given another manifest, whose paths are relative to the samples folder all the same; one tenant, which
leaves every other tenant out as weight 0 does; and another system text, which takes the place of the manifest's.
A row is {input, output} or {messages, output_json} and may carry id, group (or family) and slice; the output is an
object, or the answer's text, which is passed on as it is. The last user message is the prompt, and a system message
replaces the system text. Rows of a file called val.jsonl get metadata.split = "val".
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from potstill import config
from potstill.config import Config
from potstill.files import canonical_json, sha256_text
from potstill.records import Exemplar, Record, parse_row
from potstill.rows import MAX_WEIGHT
from potstill.stop import DATA, USAGE, Stop

MEND = "Mend the row: want {input, output} or {messages, output_json}."
# the tenant of a build without any
NONE = "none"
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT, allow_inf_nan=False)]


class TaskFiles(Config):
    files: list[str]
    weight: Weight = 1.0


class TenantFiles(Config):
    """`files` by task."""

    files: dict[str, list[str]]
    weight: Weight = 1.0


class Manifest(Config):
    system_prompt: str
    tasks: dict[str, TaskFiles]
    tenants: dict[str, TenantFiles] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_tenant_is_none(self) -> "Manifest":
        if NONE in self.tenants:
            raise ValueError(f"no tenant can be called {NONE}: it stands for a build without tenants")
        return self


class Labels(Record):
    """What a row of either layout may carry. `family` is another word for `group`."""

    id: str | None = None
    group: str | None = None
    family: str | None = None
    slice: str | None = None


class PairRow(Labels):
    input: str
    output: dict[str, Any] | str


class Message(Record):
    role: Literal["system", "user"]
    content: str


class ChatRow(Labels):
    messages: list[Message]
    output_json: dict[str, Any] | str

    @model_validator(mode="after")
    def _has_user(self) -> "ChatRow":
        if all(message.role != "user" for message in self.messages):
            raise ValueError("messages has no message of role 'user'")
        return self


def read(
    samples: Path,
    tasks: Collection[str],
    schema_version: str,
    *,
    manifest: Path | None = None,
    system_prompt: Path | None = None,
    tenant: str | None = None,
) -> Iterator[Exemplar]:
    """Yields the rows of every file in the mix; a row repeated word for word comes once.

    `manifest`: a file other than manifest.yaml of the folder. `system_prompt`: a file whose text takes the place of the
    manifest's, also in rows that repeat the manifest's word for word. `tenant`: the only one in the mix, or "none".

    Raises Stop 65 that names the file, the line, the key and the rule; Stop 2 where the manifest itself or the tenant
    is wrong.
    """
    named_by = manifest or samples / "manifest.yaml"
    listed = config.load(named_by, Manifest)
    usual = _text(samples, listed.system_prompt, named_by).strip()
    other = None if system_prompt is None else _read(system_prompt).strip()
    chosen = _tenants(listed, tenant, named_by)
    seen: dict[str, tuple[str, Exemplar]] = {}
    for file, task, labels in _files(listed.tasks, chosen, named_by, tasks):
        labels["schema_version"] = schema_version
        text = _text(samples, file, named_by)
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            where = f"{samples / file} line {number}"
            exemplar = _exemplar(line, where, task, (usual, other), labels)
            first = seen.setdefault(exemplar.id, (where, exemplar))
            if first[1] is exemplar:
                yield exemplar
            elif first[1] != exemplar:
                raise Stop(f"{where}: id {exemplar.id!r} is already taken by another row, {first[0]}", DATA)


def _tenants(manifest: Manifest, tenant: str | None, named_by: Path) -> dict[str, TenantFiles]:
    """The tenants in the mix. Raises Stop 2 for one that the manifest lacks or leaves out."""
    if tenant is None:
        return manifest.tenants
    if tenant == NONE:
        return {}
    if tenant not in manifest.tenants:
        known = [*sorted(manifest.tenants), NONE]
        hint = config.nearest(tenant, known)
        raise Stop(f"{named_by}: no tenant {tenant!r}.{hint} Known: {', '.join(known)}.", USAGE)
    if not manifest.tenants[tenant].weight:
        raise Stop(f"{named_by}: tenant {tenant!r} has weight 0. Give it a weight, or build with tenant={NONE}.", USAGE)
    return {tenant: manifest.tenants[tenant]}


def _files(
    task_files: dict[str, TaskFiles], tenants: dict[str, TenantFiles], named_by: Path, tasks: Collection[str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every file in the mix with its task and what its rows' metadata have in common."""
    entries = [("", task, item.weight, item.files) for task, item in task_files.items()]
    for tenant, item_of in tenants.items():
        entries += [(tenant, task, item_of.weight, files) for task, files in item_of.files.items()]
    for tenant, task, weight, files in entries:
        if task not in tasks:
            raise Stop(f"{named_by}: no task {task!r}.{config.nearest(task, tasks)}")
        for file in files if weight else ():
            labels = {"tenant": tenant or None, "weight": None if weight == 1 else weight}
            labels["split"] = "val" if Path(file).name == "val.jsonl" else None
            yield file, task, {key: value for key, value in labels.items() if value is not None}


def _text(samples: Path, file: str, named_by: Path) -> str:
    path = samples / file
    if not path.is_file():
        known = [other.relative_to(samples).as_posix() for other in sorted(samples.rglob(f"*{path.suffix}"))]
        named = f"{path} is not there; {named_by} names it."
        raise Stop(f"{named}{config.nearest(file, known)} Restore it or mend the manifest.", DATA)
    return _read(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Stop(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.", DATA) from None


def _exemplar(line: str, where: str, task: str, systems: tuple[str, str | None], labels: dict[str, Any]) -> Exemplar:
    """`systems`: the manifest's system text, and the one that takes its place."""
    usual, other = systems
    system = usual if other is None else other
    row: PairRow | ChatRow
    if _is_chat(line):
        row = parse_row(line, ChatRow, where, MEND)
        prompt = [message.content for message in row.messages if message.role == "user"][-1]
        own = [message.content for message in row.messages if message.role == "system"]
        # a row that repeats the manifest's text has none of its own
        if own and (other is None or own[-1].strip() != usual):
            system = own[-1]
        output = row.output_json
    else:
        row = parse_row(line, PairRow, where, MEND)
        prompt, output = row.input, row.output
    try:
        response = output if isinstance(output, str) else canonical_json(output)
    except ValueError:
        raise Stop(f"{where}: the output holds NaN or Infinity, which is no JSON. Mend the row.", DATA) from None
    metadata = {**labels, "group": row.group or row.family, "slice": row.slice}
    digest = sha256_text(canonical_json([task, labels.get("tenant"), system, prompt, response]))
    return Exemplar(
        id=row.id or f"{task}-{digest[:16]}",
        task=task,
        prompt_text=prompt,
        response_strong=response,
        metadata={key: value for key, value in metadata.items() if value is not None},
        system_prompt=system,
    )


def _is_chat(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False  # parse_row says what is wrong with it
    return isinstance(row, dict) and "messages" in row
