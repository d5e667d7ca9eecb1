"""Trimming a vocabulary laid out as Gemma 3's: the same tokens, the same hidden states, nothing lost of any text."""

import json
import random
import re
from pathlib import Path

import pytest
import sentencepiece
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer

from benchmarks import gemma_vocabulary
from potstill import llama, models, vocab, vocab_files, vocab_select
from potstill.gguf import write_gguf

SIZE, RESERVE = 5000, 200
WORDS = ["bat", "ball", "pitch", "slow", "low", "light", "pickup", "heavy", "sweet", "spot", "nets", "home", "turf"]


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    rows = [" ".join(rng.choices(WORDS, k=rng.randint(2, 9))) for _ in range(count)]
    return [
        f'{row.title() if i % 3 else row}, {i / 7:.2f} lb;  {{"bat":"{row[:4]}","é":{i}}}' for i, row in enumerate(rows)
    ]


def rendered(text: str) -> list[str]:
    prompt = f"<bos><start_of_turn>user\nSay it in JSON.\n\n{text}<end_of_turn>\n<start_of_turn>model\n"
    return [prompt, '{"a":[1,null]}<end_of_turn>']


TEXTS = [t for text in sentences(60, seed=2) for t in rendered(text)]
TEXTS += ["tab\there <table><td>x</td>\n\n\n<unused7> 本 😀", " " * 40 + "\n" * 40, ""]


class Pair:
    """A whole model folder, the trimmed one, and their readers."""

    def __init__(self, whole: Path, trimmed: Path, report: vocab.TrimReport):
        self.whole, self.trimmed, self.report = whole, trimmed, report
        self.kept = vocab.kept_ids(trimmed)
        self.fast = [models.load_tokenizer(folder) for folder in (whole, trimmed)]
        self.slow = [
            sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
            for folder in (whole, trimmed)
        ]

    def ids(self, text: str, side: int) -> list[int]:
        return self.fast[side](text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module", params=["user-defined", "control"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Both ways in which a SentencePiece model can have the turn marks."""
    folder = tmp_path_factory.mktemp("vocab")
    learnt_from = [*sentences(400, seed=1), *(row.upper() for row in sentences(50, seed=3))]
    whole = gemma_vocabulary.write_tokenizer(folder / "whole", learnt_from, SIZE, 900, 300, marks=request.param)
    gemma_vocabulary.write_model(whole, SIZE)
    return Pair(whole, folder / "base", vocab.trim(whole, TEXTS, folder / "base", RESERVE))


def test_most_is_gone_and_what_is_left_fits_together(pair: Pair) -> None:
    kept, report = pair.kept, pair.report
    assert kept == sorted(set(kept))
    assert report.pieces_before == SIZE
    assert report.pieces_after == len(kept) < SIZE / 2
    assert len(kept) % vocab_select.MULTIPLE == 0
    assert RESERVE <= report.reserve < RESERVE + vocab_select.MULTIPLE
    config = json.loads((pair.trimmed / "config.json").read_text())
    assert config["vocab_size"] == len(kept) == len(pair.fast[1]) == pair.slow[1].vocab_size()
    mark = pair.fast[1].convert_tokens_to_ids("<end_of_turn>")
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (0, 2, [1, mark])
    assert kept[mark] == 106
    generation = json.loads((pair.trimmed / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [1, mark]
    weights = load_file(pair.trimmed / "model.safetensors")
    before = load_file(pair.whole / "model.safetensors")
    assert weights.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(weights[name], tensor[kept] if name == "model.embed_tokens.weight" else tensor), name
    assert pair.report.bytes_after == (pair.trimmed / "model.safetensors").stat().st_size < pair.report.bytes_before


def test_what_every_text_needs_is_kept(pair: Pair) -> None:
    pieces, kept = vocab_files.read(pair.whole).model.pieces, set(pair.kept)
    kind = type(pieces[0])
    for i, piece in enumerate(pieces):
        if re.fullmatch(r"<unused\d+>", piece.piece):
            assert (i in kept) == (piece.piece == "<unused7>")
        elif piece.type != kind.NORMAL or len(piece.piece) == 1:
            assert i in kept, piece.piece


def test_the_texts_have_the_same_tokens_in_both_readers(pair: Pair) -> None:
    assert any(len(set(pair.ids(text, 0))) > 20 for text in TEXTS)
    for text in TEXTS:
        assert [pair.kept[i] for i in pair.ids(text, 1)] == pair.ids(text, 0)
        assert pair.fast[1].tokenize(text) == pair.fast[0].tokenize(text)
        for part in (text, *re.split("<(?:start|end)_of_turn>|<bos>", text)):
            assert pair.slow[1].encode(part, out_type=str) == pair.slow[0].encode(part, out_type=str)


def test_hidden_states_and_logits_on_the_texts_are_the_same(pair: Pair) -> None:
    whole, trimmed = (models.load_folder(folder, torch.float32)[0] for folder in (pair.whole, pair.trimmed))
    for text in filter(None, TEXTS[::7]):
        with torch.inference_mode():
            one = whole(torch.tensor([pair.ids(text, 0)]), output_hidden_states=True)
            two = trimmed(torch.tensor([pair.ids(text, 1)]), output_hidden_states=True)
        assert all(torch.equal(a, b) for a, b in zip(one.hidden_states, two.hidden_states, strict=True))
        torch.testing.assert_close(two.logits, one.logits[..., pair.kept], rtol=0, atol=1e-5)


# any Unicode, and strings over what the vocabulary is made of, where losing a piece would show
PARTS = [
    "<start_of_turn>",
    "<eos>",
    "<unused7>",
    "<unused8>",
    "<table>",
    "</td",
    "\n\n",
    "  ",
    "\t",
    "▁",
    "<0x41>",
    *WORDS,
]
ANY = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PARTS), max_size=20).map("".join))


