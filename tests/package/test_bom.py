"""The bill of materials: valid CycloneDX, complete, and the same bytes each time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import poison
import pytest

from potstill import bom
from potstill.files import sha256_file
from potstill.manifest import Scores
from potstill.runs import RunRecord, Vocabulary

REPO = Path(__file__).resolve().parents[2]
LOCK = REPO / "requirements.lock"


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    return poison.copy_of(exported, tmp_path)


@pytest.fixture
def record(package: Path) -> RunRecord:
    return poison.values_of(package)["run"]


def written(package: Path, record: RunRecord, licence: str = "apache-2.0", scores: object = None) -> dict:
    return json.loads(bom.write(package, record, licence, scores, LOCK).read_text())


def errors(document: str) -> str:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document, all_errors=True)
    return "; ".join(str(error) for error in found or ())


@pytest.mark.parametrize("licence", ["gemma", "apache-2.0", "other"])
def test_the_document_keeps_to_the_schema(package: Path, record: RunRecord, licence: str) -> None:
    scores = Scores(**{"report_sha256": "0" * 64, "n": 12, "json_validity": 1.0, "schema_validity": None},
                    slot_accuracy=0.935, perfect_records=0.75, verdict=None)  # fmt: skip
    document = written(package, record, licence, scores)
    assert errors(json.dumps(document)) == ""
    model = document["metadata"]["component"]
    assert "Gemma Terms of Use" in json.dumps(model["licenses"]) or licence != "gemma"
    measured = {m["type"]: m["value"] for m in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    assert measured == {"slot_accuracy": "0.935", "perfect_records": "0.75", "json_validity": "1.0"}
    # the check can fail
    model["modelCard"]["modelParameters"]["colour"] = "blue"
    assert "colour" in errors(json.dumps(document))


def test_model_weights_base_and_data_are_there_with_their_hashes(package: Path, record: RunRecord) -> None:
    document = written(package, record)
    model = document["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", record.run)
    listed = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    weights = [p for p in package.rglob("*") if p.suffix in (".safetensors", ".gguf")]
    assert len(weights) >= 3
    assert listed == {p.relative_to(package).as_posix(): sha256_file(p) for p in weights}
    parts = {part["bom-ref"]: part for part in document["components"]}
    assert parts["base"]["name"] == record.base.name
    for split, snapshot in record.snapshots.items():
        assert parts[f"data:{split}"]["type"] == "data"
        assert parts[f"data:{split}"]["hashes"][0]["content"] == snapshot.sha256
    assert {d["ref"] for d in model["modelCard"]["modelParameters"]["datasets"]} <= set(parts)
    needs = next(d for d in document["dependencies"] if d["ref"] == "model")["dependsOn"]
    assert set(needs) == set(parts)


def test_every_package_of_the_lock_is_there_with_version_and_hashes(package: Path, record: RunRecord) -> None:
    libraries = [part for part in written(package, record)["components"] if part["type"] == "library"]
    pinned = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCK.read_text(), re.MULTILINE))
    assert len(pinned) > 100
    found = {part["name"]: part for part in libraries}
    assert {name: part["version"] for name, part in found.items() if name != "torch"} == pinned
    for name, version in pinned.items():
        assert found[name]["purl"] == f"pkg:pypi/{name.lower().replace('_', '-').replace('.', '-')}@{version}"
    assert sum(len(part.get("hashes", ())) for part in libraries) == LOCK.read_text().count("--hash=sha256:")
    assert all(part.get("hashes") for name, part in found.items() if name != "torch")


def test_the_same_package_gives_the_same_bytes_in_any_process(package: Path, record: RunRecord) -> None:
    wanted = bom.write(package, record, "apache-2.0", None, LOCK).read_bytes()
    code = (
        "import json, sys; from pathlib import Path; from potstill import bom, runs\n"
        "record = runs.RunRecord.model_validate(json.loads(sys.argv[2]))\n"
        "bom.write(Path(sys.argv[1]), record, 'apache-2.0')\n"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"}
        command = [sys.executable, "-c", code, str(package), record.model_dump_json()]
        subprocess.run(command, cwd=REPO, env=environment, check=True)
        assert (package / "bom.cdx.json").read_bytes() == wanted
    assert b"timestamp" not in wanted
    other = record.model_copy(update={"seed": 18})
    serial = json.loads(wanted)["serialNumber"]
    assert written(package, other)["serialNumber"] != serial
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", serial)


def test_without_a_lock_the_document_says_so(package: Path, record: RunRecord, tmp_path: Path) -> None:
    trimmed = Vocabulary(original="google/gemma-3-270m-it", original_sha256="0" * 64, pieces_before=262144,
                         pieces_after=16384, used=12000, reserve=4096, kept_sha256="0" * 64)  # fmt: skip
    other = record.model_copy(update={"vocabulary": trimmed})
    document = json.loads(bom.write(package, other, "gemma", None, tmp_path / "none.lock").read_text())
    said = {p["name"]: p["value"] for p in document["metadata"]["component"]["properties"]}
    assert said["potstill:lock"] == "none: only torch is listed"
    assert said["potstill:vocabulary"] == "16384 of the 262144 pieces of google/gemma-3-270m-it"
    assert [part["name"] for part in document["components"] if part["type"] == "library"] == ["torch"]
    assert errors(json.dumps(document)) == ""
