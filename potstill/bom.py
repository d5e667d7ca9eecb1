"""Writes bom.cdx.json: what a package's model was made from and with, a bill of materials in CycloneDX 1.6.

The model with its weights' hashes, its base, the snapshot it learned from, and every package of the lock. No time and
no random serial number: the same package gives the same bytes. cyclonedx-python-lib 11 knows no model card, so that
part is written here, after the schema.
"""

import importlib.metadata
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import project
from potstill.files import sha256_file, write_text
from potstill.runs import RunRecord

NAME = "bom.cdx.json"
WEIGHTS = {".safetensors", ".gguf"}
REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# its builds for CPU, CUDA and ROCm cannot share a hashed lock, so it is installed before the lock (README)
APART = "torch"
METRICS = ("slot_accuracy", "perfect_records", "json_validity", "schema_validity")


def write(package: Path, record: RunRecord, licence: str, scores: Any = None, lock: Path = project.LOCK) -> Path:
    """Describes every weights file that `package` holds by now, so it is written just before the manifest.

    `scores` is manifest.Scores or None. Without a `lock` at that path the document says so and lists no library of it.
    """
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    outputter = make_outputter(_document(package, record, licence, lock), OutputFormat.JSON, SchemaVersion.V1_6)
    values = json.loads(outputter.output_as_string())
    # the library always writes the time of day; the run's own is in the manifest
    del values["metadata"]["timestamp"]
    del values["serialNumber"]
    values["metadata"]["component"]["modelCard"] = model_card(record, scores)
    values["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(values, sort_keys=True)).urn
    # compact: the lock has thousands of hashes
    write_text(package / NAME, json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n")
    return package / NAME


def requirements(lock: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Name, version and sha256 of every accepted file of each package that a hashed lock pins."""
    found: tuple[str, str, list[str]] | None = None
    for line in lock.read_text(encoding="utf-8").splitlines():
        if match := REQUIREMENT.match(line):
            if found:
                yield found
            found = match[1], match[2], []
        elif found:
            found[2].extend(HASH.findall(line))
    if found:
        yield found


def model_card(record: RunRecord, scores: Any) -> dict[str, Any]:
    """CycloneDX's modelCard: how it learned, from what, and what the report measured."""
    limits = ["It was trained for this one job; anything else it is asked has never been graded."]
    card: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": record.workload,
            "architectureFamily": "transformer",
            "modelArchitecture": "Gemma 3",
            "datasets": [{"ref": f"data:{split}"} for split in record.snapshots],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "considerations": {"technicalLimitations": limits},
    }
    measured = [(key, getattr(scores, key, None)) for key in METRICS]
    if metrics := [{"type": key, "value": str(value)} for key, value in measured if value is not None]:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card


def _document(package: Path, record: RunRecord, licence: str, lock: Path) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType

    def sha256(digest: str) -> HashType:
        return HashType(alg=HashAlgorithm.SHA_256, content=digest)

    files = sorted(path for path in package.rglob("*") if path.suffix in WEIGHTS)
    named = [(path.relative_to(package).as_posix(), path) for path in files]
    model = Component(
        name=record.run,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        version=record.created_at,
        licenses=[_licence(licence)],
        properties=_properties(record, lock),
        components=[
            Component(name=name, type=ComponentType.FILE, bom_ref=f"file:{name}", hashes=[sha256(sha256_file(path))])
            for name, path in named
        ],
    )
    base = Component(
        name=record.base.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="base",
        version=record.base.revision,
        hashes=[sha256(record.base.sha256)],
    )
    data = [
        Component(
            name=Path(snapshot.file).name,
            type=ComponentType.DATA,
            bom_ref=f"data:{split}",
            version=record.snapshot,
            hashes=[sha256(snapshot.sha256)],
            properties=[Property(name="potstill:rows", value=str(snapshot.rows))],
        )
        for split, snapshot in record.snapshots.items()
    ]
    libraries = [_library(name, version, [sha256(h) for h in hashes]) for name, version, hashes in _pinned(lock)]
    bom = Bom(components=[base, *data, *libraries])
    bom.metadata.component = model
    bom.register_dependency(model, [base, *data, *libraries])
    return bom


def _pinned(lock: Path) -> Iterator[tuple[str, str, list[str]]]:
    if lock.is_file():
        yield from requirements(lock)
    yield APART, importlib.metadata.version(APART), []


def _library(name: str, version: str, hashes: list[Any]) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL(type="pypi", name=re.sub(r"[-_.]+", "-", name).lower(), version=version)
    return Component(
        name=name, type=ComponentType.LIBRARY, bom_ref=purl.to_string(), version=version, purl=purl, hashes=hashes
    )


def _licence(licence: str) -> Any:
    from cyclonedx.model.license import DisjunctiveLicense

    # Gemma's terms are in no list of SPDX
    names = {"gemma": "Gemma Terms of Use", "other": "see the base model"}
    return DisjunctiveLicense(id="Apache-2.0") if licence == "apache-2.0" else DisjunctiveLicense(name=names[licence])


def _properties(record: RunRecord, lock: Path) -> list[Any]:
    from cyclonedx.model import Property

    values = {
        "run": record.run,
        "workload": record.workload,
        "mode": record.mode,
        "seed": str(record.seed),
        "git_commit": record.git_commit or "none",
        "git_dirty": str(record.git_dirty).lower(),
        "lock_of_training": record.lock_sha256 or "none",
        "lock": sha256_file(lock) if lock.is_file() else "none: only torch is listed",
        # written after this file, and covering it
        "files": "manifest.json has the sha256 of every file",
    }
    if trimmed := record.vocabulary:
        values["vocabulary"] = f"{trimmed.pieces_after} of the {trimmed.pieces_before} pieces of {trimmed.original}"
    return [Property(name=f"potstill:{key}", value=value) for key, value in values.items()]
