import json
import re
import shutil
from collections import Counter, defaultdict

import pytest
from batfit_rows import NOTHING, SAMPLES, samples, talks
from pydantic import ValidationError

from potstill import corpus, workload
from potstill.files import canonical_json
from potstill.stop import Stop
from potstill.workloads import batfit, batfit_samples
from potstill.workloads.batfit_schema import Answer, interaction
from scripts.dataset import samples as script

SEED = 17
# written by hand
BY_HAND = {"grammar.yaml", "policy.yaml", "global.yaml"}


def test_committed_samples_are_what_the_seed_gives(tmp_path):
    (tmp_path / "grammar.yaml").write_bytes((SAMPLES / "grammar.yaml").read_bytes())
    written = batfit.make_samples(tmp_path, SEED)
    committed = {path.relative_to(SAMPLES) for path in SAMPLES.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path) for path in written} == {path for path in committed if path.name not in BY_HAND}
    for path in written:
        assert path.read_bytes() == (SAMPLES / path.relative_to(tmp_path)).read_bytes(), path.name
    assert sum((SAMPLES / path).stat().st_size for path in committed) < 3_000_000


def test_another_seed_gives_other_rows(tmp_path):
    (tmp_path / "grammar.yaml").write_bytes((SAMPLES / "grammar.yaml").read_bytes())
    batfit.make_samples(tmp_path, SEED + 1)
    mine, theirs = ((folder / "t1_parse/train.jsonl").read_bytes() for folder in (tmp_path, SAMPLES))
    assert mine != theirs


def test_sizes_and_ids():
    assert len({row.id for row in samples()}) == len(samples())
    assert len({row.prompt_text for row in samples()}) == len(samples())
    counts = Counter((row.task, row.metadata.get("split", "train")) for row in talks() if "tenant" not in row.metadata)
    assert counts == {("t1_parse", "train"): 3060, ("t1_parse", "val"): 120}
    assert len(talks(slice="unseen_synonyms")) == 60
    assert Counter(row.metadata.get("split") for row in samples() if row.task == "t2_repair") == {None: 882, "val": 40}
    assert len(talks(tenant="timberwolf")) == len(talks(tenant="harbourside")) == 80
    assert {row.metadata.get("weight") for row in talks(tenant="timberwolf")} == {0.5}
    assert len({row.metadata["group"] for row in talks()}) >= 28


def test_both_row_layouts_are_committed():
    lines = [json.loads(line) for line in (SAMPLES / "t1_parse/train.jsonl").open(encoding="utf-8")]
    kinds = Counter("chat" if "messages" in row else type(row["output"]).__name__ for row in lines)
    assert min(kinds[kind] for kind in ("chat", "dict", "str")) > 100


def test_every_answer_is_valid_canonical_and_follows_the_rule():
    for row in samples():
        parsed = Answer.model_validate_json(row.response_strong)
        assert canonical_json(parsed.model_dump()) == row.response_strong
        assert parsed.interaction == interaction(parsed.context, parsed.interaction.skipped)
        assert all(getattr(parsed.context, field) is None for field in parsed.interaction.skipped)
        assert row.system_prompt == batfit_samples.SYSTEM


def test_the_workload_file_and_the_samples_agree(monkeypatch):
    monkeypatch.chdir(SAMPLES.parents[2])
    workload.load.cache_clear()
    job = workload.load("batfit")
    assert job.settings.schema_version == batfit.SCHEMA_VERSION
    assert (SAMPLES / job.settings.system_prompt).read_text(encoding="utf-8").strip() == batfit_samples.SYSTEM
    manifest = (SAMPLES / "manifest.yaml").read_text(encoding="utf-8")
    assert f"system_prompt: {job.settings.system_prompt}\n" in manifest
    known, problem = job.check("t1_parse", json.loads(samples()[0].response_strong))
    assert known, problem


def test_words_of_answers_vary_and_always_null_does_not_pay():
    slots, null_right = Counter(), Counter()
    for row in talks():
        parsed = json.loads(row.response_strong)
        for part, members in NOTHING.items():
            for slot, nothing in members.items():
                slots[part, slot] += 1
                null_right[part, slot] += parsed[part][slot] == nothing
    share = sum(null_right.values()) / sum(slots.values())
    assert 0.35 < share < 0.5
    lengths = sorted(len(row.prompt_text.split()) for row in talks())
    assert 15 <= lengths[len(lengths) // 2] <= 45


# --- t2_repair


def test_a_repair_is_needed_and_can_be_read_off_the_prompt():
    for row in (row for row in samples() if row.task == "t2_repair"):
        assert row.prompt_text.startswith("Repair: ")
        broken = row.prompt_text.removeprefix("Repair: ")
        with pytest.raises(ValidationError):
            Answer.model_validate_json(broken)
        letters = re.sub(r"[^a-z0-9.]", "", broken.lower())
        target = json.loads(row.response_strong)
        for value in target["context"].values():
            if isinstance(value, float):
                assert str(value) in letters, row.id
            elif value is not None:
                assert value.replace("_", "")[:5].rstrip("yi") in letters, (row.id, value)
        why = target["interaction"]["why_next_question"]
        assert why is None or why.lower().replace(" ", "") in letters or "cut_end" in row.metadata["group"]


def test_faults_are_combined_and_val_combinations_are_new():
    groups = defaultdict(set)
    for row in samples():
        if row.task == "t2_repair":
            groups[row.metadata.get("split", "train")].add(row.metadata["group"])
    assert len(groups["train"]) >= 16
    assert not groups["train"] & groups["val"]
    parts = {use: Counter(part for g in names for part in g.split(":")[1].split("+")) for use, names in groups.items()}
    assert all(parts["train"][part] >= 2 for part in (*parts["train"], *parts["val"]))


def test_the_manifest_keeps_the_layout_corpus_reads():
    rows = list(corpus.read(SAMPLES, batfit.SCHEMAS, "x"))
    assert {row.metadata["schema_version"] for row in rows} == {"x"}


# --- scripts/dataset/samples.py


def test_the_script_writes_the_samples_anew(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "data/samples/batfit"
    folder.mkdir(parents=True)
    (folder / "grammar.yaml").write_bytes((SAMPLES / "grammar.yaml").read_bytes())
    shutil.copytree(SAMPLES.parents[2] / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    workload.load.cache_clear()
    script.main(["-w", "batfit", "--dry-run"])
    assert [path.name for path in folder.iterdir()] == ["grammar.yaml"]
    script.main(["-w", "batfit"])
    assert (folder / "t1_parse/train.jsonl").read_bytes() == (SAMPLES / "t1_parse/train.jsonl").read_bytes()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: fab dataset.convert -w batfit"
    monkeypatch.delattr(batfit, "make_samples")
    with pytest.raises(Stop, match="no make_samples"):
        script.main(["-w", "batfit"])
    workload.load.cache_clear()
