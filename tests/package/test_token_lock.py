import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_gemma
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill import llama, models, package, runs, snapshots, token_lock
from potstill.records import Example

RUN = "batfit-tiny"
KINDS = ["bf16", "gguf-f16", "gguf-q8_0"]
# a written "▁" (U+2581) beside a space is the one known difference, see test_llama.py
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00▁"), max_size=40)
CONTROL = st.sampled_from(["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<mask>", "\n\n", "  ", "bat"])


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return models.load_tokenizer(tiny)


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[llama.Server]:
    folder = exported / "models" / RUN / "package/gguf-f16"
    with llama.serve(next(folder.glob("*.gguf")), context=64, parallel=1) as server:
        yield server


def locked(rows: int | None = None) -> list[token_lock.Mismatch]:
    record = runs.read(RUN)
    examples = [row for split in ("train", "val", "test") for row in snapshots.read(record.snapshots[split])]
    tokenizer = models.load_tokenizer(record.base.path)
    return token_lock.check(package.folder(RUN), KINDS, examples, tokenizer, rows)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(TEXTS | CONTROL, max_size=5).map("".join), min_size=1, max_size=4))
def test_every_reader_sees_any_texts_alike(server: llama.Server, tiny: Path, tokenizer: Any, texts: list[str]) -> None:
    wanted = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert token_lock.pieces(tiny / "tokenizer.model", tokenizer)(texts) == wanted
    assert token_lock.tokenize(server, texts, tokenizer) == wanted
    # in one request or each alone
    assert [llama.tokenize(server, text) for text in texts] == wanted


def test_a_whole_package_is_locked(copied: Path) -> None:
    assert locked() == []


def test_prompts_and_answers_are_what_training_reads(copied: Path, tokenizer: Any) -> None:
    from potstill import prompt

    examples = list(snapshots.read(runs.read(RUN).snapshots["train"]))
    rendered = token_lock.render(examples, tokenizer)
    trained = [prompt.render(example, tokenizer) for example in examples]
    assert rendered.ids == [row.prompt_ids for row in trained] + [row.completion_ids for row in trained]
    assert rendered.of[0] == (examples[0].id, "prompt")
    assert rendered.of[-1] == (examples[-1].id, "answer")


def test_a_tokenizer_whose_pieces_changed_places_is_named(copied: Path) -> None:
    path = package.folder(RUN) / "bf16/tokenizer.json"
    value = json.loads(path.read_text())
    vocab = value["model"]["vocab"]
    vocab["▁bat"], vocab["▁ball"] = vocab["▁ball"], vocab["▁bat"]
    path.write_text(json.dumps(value))
    [mismatch] = locked()
    assert (mismatch.artifact, mismatch.reader, mismatch.part) == ("bf16", "huggingface", "prompt")
    assert {mismatch.wanted, mismatch.found} == {"▁bat", "▁ball"}
    assert mismatch.wanted_id != mismatch.found_id
    said = token_lock.explain(mismatch)
    assert f"bf16: huggingface reads the prompt of {mismatch.id} as other tokens from token {mismatch.token} on" in said
    assert f"'{mismatch.found}' ({mismatch.found_id}), want '{mismatch.wanted}' ({mismatch.wanted_id})" in said


def test_another_tokenizer_model_is_named(copied: Path, tmp_path: Path) -> None:
    tiny_gemma.write_tokenizer(tmp_path / "other", 400)
    (package.folder(RUN) / "bf16/tokenizer.model").write_bytes((tmp_path / "other/tokenizer.model").read_bytes())
    [mismatch] = locked()
    assert (mismatch.artifact, mismatch.reader) == ("bf16", "sentencepiece")


def test_a_gguf_whose_pieces_changed_places_is_named(copied: Path) -> None:
    path = package.folder(RUN) / "gguf-f16" / package.gguf_name(RUN, "gguf-f16")
    one, other = (struct.pack("<Q", len(text)) + text for text in (b"b", b"l"))
    data = path.read_bytes()
    assert data.count(one) == data.count(other) == 1
    first, second = sorted((data.index(one), data.index(other)))
    letters = data[second + 8 : second + 9], data[first + 8 : first + 9]
    data = data[: first + 8] + letters[0] + data[first + 9 : second + 8] + letters[1] + data[second + 9 :]
    path.write_bytes(data)
    [mismatch] = locked()
    # q8_0 has the tokenizer that f16 had, and is asked by itself now
    assert (mismatch.artifact, mismatch.reader) == ("gguf-f16", "llama.cpp")


def test_so_many_rows_can_be_enough(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    render = token_lock.render

    def counted(examples: list[Example], tokenizer: Any) -> token_lock.Texts:
        read.append(len(examples))
        return render(examples, tokenizer)

    monkeypatch.setattr(token_lock, "render", counted)
    assert locked(rows=5) == []
    assert locked() == []
    assert read == [5, 36]


def test_where_one_side_ends_the_mismatch_says_so(tokenizer: Any) -> None:
    texts = token_lock.Texts([("r1", "answer")], ["bat"], [[10, 11]])
    mismatch = token_lock.compare("fp16", "vllm", texts, [[10]], tokenizer)
    assert mismatch is not None
    assert (mismatch.token, mismatch.found_id, mismatch.wanted_id) == (1, None, 11)
    assert "the end, want" in token_lock.explain(mismatch)
    assert token_lock.compare("fp16", "vllm", texts, [[10, 11]], tokenizer) is None
