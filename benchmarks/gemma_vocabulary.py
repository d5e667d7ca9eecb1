"""A model folder laid out as Gemma 3's, of any size: what trimming is tested and timed on where the real one is not.

    write_tokenizer(folder, texts, size=262_144, learnt=12_000, characters=19_255)
    write_model(folder, size, **shape)

The layout is what is known of Gemma 3's files: pad, eos, bos, unk; <unusedN>; the turn marks; runs of newlines and of
spaces, and HTML tags, as user-defined pieces; bytes; joined pieces, best first; single characters; image marks and more
<unusedN>; and <image_soft_token>, for which the embedding has no row. Pieces are learnt from the texts first; the rest
are made up by joining earlier ones at random, and stand for all that a text of one job never uses.
"""

import io
import json
import random
from pathlib import Path
from typing import Any

SPACE = "▁"
MARKS = ("pad", "eos", "bos", "unk", "mask")
TAGS = ["table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", *(f"h{n}" for n in range(1, 7))]
TAGS += ["blockquote", "strong", "em", "b", "i", "u", "s", "sub", "sup", "code"]
SPECIAL = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")
IMAGE_SOFT = "<image_soft_token>"
# where characters of their own are taken from: Latin to Arabic, kana, CJK, Hangul, emoji
BLOCKS = ((33, 0x600), (0x3041, 0x30FF), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0x1F300, 0x1F650))
TEMPLATE = Path(__file__).resolve().parents[1] / "potstill/nano/chat_template.jinja"


def layout(texts: list[str], size: int, learnt: int, characters: int, seed: int = 7) -> tuple[list[str], list[str]]:
    """All pieces in id order, and those of them that are joined of others or single characters."""
    head = [f"<{name}>" for name in MARKS] + ["[multimodal]"] + [f"<unused{n}>" for n in range(99)]
    head += SPECIAL[:2]
    head += ["\n" * n for n in range(1, 32)] + [SPACE * n for n in range(2, 33)]
    head += [f"<{name}>" for name in TAGS] + [f"</{name}>" for name in TAGS]
    head += [f"<0x{byte:02X}>" for byte in range(256)]
    own = sorted({c for text in texts for c in text} - {" ", "\n"})
    others = [chr(c) for first, last in BLOCKS for c in range(first, last) if chr(c).isprintable()]
    singles = list(dict.fromkeys([SPACE, *own, *others]))[:characters]
    known = set(singles)
    # about as large a share as in Gemma 3
    spare = size // 43
    room = size - len(head) - len(singles) - 2 - spare
    joined = [piece for piece in learn(texts, learnt) if known.issuperset(piece)]
    joined = made_up(joined[:room], singles, room, seed)
    tail = [*SPECIAL[2:4], *(f"<unused{99 + n}>" for n in range(spare))]
    return [*head, *joined, *singles, *tail], [*joined, *singles]


def learn(texts: list[str], count: int) -> list[str]:
    """Joined pieces of a SentencePiece BPE model trained on the texts, best first."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.splitlines() if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=count,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        max_sentence_length=100_000,
        num_threads=1,
        minloglevel=2,
    )
    slow = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [slow.id_to_piece(i) for i in range(slow.vocab_size()) if not slow.is_byte(i) and not slow.is_control(i)]
    # runs of spaces are pieces of their own
    return [piece for piece in pieces if len(piece) > 1 and piece.strip(SPACE) and not piece.startswith("<unk")]


def made_up(pieces: list[str], singles: list[str], count: int, seed: int) -> list[str]:
    """The pieces, and random joins of two of them or of characters, up to `count`."""
    rng = random.Random(seed)
    found, known = list(pieces), set(pieces)
    letters = [c for c in singles if c.isalpha()]
    while len(found) < count:
        left = rng.choice(found) if found and rng.random() < 0.8 else rng.choice(letters)
        right = rng.choice(found) if found and rng.random() < 0.6 else rng.choice(letters)
        piece = left + right
        if len(piece) <= 16 and piece not in known and SPACE not in right and (left + right).strip(SPACE).isalpha():
            known.add(piece)
            found.append(piece)
    return found


def write_tokenizer(
    folder: Path, texts: list[str], size: int, learnt: int, characters: int, marks: str = "user-defined"
) -> Path:
    """tokenizer.model, tokenizer.json, tokenizer_config.json in the form of the hub's, and the chat template.

    `marks` is what the turn marks are in SentencePiece: "user-defined", as I take Gemma's to be, or "control".
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces, normal = layout(texts, size, learnt, characters)
    if len(pieces) != size:
        raise ValueError(f"{len(pieces)} pieces, want {size}")
    joinable = set(normal)
    (folder / "tokenizer.model").write_bytes(_sentencepiece(pieces, joinable, marks))
    added = [_added(i, p) for i, p in enumerate(pieces) if p not in joinable and not _is_byte(p)]
    added.append(_added(size, IMAGE_SOFT))
    (folder / "tokenizer.json").write_text(json.dumps(_huggingface(pieces, normal, added), ensure_ascii=False))
    roles = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    roles |= {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": IMAGE_SOFT}
    extra = {key: roles[key] for key in ("boi_token", "eoi_token", "image_token")}
    settings = {"add_bos_token": True, "add_eos_token": False, **roles, "extra_special_tokens": extra}
    settings |= {"added_tokens_decoder": {str(e["id"]): {k: e[k] for k in e if k != "id"} for e in added}}
    settings |= {"clean_up_tokenization_spaces": False, "tokenizer_class": "GemmaTokenizer", "model_max_length": 8192}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    (folder / "added_tokens.json").write_text(json.dumps({IMAGE_SOFT: size}))
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text())
    return folder


