"""What a package is made of and made from: manifest.json, and the check that a folder is still that package.

The manifest is the last file of a package but for its signature (potstill/signing.py), and its bytes are one canonical
form, so any changed byte shows. potstill/contents.py says what other files may be, docs/signing.md explains it all.
"""

import json
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from potstill import contents, shown, signing, tree
from potstill.files import sha256_file, sha256_text, write_text
from potstill.headers import BadHeader, strict_json
from potstill.project import reports
from potstill.records import Record, explain
from potstill.runs import RunRecord

NAME = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 2**20
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
        # both can hold what somebody wrote into a file to be shown on a terminal
        return f"{shown.line(self.path)}: {shown.line(self.what)}"


def write(package: Path, **values: Any) -> Manifest:
    """Hashes every file of `package` and writes its manifest.json; `values` are the other keys of Manifest."""
    files = {}
    for path in sorted(p for p in package.rglob("*") if p.is_file() and p.name not in (NAME, signing.NAME)):
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


def verify(package_dir: Path, public_key: Path | None = None) -> list[Problem]:
    """Every way in which a folder is not the package its manifest describes; empty when it is whole.

    With `public_key` (PEM) it must also be signed with its private half; without, a signature's author is not asked.
    Reads nothing outside the folder, follows no link, and executes nothing.
    """
    package, public_key = Path(package_dir), Path(public_key) if public_key else None
    if package.is_symlink() or not package.is_dir():
        return [Problem(package.name, "the package is not a folder. Run fab package.export")]
    if public_key:
        signing.load_public(public_key)
    manifest, problems = _read(package)
    if manifest is None:
        return problems
    present, odd = tree.walk(package)
    problems += [Problem(name, what) for name, what in odd]
    sha256: dict[str, str] = {}
    for name, wanted in manifest.files.items():
        if not _is_inside(name):
            problems.append(Problem(NAME, f"lists {name!r}, which is no path inside the package"))
        elif name not in present:
            if name not in {path for path, _ in odd}:
                problems.append(Problem(name, "is missing"))
        elif present[name].stat().st_size != wanted.bytes:
            problems.append(Problem(name, f"has {present[name].stat().st_size} bytes, want {wanted.bytes}"))
        else:
            sha256[name] = sha256_file(present[name])
            if sha256[name] != wanted.sha256:
                problems.append(Problem(name, "was changed: its sha256 is not the manifest's"))
    others = sorted(set(present) - {NAME, signing.NAME})
    problems += [Problem(name, "is not in the manifest") for name in others if name not in manifest.files]
    # a file that was not hashed has a problem already, and is none that a signature could mean
    signed = {name: sha256.get(name, "") for name in others} | {NAME: sha256_file(package / NAME)}
    problems += [Problem(signing.NAME, what) for what in signing.check(package, signed, public_key)]
    return problems + _check_contents({name: present[name] for name in others}, sha256, manifest, not problems)


def cannot_replace(package: Path, installed: Path) -> list[Problem]:
    """Why `package` must not take the place of `installed`: it is another workload's, or of an earlier run.

    An old package is validly signed for ever; this is what keeps it from being put back. An equal one is allowed.
    """
    (new, problems), (old, more) = _read(Path(package)), _read(Path(installed))
    problems += [Problem(f"{installed}/{problem.path}", problem.what) for problem in more]
    if new is None or old is None or problems:
        return problems
    if new.run.workload != old.run.workload:
        return [Problem(NAME, f"is of workload {new.run.workload!r}, the installed one of {old.run.workload!r}")]
    try:
        earlier = datetime.fromisoformat(new.run.created_at) < datetime.fromisoformat(old.run.created_at)
    except (ValueError, TypeError):  # TypeError: one has a time zone and the other has none
        return [Problem(NAME, "has a created_at that cannot be compared with the installed package's")]
    if earlier:
        said = f"run {new.run.run} ({new.run.created_at}) is older than {old.run.run} ({old.run.created_at})"
        return [Problem(NAME, f"{said}, which is installed")]
    return []


def read(package: Path) -> Manifest | None:
    """The manifest as it is, checked by nothing but its schema; None when it cannot be read."""
    return _read(Path(package))[0]


def _read(package: Path) -> tuple[Manifest | None, list[Problem]]:
    path = package / NAME
    if not path.exists() and not path.is_symlink():
        return None, [Problem(NAME, "is missing, so the package is not whole")]
    if not stat.S_ISREG(path.lstat().st_mode) or path.lstat().st_size > MAX_MANIFEST_BYTES:
        return None, [Problem(NAME, "is no regular file of a believable size")]
    data = path.read_bytes()
    try:
        manifest = Manifest.model_validate(strict_json(data))
        text = _text(manifest)
    except ValidationError as error:
        return None, [Problem(NAME, explain(error))]
    except BadHeader as error:
        return None, [Problem(NAME, str(error))]
    if data != text.encode("utf-8", "surrogatepass") or manifest.sha256 != _own_sha256(manifest):
        return manifest, [Problem(NAME, "was changed: it does not have the sha256 it states")]
    return manifest, []


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    plain = name == str(path) and all(tree.PLAIN_NAME.fullmatch(part) for part in path.parts)
    return plain and name not in ("", ".", NAME, signing.NAME)


def _check_contents(
    files: dict[str, Path], sha256: dict[str, str], manifest: Manifest, believable: bool
) -> list[Problem]:
    problems, whole = [], None
    # every artifact in Hugging Face's format has the same tokenizer.json, which takes seconds to read
    known: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for name, path in files.items():
        key = (path.name, sha256.get(name, name))
        if path.suffix != ".json" or key not in known:
            known[key] = contents.check(name, path)
        wrong, templates = known[key]
        problems += [Problem(name, what) for what in wrong]
        for template in templates:
            if sha256_text(template) != manifest.chat_template_sha256:
                problems.append(Problem(name, "has another chat template than the manifest"))
            else:
                # all that have the manifest's sha256 are this one
                whole = name, template
    if whole is None:
        return [*problems, Problem(NAME, "names a chat template that no file of the package has")]
    # libraries read only what has passed every check of ours
    if problems or not believable:
        return problems
    if what := contents.template_problem(whole[1], with_system=manifest.system_sha256 is not None):
        problems.append(Problem(whole[0], f"its chat template {what}"))
    said = [(name, contents.pieces_problem(path)) for name, path in files.items() if path.suffix.lower() == ".model"]
    return problems + [Problem(name, what) for name, what in said if what]


def _text(manifest: Manifest) -> str:
    return json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False) + "\n"


def _own_sha256(manifest: Manifest) -> str:
    return sha256_text(_text(manifest.model_copy(update={"sha256": ""})))
