"""What trimming refuses, that it is whole or not at all, and train.prepare with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2

from benchmarks import gemma_vocabulary
from potstill import bases, models, runs, snapshots, vocab, vocab_files, vocab_select
from potstill.files import canonical_json, sha256_file
from potstill.records import Example, write_jsonl
from potstill.runs import Base
from potstill.snapshots import Snapshot, Version
from potstill.stop import DATA, Stop
from scripts.train import prepare

REPO = Path(__file__).resolve().parents[2]
NANO = REPO / "models/nano"
SIZE = 1400
TEXTS = ["<start_of_turn>user\nThe red bat, 2.5 lb<end_of_turn>\n", '{"colour":"red"}<end_of_turn>']


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    gemma_vocabulary.write_tokenizer(folder, ["the red bat is heavy, the edge is green"] * 3, SIZE, 330, 150)
    return gemma_vocabulary.write_model(folder, SIZE)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def unigram(folder: Path) -> None:
    model = vars(sentencepiece_model_pb2)["ModelProto"]()
    model.ParseFromString((folder / "tokenizer.model").read_bytes())
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: (f / "tokenizer.model").unlink(), r"tokenizer\.model is not there.*vocabulary=keep"),
        (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is not there"),
        (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is not there"),
        (unigram, r"tokenizer\.model is no BPE model.*vocabulary=keep"),
        (cut_short, r"model\.safetensors: the tensors have"),
        (
            lambda f: edit(f / "tokenizer.json", lambda v: v["model"].update(ignore_merges=True)),
            "ignore_merges is",
        ),
        (lambda f: edit(f / "tokenizer.json", lambda v: v["post_processor"].update(type="Roberta")), "Roberta"),
        (lambda f: edit(f / "config.json", lambda v: v.update(vocab_size=SIZE - 1)), f"vocab_size of {SIZE - 1}"),
        (lambda f: edit(f / "config.json", lambda v: v.update(vocab_size=SIZE + 1)), f"want .* the {SIZE + 1} rows"),
    ],
)
def test_a_base_that_cannot_be_trimmed_is_named_and_nothing_is_left(
    source: Path, tmp_path: Path, damage: Callable[[Path], object], named: str
) -> None:
    folder = shutil.copytree(source, tmp_path / "model")
    damage(folder)
    with pytest.raises(Stop, match=named) as stopped:
        vocab.trim(folder, TEXTS, tmp_path / "out/base")
    assert stopped.value.code == DATA
    assert not list(tmp_path.glob("out/*"))


def test_a_text_with_a_token_that_has_no_row_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop, match="<image_soft_token>, for which") as stopped:
        vocab.trim(source, ["look <image_soft_token>"], tmp_path / "base")
    assert stopped.value.code == DATA


def test_a_write_that_fails_leaves_the_folder_as_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The k-th file fails, k = 1, 2, 3 ..., until all succeed."""
    target = tmp_path / "base"
    vocab.trim(source, TEXTS, target)
    old = {path.name: path.read_bytes() for path in target.iterdir()}
    # what a kill left behind
    (tmp_path / ".base.partial").mkdir()
    (tmp_path / ".base.partial/junk").touch()
    written, open_file = 0, vocab_files.atomic_open

    def failing(path: Path, mode: str = "w"):
        nonlocal written
        written += 1
        if written == fail_at:
            raise OSError(28, "No space left on device", str(path))
        return open_file(path, mode)

    monkeypatch.setattr("potstill.files.atomic_open", failing)
    monkeypatch.setattr(vocab_files, "atomic_open", failing)
    for k in range(1, 30):
        fail_at, written = k, 0
        try:
            vocab.trim(source, [*TEXTS, "<unused9>"], target)
            break
        except OSError:
            assert {path.name: path.read_bytes() for path in target.iterdir()} == old
            assert [path.name for path in tmp_path.iterdir()] == ["base"]
    assert fail_at >= 8
    assert {path.name for path in target.iterdir()} == set(old)
    assert (target / "vocabulary.json").read_bytes() != old["vocabulary.json"]