@settings(max_examples=300)
@given(ANY)
@example("\x00\ud7ff￿ ▁▁ \n\n\n\n\n")
@example("<image_soft_token>" + " " * 70 + "\n" * 70)
def test_any_text_round_trips_as_before(pair: Pair, text: str) -> None:
    ids = pair.ids(text, 1)
    assert max(ids, default=0) < len(pair.kept)
    assert pair.fast[1].decode(ids) == pair.fast[0].decode(pair.ids(text, 0)) == text.replace("▁", " ")
    assert pair.fast[1].unk_token_id not in ids or "<unk>" in text
    slow = pair.slow[1].encode(text)
    assert pair.slow[1].decode(slow) == pair.slow[0].decode(pair.slow[0].encode(text))


@settings(max_examples=30)
@given(texts=st.lists(ANY.filter(lambda text: "<image" not in text), max_size=6), reserve=st.integers(0, 300))
def test_whatever_the_texts_their_tokens_stay(pair: Pair, texts: list[str], reserve: int) -> None:
    tokenizer = vocab_files.read(pair.whole)
    _, slow, pattern = vocab.readers(pair.whole, tokenizer)
    before = list(vocab_select.encodings(pair.fast[0], slow, pattern, texts))
    used = vocab.ids_in(before, tokenizer, pair.whole)
    kept = vocab_select.select(tokenizer, used, set(), reserve).ids
    new_ids = {old: new for new, old in enumerate(kept)}
    fast = Tokenizer.from_str(json.dumps(vocab_files._huggingface(tokenizer, new_ids, pair.whole)))
    trimmed = sentencepiece.SentencePieceProcessor(model_proto=vocab_files._sentencepiece(tokenizer.model, new_ids))
    for text in texts:
        assert [kept[i] for i in fast.encode(text, add_special_tokens=False).ids] == pair.ids(text, 0)
        assert trimmed.encode(text, out_type=str) == slow.encode(text, out_type=str)


