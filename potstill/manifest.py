"""What a package is made of and made from: manifest.json, and the check that a folder is still that package.

The manifest is the last file of a package, and its bytes are one canonical form, so any changed byte shows.
"""

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from potstill import headers
from potstill.files import sha256_file, sha256_text, write_text
from potstill.project import reports
from potstill.records import Record, explain
from potstill.runs import RunRecord

NAME = "manifest.json"
MAX_JSON_BYTES = 64 * 2**20
# everything else, first of all pickles and code, has no place in a package
SUFFIXES = {".safetensors", ".gguf", ".json", ".jinja", ".model", ".md", ".txt"}
BARE_NAMES = {"Modelfile", "NOTICE", "LICENSE"}
SCORES = ("n", "json_validity", "schema_validity", "slot_accuracy", "perfect_records")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class File(Record):
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Scores(Record):
    """The judge's summary, from reports/<run>/report.json. A key is null when the report had none."""

    report_sha256: Sha256
    n: int | None
    json_validity: float | None
    schema_validity: float | None
    slot_accuracy: float | None
    perfect_records: float | None
    verdict: str | None


class Manifest(Record):
    """`run` carries base model and revision, snapshot checksums, git commit and lock hash.

    `runtimes` says per artifact which runtime loads it, and how. `files` has every other file of the package, by its
    path inside it.
    """

    manifest_version: Literal[1]
    run: RunRecord
    train_config: dict[str, Any]
    scores: Scores | None
    licence: str
    num_ctx: int
    chat_template_sha256: Sha256
    system_sha256: Sha256 | None
    runtimes: dict[str, dict[str, str]]
    files: dict[str, File]
    # of this manifest without this key
    sha256: Sha256


@dataclass(frozen=True)
class Problem:
    """`path` inside the package."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def write(package: Path, **values: Any) -> Manifest:
    """Hashes every file of `package` and writes its manifest.json; `values` are the other keys of Manifest."""
    files = {}
    for path in sorted(p for p in package.rglob("*") if p.is_file() and p != package / NAME):
        name = path.relative_to(package).as_posix()
        files[name] = File(sha256=sha256_file(path), bytes=path.stat().st_size)
    made = Manifest(manifest_version=1, files=files, sha256="0" * 64, **values)
    made = made.model_copy(update={"sha256": _own_sha256(made)})
    write_text(package / NAME, _text(made))
    return made


def read_scores(run: str) -> Scores | None:
    """The scores of a run's report, or None when it has not been judged."""
    path = reports(run) / "report.json"
    if not path.is_file():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    values: dict[str, Any] = {key: None if report.get(key) is None else float(report[key]) for key in SCORES}
    values["n"] = report.get("n")
    verdict = (report.get("gate") or {}).get("verdict")
    return Scores(report_sha256=sha256_file(path), verdict=verdict, **values)


def verify(package_dir: Path) -> list[Problem]:
    """Every way in which a folder is not the package its manifest describes; empty when it is whole.

    Reads nothing outside the folder, follows no link, and executes nothing.
    """
    package = Path(package_dir)
    if package.is_symlink() or not package.is_dir():
        return [Problem(package.name, "the package is not a folder. Run fab package.export")]
    manifest, problems = _read(package)
    if manifest is None:
        return problems
    present, odd = _walk(package)
    problems += odd
    for name, wanted in manifest.files.items():
        if not _is_inside(name):
            problems.append(Problem(NAME, f"lists {name!r}, which is no path inside the package"))
        elif name not in present:
            if not any(p.path == name for p in odd):
                problems.append(Problem(name, "is missing"))
        elif present[name].stat().st_size != wanted.bytes:
            problems.append(Problem(name, f"has {present[name].stat().st_size} bytes, want {wanted.bytes}"))
        elif sha256_file(present[name]) != wanted.sha256:
            problems.append(Problem(name, "was changed: its sha256 is not the manifest's"))
    unknown = sorted(set(present) - {NAME} - set(manifest.files))
    problems += [Problem(name, "is not in the manifest") for name in unknown]
    for name in sorted(set(present) - {NAME}):
        problems += _check_content(name, present[name], manifest.chat_template_sha256)
    return problems


