import json
import shutil
from pathlib import Path

import pytest
import served
import tiny_gemma
import yaml

from potstill import compatibility, contents, licence, model_card, runs
from potstill.files import sha256_file

ARTIFACTS = {"bf16": 1_500_000, "gguf-q8_0": 800_000}
SLOT = {"n": 12, "ci95": [0.1, 0.4]}
REPORT = {
    "n": 12,
    "snapshot": "v1",
    "json_validity": 1.0,
    "schema_validity": 0.98,
    "slot_accuracy": 0.93,
    "perfect_records": None,
    "ci95": {"slot_accuracy": [0.9, 0.95]},
    "judge": {"label": "embedded/lexical - not an LLM"},
    "gate": {"verdict": "promote"},
    "per_slot": {
        "a.good": SLOT | {"pass_rate": 0.99},
        "a.bad": SLOT | {"pass_rate": 0.2},
        "a.none": SLOT | {"pass_rate": None},
    },
}


@pytest.fixture
def project(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(Path(__file__).resolve().parents[2] / "configs", tmp_path / "configs")
    tiny_gemma.make_run(tmp_path, tiny)
    package = tmp_path / "models" / served.RUN / "package"
    for kind in ARTIFACTS:
        (package / kind).mkdir(parents=True)
    (package / "gguf-q8_0" / served.GGUF).write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    return package


def card(package: Path, base: str = "nano", revision: str | None = None) -> str:
    record = runs.read(served.RUN)
    record = record.model_copy(update={"base": record.base.model_copy(update={"name": base, "revision": revision})})
    model_card.write(
        package,
        record,
        config=runs.resolved_config(served.RUN).model_dump(),
        tasks={"t1_parse": "What was said,\n  as JSON.", "t2_repair": ""},
        licence=licence.of(record),
        num_ctx=1024,
        artifacts=ARTIFACTS,
        runtimes=compatibility.runtimes("gemma3_text", ARTIFACTS),
    )
    return (package / "README.md").read_text()


def report(name: str, value: dict) -> None:
    path = Path("reports") / served.RUN / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_the_header_is_read_by_the_hub(project: Path) -> None:
    _, header, _ = card(project, "google/gemma-3-270m-it").split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["license"] == "gemma"
    assert (values["base_model"], values["base_model_relation"]) == ("google/gemma-3-270m-it", "finetune")
    assert (values["library_name"], values["pipeline_tag"]) == ("transformers", "text-generation")
    assert {"distillation", "gguf", "batfit"} <= set(values["tags"])
    # a base that the hub does not have would be a broken link
    own = yaml.safe_load(card(project).split("---\n")[1])
    assert own["license"] == "apache-2.0"
    assert "base_model" not in own


def test_an_unjudged_run_says_so(project: Path) -> None:
    text = card(project)
    assert "Not judged" in text
    assert "Not compared yet" in text
    assert "- `t1_parse`: What was said, as JSON.\n- `t2_repair`\n" in text
    assert "[how](gguf-q8_0/README.md)" in text
    assert "at\nmost 1024 tokens" in text
    assert str(Path.cwd()) not in text


def test_scores_and_the_weakest_slots(project: Path) -> None:
    report("report.json", REPORT)
    text = card(project)
    assert "| slot_accuracy | 0.930 | 0.900 to 0.950 |" in text
    assert "perfect_records" not in text, "there was none"
    assert "embedded/lexical - not an LLM; the gate said promote" in text
    assert text.index("| a.bad | 12 | 0.200 |") < text.index("| a.good | 12 | 0.990 |")
    assert "a.none" not in text


def test_only_the_parity_of_these_files_counts(project: Path) -> None:
    row = {"artifact": "gguf-q8_0", "engine": "llama.cpp", "n": 12, "same_output": 0.75, "same_json": 1.0}
    row |= {"slots": {"drop": 0.0042}, "sha256": sha256_file(project / "gguf-q8_0" / served.GGUF)}
    report("parity.json", {"artifacts": {"gguf-q8_0": row}})
    assert "| gguf-q8_0 | llama.cpp | 12 | 75.0% | 100.0% | 0.004 |" in card(project)
    report("parity.json", {"artifacts": {"gguf-q8_0": row | {"sha256": "0" * 64}}})
    assert "Not compared yet" in card(project)


def test_the_same_records_give_the_same_bytes(project: Path) -> None:
    report("report.json", REPORT)
    assert card(project) == card(project)
    assert contents.check("README.md", project / "README.md") == ([], [])


def test_each_licence_brings_its_files(project: Path, tiny: Path, tmp_path: Path) -> None:
    record = runs.read(served.RUN)
    assert licence.of(record) == "apache-2.0"
    licence.write(project, "apache-2.0", record)
    assert "Apache License" in (project / "LICENSE").read_text()
    (project / "LICENSE").unlink()
    gemma = tmp_path / "gemma"
    shutil.copytree(tiny, gemma)
    base = record.base.model_copy(update={"name": "google/gemma-3-270m-it", "path": str(gemma)})
    record = record.model_copy(update={"base": base})
    licence.write(project, licence.of(record), record)
    assert "ai.google.dev/gemma/terms" in (project / "NOTICE").read_text()
    assert not (project / "LICENSE").exists()
    (gemma / "LICENSE").write_text("the terms")
    licence.write(project, "gemma", record)
    assert (project / "LICENSE").read_text() == "the terms"
    assert licence.of(record.model_copy(update={"base": base.model_copy(update={"name": "owner/other"})})) == "other"
