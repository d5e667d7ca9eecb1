"""The committed base under models/nano/: its tokenizer in three readers, its chat template, its weights."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoTokenizer

from potstill import files, llama, models
from potstill.gguf import write_gguf
from potstill.nano import documents, material, supervision, tokenizer

NANO = Path(__file__).resolve().parents[1] / "models/nano"
WORDS = material.read_words(NANO / "words.yaml")
PIECES = tokenizer.train(tokenizer.weights(WORDS), 4096)
SPM = sentencepiece.SentencePieceProcessor(model_file=str(NANO / "tokenizer.model"))
FAST = AutoTokenizer.from_pretrained(NANO)

# arbitrary Unicode, and strings over what merges are made of, where greedy joiners could part ways
HOSTILE = st.lists(st.sampled_from([*PIECES[7 + 256 :], " ", "  ", "<0x41>", "\r\n", "é", "本", "😀"]), max_size=40)
TEXTS = st.one_of(st.text(max_size=80), HOSTILE.map("".join), st.text('atins_":,{}[]nul \n▁', max_size=60))


def huggingface_ids(text: str) -> list[int]:
    return FAST(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@settings(max_examples=600, deadline=None)
@given(TEXTS)
@example("\x00\ud7ff￿ ▁▁ \n\n\n\n\n")
@example("atatata ananas didid nununull")
@example("<start_of_turn>user\nhi<end_of_turn><bos>")
def test_sentencepiece_and_hugging_face_agree_and_lose_nothing(text: str) -> None:
    ids = SPM.encode(text)
    assert huggingface_ids(text) == ids
    assert 3 not in ids, "byte fallback leaves nothing unknown"
    # SentencePiece itself writes a space as ▁, so the two cannot be told apart
    wanted = text.replace("▁", " ")
    assert SPM.decode(ids) == wanted
    assert FAST.decode(ids) == wanted


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("nano") / "nano.gguf"
    write_gguf(NANO, path, "Q8_0")
    with llama.serve(path, context=256) as server:
        yield server


@settings(max_examples=150, deadline=None)
@given(TEXTS.filter(lambda text: "\x00" not in text))
def test_llama_cpp_agrees(server: llama.Server, text: str) -> None:
    body = {"content": text, "add_special": False, "parse_special": False}
    assert llama.request(server, "/tokenize", body)["tokens"] == SPM.encode(text)


def test_files_are_what_the_word_list_gives(tmp_path: Path) -> None:
    tokenizer.write(PIECES, tmp_path)
    for name in ("tokenizer.model", "tokenizer.json", "chat_template.jinja", "special_tokens_map.json"):
        assert (tmp_path / name).read_bytes() == (NANO / name).read_bytes(), name


def test_ids_are_gemmas() -> None:
    assert PIECES[:7] == ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    assert FAST.convert_ids_to_tokens(range(len(FAST))) == PIECES == [SPM.id_to_piece(i) for i in range(len(PIECES))]
    assert FAST("hi")["input_ids"][0] == FAST.bos_token_id == 2
    assert all(SPM.is_control(i) for i in range(7) if i != 3)
    assert FAST("<end_of_turn>", add_special_tokens=False)["input_ids"] == [6]


@pytest.mark.parametrize("word", ["light", "weight", "preferred", "goalkeeper", "zzyzx", "Über"])
def test_a_word_has_the_same_tokens_after_a_space_a_quote_and_an_underscore(word: str) -> None:
    alone = SPM.encode(word)
    for before, after in [(" ", " "), ('"', '"'), ("_", "_"), ("\n", "."), ('{"', '":'), ('":"', '","'), (">", "</")]:
        ids = SPM.encode(before + word + after)
        start = len(SPM.encode(before))
        assert ids[start : start + len(alone)] == alone, (before, ids)


def test_no_piece_glues_words_to_spaces_or_punctuation() -> None:
    for piece in PIECES[7 + 256 :]:
        assert re.fullmatch(r"▁+|[^\W\d_]+|\d|[\W_]+|\":(null|true|false)\W*", piece), piece


def test_no_piece_can_be_joined_in_two_overlapping_places() -> None:
    known = set(PIECES[7 + 256 :])
    # `"},` + `"` + `},"` does not occur: the comma would have been joined to its quote long before
    assert [piece for piece in known if tokenizer.overlaps_itself(piece, known)] == ['"},"']
    assert SPM.encode_as_pieces('"},"},"') == ['"},"', '},"']


def test_answers_are_short() -> None:
    answer = '{"fields":{"colour":"green","size":null,"price":9.5,"tags":["new","sale"]},"asked":[],"skipped":["size"]}'
    assert len(SPM.encode(answer)) <= 36


def turns(*contents: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 5, contents, strict=False)]


# what google/gemma-3-270m-it's own template gives for these conversations
RENDERED = [
    (turns(" hi \n"), "<bos><start_of_turn>user\nhi<end_of_turn>\n"),
    (
        [{"role": "system", "content": "Be brief. "}, *turns("a", "b", "c")],
        "<bos><start_of_turn>user\nBe brief. \n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>user\nc<end_of_turn>\n",
    ),
    (
        [
            {"role": "system", "content": [{"type": "text", "text": "S"}]},
            {"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "text", "text": "b"}]},
        ],
        "<bos><start_of_turn>user\nS\n\nab<end_of_turn>\n",
    ),
]


@pytest.mark.parametrize(("messages", "wanted"), RENDERED)
def test_the_template_renders_as_gemma_3(messages: list[dict[str, Any]], wanted: str) -> None:
    assert FAST.apply_chat_template(messages, tokenize=False) == wanted
    opened = FAST.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert opened == wanted + "<start_of_turn>model\n"
    ids = FAST.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == FAST(opened, add_special_tokens=False)["input_ids"]
    assert ids[:2] == [2, 5]


@pytest.mark.parametrize("roles", [["assistant"], ["user", "user"], ["system", "assistant"]])
def test_the_template_refuses_turns_that_do_not_alternate(roles: list[str]) -> None:
    with pytest.raises(Exception, match="alternate"):
        FAST.apply_chat_template([{"role": role, "content": "x"} for role in roles], tokenize=False)


def test_weights_are_small_bf16_and_the_ones_the_readme_names() -> None:
    path = NANO / "model.safetensors"
    assert path.stat().st_size < 16_000_000
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert files.sha256_file(path) in (NANO / "README.md").read_text(encoding="utf-8")


def test_config_fits_llama_cpps_gemma_3() -> None:
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert config["vocab_size"] == len(PIECES)
    kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(config["num_hidden_layers"])]
    assert config["layer_types"] == kinds
    assert {config[key] % 32 for key in ("hidden_size", "intermediate_size", "head_dim")} == {0}
    generation = json.loads((NANO / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == [1, 6]


@pytest.mark.parametrize(("kind", "least"), [("which_label", 0.7), ("telling", 0.8), ("numbers", 0.7)])
def test_the_base_has_learnt_to_find_tell_and_convert(kind: str, least: float) -> None:
    model, _ = models.load_folder(NANO, torch.float32)
    chance = random.Random("unseen")
    rows = [supervision.encode_row(documents.make(kind, chance, WORDS), FAST) for _ in range(30)]
    exact = [supervision.score_row(model, row)[1] for row in rows]
    assert sum(exact) / len(exact) >= least