def write_model(folder: Path, size: int, dtype: str = "float32", seed: int = 0, **shape: Any) -> Path:
    """Random Gemma 3 weights beside the tokenizer; logits lie apart, for a tie is broken by rounding."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(seed)
    settings = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    settings |= {"num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}
    settings |= {"max_position_embeddings": 1024, "bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0}
    model = Gemma3ForCausalLM._from_config(Gemma3TextConfig(**settings | {"vocab_size": size} | shape))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0, 0.3 if name.endswith("norm.weight") else weight.shape[-1] ** -0.5)
            # with tied weights a token would answer itself, did the layers not add more than the embedding
            if "post_" in name:
                weight.add_(2.0)
        model.model.norm.weight.add_(4.0)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def _sentencepiece(pieces: list[str], normal: set[str], marks: str) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    model: Any = vars(sentencepiece_model_pb2)["ModelProto"]()
    kind = model.SentencePiece
    control = {"<pad>", "<eos>", "<bos>"} | (set(SPECIAL) if marks == "control" else set())
    rank = 0
    for piece in pieces:
        known = kind.CONTROL if piece in control else kind.BYTE if _is_byte(piece) else kind.USER_DEFINED
        if piece in normal:
            model.pieces.add(piece=piece, score=float(-rank), type=kind.NORMAL)
            rank += 1
        else:
            model.pieces.add(piece=piece, score=0.0, type=kind.UNKNOWN if piece == "<unk>" else known)
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(pieces), True
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = 0, 1, 2, 3
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece = "<pad>", "<eos>", "<bos>"
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = model.normalizer_spec.remove_extra_whitespaces = False
    return model.SerializeToString(deterministic=True)


def _huggingface(pieces: list[str], normal: list[str], added: list[dict[str, Any]]) -> dict[str, Any]:
    # transformers' converter writes a tab in place of its byte
    vocab = {"\t" if piece == "<0x09>" else piece: i for i, piece in enumerate(pieces)}
    runs = [piece for piece in pieces if len(piece) > 1 and (set(piece) in ({"\n"}, {SPACE}))]
    merges = [
        [piece[:k], piece[k:]]
        for piece in [*runs, *normal]
        for k in range(1, len(piece))
        if piece[:k] in vocab and piece[k:] in vocab
    ]
    bos = {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}
    single = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    return {
        **{"version": "1.0", "truncation": None, "padding": None, "added_tokens": added},
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        **{"pre_tokenizer": None, "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair}},
        "decoder": {"type": "Sequence", "decoders": [*decoders, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            **{"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None},
            **{"end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False},
            **{"vocab": vocab, "merges": merges},
        },
    } | {"post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": bos}}


def _added(i: int, text: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": i, "content": text, **flags, "special": text in SPECIAL or text.strip("<>") in MARKS}


def _is_byte(piece: str) -> bool:
    return piece.startswith("<0x") and len(piece) == 6
