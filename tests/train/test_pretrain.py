"""The pretraining script on a model of a few thousand weights."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill import config, files
from potstill.nano import documents, material, supervision, tokenizer
from potstill.stop import Stop
from scripts.train import pretrain

REPO = Path(__file__).resolve().parents[2]
WORDS = material.read_words(REPO / "models/nano/words.yaml")
TINY = "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, "
TINY += "num_key_value_heads: 1, head_dim: 16}"
SMALL = ["-o", TINY, "-o", "vocabulary=1024", "-o", "tokens_per_step=400", "-o", "warmup_steps=2", "-o", "threads=1"]
SMALL += ["-o", "eval_documents=1", "-o", "checkpoint_every=2", "-o", "muon_lr=1.0e-2", "-o", "out=models/tiny"]
SMALL += ["-o", "bf16_autocast=false", "-o", "max_length=384"]


def run(*overrides: str) -> None:
    pretrain.main([*SMALL, *(part for override in overrides for part in ("-o", override))])


def test_an_interrupted_run_ends_with_the_same_weights(project_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("steps=6", "state=models/whole")
    whole = load_file("models/tiny/model.safetensors")
    real = pretrain.training_rows

    def interrupted(settings, words, encode, step):
        if step == 5:
            raise KeyboardInterrupt
        return real(settings, words, encode, step)

    monkeypatch.setattr(pretrain, "training_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("steps=6", "state=models/cut")
    monkeypatch.setattr(pretrain, "training_rows", real)
    run("steps=6", "state=models/cut")
    resumed = load_file("models/tiny/model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    log = [json.loads(line) for line in Path("models/cut/log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["step"] for entry in log] == [2, 4, 6]
    assert log[-1]["loss"] < log[0]["loss"]
    assert set(json.loads(Path("models/cut/report.json").read_text(encoding="utf-8"))) == set(documents.KINDS)


def test_a_checkpoint_of_other_settings_is_refused(project_folder: Path) -> None:
    run("steps=2", "state=models/state")
    before = files.sha256_file(Path("models/tiny/model.safetensors"))
    with pytest.raises(Stop, match="Remove models/state"):
        run("steps=4", "seed=99", "state=models/state")
    assert files.sha256_file(Path("models/tiny/model.safetensors")) == before


def test_no_steps_gives_random_weights_without_looking_at_a_checkpoint(project_folder: Path) -> None:
    run("steps=2", "state=models/state")
    run("steps=0", "seed=99", "state=models/state")
    names = {path.name for path in Path("models/tiny").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer.json"} <= names
    assert Path("models/tiny/model.safetensors").stat().st_mode & 0o044 == 0o044


def test_a_misspelt_key_names_the_right_one(project_folder: Path) -> None:
    with pytest.raises(Stop, match="Did you mean 'muon_lr'"):
        run("muon_rate=1.0")


def test_documents_depend_on_the_seed_alone(project_folder: Path) -> None:
    """Sets and string hashes would make them differ from process to process."""

    def digest() -> str:
        made = [documents.make(kind, random.Random(f"{kind}{i}"), WORDS) for kind in documents.KINDS for i in range(60)]
        return hashlib.sha256(repr(made).encode()).hexdigest()

    assert digest() == digest()
    program = (
        "import random, hashlib\nfrom pathlib import Path\nfrom potstill.nano import documents, material\n"
        "words = material.read_words(Path('models/nano/words.yaml'))\n"
        "made = [documents.make(k, random.Random(f'{k}{i}'), words) for k in documents.KINDS for i in range(60)]\n"
        "print(hashlib.sha256(repr(made).encode()).hexdigest())\n"
    )
    assert {digest_elsewhere(program, seed) for seed in ("1", "2")} == {digest()}


def digest_elsewhere(program: str, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("kind", documents.KINDS)
def test_every_document_can_be_answered_from_its_prompt(kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(150):
        made = documents.make(kind, chance, WORDS)
        assert made.answer == made.answer.strip() != ""
        if made.prompt is None or kind in ("numbers", "telling"):
            continue
        # every word of the answer stands in what was asked
        known = set(re.findall(r"[a-z0-9]+", f"{made.system} {made.prompt}".lower()))
        known |= {"null", "true", "false", "none", "time", "level", "part", "message", "code", "pick"}
        asked = set(re.findall(r"[a-z0-9]+", made.answer.lower()))
        if kind == "to_list" and made.answer.isdigit():
            continue
        assert asked <= known, made
        if made.answer[0] in "{[":
            assert files.canonical_json(json.loads(made.answer)) == made.answer


def test_rows_supervise_answers_only_and_all_of_a_plain_text() -> None:
    encode = tokenizer.huggingface_tokenizer(tokenizer.train(tokenizer.weights(WORDS), 1024))
    row, start = supervision.encode_row(material.Document("Be brief.", "two?", "2"), encode)
    assert encode.decode(row[start:]) == "2<end_of_turn>"
    assert encode.decode(row[:start]).endswith("<start_of_turn>model\n")
    row, start = supervision.encode_row(material.Document("", None, "one two"), encode)
    assert (row[0], row[-1], start) == (tokenizer.BOS, tokenizer.EOS, 1)


def test_padding_hides_nothing_and_teaches_nothing() -> None:
    rows = [supervision.Row(*row) for row in [([2, 9, 8, 7], 2), ([2, *range(10, 50)], 30), ([2, 5], 1)]]
    seen = [
        ([t for t in ids if t], [t for t in labels if t != supervision.IGNORED])
        for batch in supervision.batches(rows)
        for ids, labels in zip(batch[0].tolist(), batch[1].tolist(), strict=True)
    ]
    assert sorted(seen) == sorted((ids, ids[start:]) for ids, start in rows)


def test_the_schedule_warms_up_stays_and_falls_to_zero(project_folder: Path) -> None:
    settings = config.load(Path("configs/train/nano_pretrain.yaml"), pretrain.Pretrain)
    rates = [pretrain.schedule(settings, step) for step in range(settings.steps)]
    assert max(rates) == 1.0
    assert rates[0] < 0.1
    assert rates[-1] < 0.01
    top = [step for step, rate in enumerate(rates) if rate == 1.0]
    assert top == list(range(top[0], top[-1] + 1))