def test_a_tokenizer_that_would_read_otherwise_is_never_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the selection is found before the folder takes its place."""
    real = vocab_select.select

    def forgetful(tokenizer, used, named, reserve):
        made = real(tokenizer, used, named, reserve)
        gone = max(i for i in used if len(tokenizer.model.pieces[i].piece) > 1)
        return vocab_select.Selection([i for i in made.ids if i != gone], made.used, made.reserve)

    monkeypatch.setattr(vocab_select, "select", forgetful)
    with pytest.raises(Stop, match="splits a text otherwise"):
        vocab.trim(source, ["the red bat is heavy"], tmp_path / "base")
    assert not list(tmp_path.iterdir())


def test_a_head_that_is_not_tied_is_cut_alike(source: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(source, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.randn(SIZE, 64, dtype=torch.float32).bfloat16()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", lambda v: v.update(tie_word_embeddings=False))
    vocab.trim(folder, TEXTS, tmp_path / "base")
    trimmed, kept = load_file(tmp_path / "base/model.safetensors"), vocab.kept_ids(tmp_path / "base")
    assert trimmed["lm_head.weight"].dtype == torch.bfloat16
    assert torch.equal(trimmed["lm_head.weight"], weights["lm_head.weight"][kept])
    assert torch.equal(trimmed["model.norm.weight"], weights["model.norm.weight"])


def test_the_reserve_is_the_most_frequent_pieces_that_text_can_be_joined_to(source: Path) -> None:
    tokenizer = vocab_files.read(source)
    whole = vocab_select.select(tokenizer, set(), set(), 0)
    more = vocab_select.select(tokenizer, set(), set(), 100)
    paths = vocab_select.Paths(tokenizer)
    added = [i for i in more.ids if i not in set(whole.ids)]
    assert set(whole.ids) < set(more.ids)
    assert 100 - 64 < len(added) < 100 + 64
    skipped = [i for i in paths.joined if i < max(added) and i not in set(more.ids) and paths.lead_to(i)]
    assert not skipped, "a better piece was passed over"


def test_older_files_write_a_merge_as_one_text(source: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(source, tmp_path / "model")
    edit(folder / "tokenizer.json", lambda v: v["model"].update(merges=[" ".join(m) for m in v["model"]["merges"]]))
    assert vocab.trim(folder, TEXTS, tmp_path / "a") == vocab.trim(source, TEXTS, tmp_path / "b")
    merges = [json.loads((tmp_path / name / "tokenizer.json").read_text())["model"]["merges"] for name in "ab"]
    assert merges[0] == [" ".join(m) for m in merges[1]] != []


def snapshot(val_text: str = "green") -> Version:
    """A tiny registered snapshot of batfit in the current folder."""
    files = {}
    for split in ("train", "val", "test"):
        path = snapshots.path_of("batfit", split, "v1")
        text = "the red bat" if split == "train" else val_text
        fields = {"task": "t1_parse", "system": "Answer in JSON.", "prompt": text, "response": canonical_json({"a": 1})}
        row = Example(id=split, **fields, slots={}, metadata={}, schema_version="1", source_sha256="0")
        files[split] = Snapshot(file=path.as_posix(), rows=write_jsonl(path, [row]), sha256=sha256_file(path))
    version = Version(**files, seed=1, parents={})
    snapshots.register("batfit", "v1", version)
    return version


def test_prepare_trims_to_the_train_rows_alone(project_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trimming = ["-w", "batfit", "-c", "nano", "-o", "vocabulary=trim", "-o", "vocabulary_reserve=64"]
    version = snapshot()
    prepare.main([*trimming, "-r", "a"])
    out = capsys.readouterr().out
    record = runs.read("a")
    assert record.base.name == "nano"
    assert record.base.path == "models/a/base"
    assert record.base.sha256 == sha256_file(Path("models/a/base/model.safetensors"))
    assert record.vocabulary is not None
    assert record.vocabulary.original == "models/nano"
    assert record.vocabulary.original_sha256 == sha256_file(NANO / "model.safetensors")
    assert record.vocabulary.pieces_after < record.vocabulary.pieces_before == 4096
    assert f"4,096 pieces -> {record.vocabulary.pieces_after:,}" in out
    assert "9,984,448" not in out
    assert "10.0 MB ->" in out
    assert "wrote models/a/base" in out
    whole, trimmed = (models.load_tokenizer(folder) for folder in ("models/nano", record.base.path))
    for text in prepare.texts(next(snapshots.read(version.train)), whole):
        assert trimmed.tokenize(text) == whole.tokenize(text)
    snapshot(val_text="goalkeeper weather sunshine")
    prepare.main([*trimming, "-r", "b"])
    other = runs.read("b").vocabulary
    assert other is not None
    assert other.kept_sha256 == record.vocabulary.kept_sha256
    settings = runs.resolved_config("b")
    assert (settings.vocabulary, settings.vocabulary_reserve) == ("trim", 64)


def test_a_dry_run_and_a_run_that_cannot_be_leave_no_base(
    project_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot()
    arguments = ["-w", "batfit", "-c", "nano", "-o", "vocabulary=trim", "-r", "a"]
    prepare.main([*arguments, "--dry-run"])
    assert "4,096 pieces, would be trimmed" in capsys.readouterr().out
    with pytest.raises(Stop, match="no row fits into max_length 1"):
        prepare.main([*arguments, "-o", "sft.max_length=1"])
    assert not Path("models/a/base").exists()
    # a failed one is no obstacle
    prepare.main(arguments)
    assert Path("models/a/base/model.safetensors").is_file()


def test_a_run_that_is_not_trimmed_says_nothing_of_it(project_folder: Path) -> None:
    snapshot()
    prepare.main(["-w", "batfit", "-c", "nano", "-r", "a"])
    record = runs.read("a")
    assert (record.base.path, record.vocabulary) == ("models/nano", None)
    assert "vocabulary" not in json.loads(Path("models/a/run.json").read_text())


@pytest.mark.parametrize(
    ("pieces", "vocabulary", "wanted"),
    [(65_535, "auto", False), (65_536, "auto", True), (262_144, "keep", False), (100, "trim", True)],
)
def test_auto_trims_large_vocabularies(tmp_path: Path, pieces: int, vocabulary: str, wanted: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": pieces}))
    sft = {"max_length": 1, "learning_rate": 1.0, "num_train_epochs": 1.0, "per_device_train_batch_size": 1}
    settings = runs.TrainConfig.model_validate({"base": "x", "mode": "full", "vocabulary": vocabulary, "sft": sft})
    base = Base(name="x", path=str(tmp_path), revision=None, sha256="0" * 64)
    assert bases.wants_trim(base, settings) is wanted