def _read(package: Path) -> tuple[Manifest | None, list[Problem]]:
    path = package / NAME
    if not path.exists() and not path.is_symlink():
        return None, [Problem(NAME, "is missing, so the package is not whole")]
    if not stat.S_ISREG(path.lstat().st_mode) or path.lstat().st_size > MAX_JSON_BYTES:
        return None, [Problem(NAME, "is no regular file of a believable size")]
    try:
        text = path.read_text(encoding="utf-8")
        manifest = Manifest.model_validate(json.loads(text))
    except ValidationError as error:
        return None, [Problem(NAME, explain(error))]
    except (ValueError, RecursionError):
        return None, [Problem(NAME, "is not JSON")]
    if text != _text(manifest) or manifest.sha256 != _own_sha256(manifest):
        return manifest, [Problem(NAME, "was changed: it does not have the sha256 it states")]
    return manifest, []


def _walk(package: Path) -> tuple[dict[str, Path], list[Problem]]:
    """Regular files by their path inside the package, and a problem for everything that is neither file nor folder."""
    present: dict[str, Path] = {}
    problems = []
    for folder, folders, names in os.walk(package, followlinks=False):
        for name in sorted(folders + names):
            path = Path(folder) / name
            inside = path.relative_to(package).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                problems.append(Problem(inside, "is a symbolic link; a package has none"))
            elif stat.S_ISREG(mode):
                present[inside] = path
            elif not stat.S_ISDIR(mode):
                problems.append(Problem(inside, "is no regular file"))
    return present, problems


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    plain = name == str(path) and not re.search(r"[\x00-\x1f\\:]", name)
    return plain and not path.is_absolute() and ".." not in path.parts and name not in (".", NAME)


def _check_content(name: str, path: Path, template_sha256: str) -> list[Problem]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and path.name not in BARE_NAMES:
        return [Problem(name, f"is a {suffix or 'bare'} file; a package has only weights, tokenizer and text files")]
    try:
        if suffix == ".safetensors":
            headers.read_safetensors(path)
        elif suffix == ".gguf":
            template = headers.read_gguf(path)[0].get("tokenizer.chat_template")
            if not isinstance(template, str) or sha256_text(template) != template_sha256:
                return [Problem(name, "has another chat template than the manifest")]
        elif suffix == ".json":
            return [Problem(name, what) for what in _json_problems(path, template_sha256)]
        elif suffix == ".jinja" and sha256_file(path) != template_sha256:
            return [Problem(name, "is another chat template than the manifest's")]
        elif _looks_pickled(path):
            return [Problem(name, "starts like a pickle or an archive")]
    except headers.BadHeader as error:
        return [Problem(name, str(error))]
    return []


def _json_problems(path: Path, template_sha256: str) -> list[str]:
    if path.stat().st_size > MAX_JSON_BYTES:
        return ["is larger than any file of a tokenizer or a config"]
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return ["is not JSON"]
    problems = ["names code to run (auto_map); that is refused"] if _has_key(value, "auto_map") else []
    template = value.get("chat_template") if isinstance(value, dict) else None
    if template is not None and (not isinstance(template, str) or sha256_text(template) != template_sha256):
        problems.append("has another chat template than the manifest")
    return problems


def _has_key(value: Any, key: str) -> bool:
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            if key in item:
                return True
            rest += item.values()
        elif isinstance(item, list):
            rest += item
    return False


def _looks_pickled(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(4)
    return start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _text(manifest: Manifest) -> str:
    return json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False) + "\n"


def _own_sha256(manifest: Manifest) -> str:
    return sha256_text(_text(manifest.model_copy(update={"sha256": ""})))