@pytest.fixture(scope="module")
def servers(pair: Pair, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("gguf")
    for name, source in (("whole", pair.whole), ("trimmed", pair.trimmed)):
        write_gguf(source, folder / f"{name}.gguf", "F32")
    with llama.serve(folder / "whole.gguf", 256, 1, 1) as one, llama.serve(folder / "trimmed.gguf", 256, 1, 1) as two:
        yield one, two


def test_llama_cpp_agrees_on_the_texts(pair: Pair, servers: tuple[llama.Server, llama.Server]) -> None:
    for text in filter(None, TEXTS):
        ids = llama.tokenize(servers[1], text)
        assert [pair.kept[i] for i in ids] == llama.tokenize(servers[0], text)
        # forty spaces or newlines are more than the longest run: there Hugging Face joins where the others match
        if " " * 33 not in text:
            assert ids == pair.ids(text, 1)


SIMPLE = st.lists(st.sampled_from([*WORDS, " ", ". ", '{"', "é", "<td>", "\t", "\n\n", "xyz", "本", "7"]), max_size=20)


@settings(max_examples=100)
@given(SIMPLE.map("".join))
def test_the_three_readers_agree_on_other_texts(
    pair: Pair, servers: tuple[llama.Server, llama.Server], text: str
) -> None:
    found = pair.slow[1].encode(text)
    assert pair.ids(text, 1) == found
    assert llama.request(servers[1], "/tokenize", {"content": text, "add_special": False})["tokens"] == found


def test_llama_cpp_answers_as_before(pair: Pair, servers: tuple[llama.Server, llama.Server]) -> None:
    text = TEXTS[0]
    body = {
        "n_predict": 1,
        "n_probs": 50,
        "temperature": 1.0,
        "samplers": [],
        "cache_prompt": False,
        "post_sampling_probs": False,
    }
    tops = [
        llama.request(server, "/completion", {**body, "prompt": pair.ids(text, side)})["completion_probabilities"][0][
            "top_logprobs"
        ]
        for side, server in enumerate(servers)
    ]
    whole = {entry["id"]: entry["logprob"] for entry in tops[0]}
    shared = [(whole[old], e["logprob"]) for e in tops[1] if (old := pair.kept[e["id"]]) in whole]
    assert len(shared) > 5
    # the shares differ by one factor: what the dropped tokens had
    offsets = [a - b for a, b in shared]
    assert max(offsets) - min(offsets) < 1e-3


def test_added_tokens_keep_their_flags_and_the_one_without_a_row_is_gone(pair: Pair) -> None:
    def added(folder: Path) -> dict[str, dict]:
        entries = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        return {entry.pop("content"): entry for entry in entries}

    before, after = added(pair.whole), added(pair.trimmed)
    gone = {text for text in before if text not in after}
    assert "<image_soft_token>" in gone
    assert all(re.fullmatch(r"<unused\d+>", text) for text in gone - {"<image_soft_token>"})
    for text, entry in after.items():
        assert {**entry, "id": pair.kept[entry["id"]]} == before[text]
    settings = json.loads((pair.trimmed / "tokenizer_config.json").read_text())
    assert {int(i): d["content"] for i, d in settings["added_tokens_decoder"].items()} == {
        entry["id"]: text for text, entry in after.items()
    }
    assert "<image_soft_token>" not in (pair.trimmed / "special_tokens_map.json").read_text()
    assert (settings["boi_token"], "image_token" in settings) == ("<start_of_image>", False)
    assert pair.fast[1].chat_template == pair.fast[0].chat_template


def test_trimming_again_to_the_same_texts_changes_nothing(pair: Pair, tmp_path: Path) -> None:
    report = vocab.trim(pair.trimmed, TEXTS, tmp_path / "again", SIZE)
    assert report.pieces_after == report.pieces_before
    for name in ("tokenizer.model", "model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (pair.trimmed / name).read_bytes(), name
