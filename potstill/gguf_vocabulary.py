"""The vocabulary of a GGUF file: tokens, scores, types, special ids and chat template of a Gemma 3 folder."""

import re
from pathlib import Path
from typing import Any

from potstill.gguf_metadata import read_json
from potstill.stop import DATA, Stop

END_OF_TURN = "<end_of_turn>"
# llama.cpp's converter gives added tokens this score; they are matched as whole pieces and never merged by it
ADDED_TOKEN_SCORE = -1000.0
PADDING_SCORE = -10000.0


def read_vocabulary(model_dir: Path, size: int) -> list[tuple[str, float, int]]:
    """(text, score, token type) of every token id: tokenizer.model, then the added tokens of tokenizer.json.

    Added tokens are what Hugging Face splits a text at first; llama.cpp does so with control and user-defined tokens,
    and it compares those with the text before spaces become "▁". Ids without a token are unused. Raises Stop 65 when a
    file is not there or has more tokens than `size`.
    """
    from gguf import TokenType
    from sentencepiece import SentencePieceProcessor

    path = model_dir / "tokenizer.model"
    if not path.is_file():
        raise Stop(f"{path} is not there; a GGUF needs the SentencePiece model of the tokenizer", DATA)
    pieces = SentencePieceProcessor(model_file=str(path))
    if pieces.vocab_size() > size:
        raise Stop(f"{path} has {pieces.vocab_size()} tokens, config.json a vocab_size of {size}", DATA)
    tokens = [(f"[PAD{i}]", PADDING_SCORE, int(TokenType.UNUSED)) for i in range(size)]
    ids = list(range(pieces.vocab_size()))
    tokens[: len(ids)] = zip(pieces.id_to_piece(ids), pieces.get_score(ids), _piece_types(pieces, ids), strict=True)
    for added in read_json(model_dir / "tokenizer.json").get("added_tokens", []):
        i, text = added["id"], added["content"]
        if i >= size:  # an id the embedding has no row for can never be fed to the model
            continue
        if added["special"] or text == "<pad>" or re.fullmatch(r"<unused\d+>", text):
            tokens[i] = (text, ADDED_TOKEN_SCORE, int(TokenType.CONTROL))
        else:
            tokens[i] = (text.replace("▁", " "), ADDED_TOKEN_SCORE, int(TokenType.USER_DEFINED))
    return tokens


def chat_template(model_dir: Path) -> str | None:
    """The chat template of a tokenizer folder, from its own file or from tokenizer_config.json."""
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return read_json(model_dir / "tokenizer_config.json").get("chat_template")


def add_vocabulary(writer: Any, model_dir: Path, vocabulary: list[tuple[str, float, int]]) -> None:
    """Writes the tokenizer.* keys."""
    from gguf import GGUFValueType, Keys

    texts = [text for text, _, _ in vocabulary]
    ids = {text: i for i, text in reversed(list(enumerate(texts)))}
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    # told the type, the writer does not look at each of 262,144 items twice
    for key, items, kind in (
        (Keys.Tokenizer.LIST, texts, GGUFValueType.STRING),
        (Keys.Tokenizer.SCORES, [score for _, score, _ in vocabulary], GGUFValueType.FLOAT32),
        (Keys.Tokenizer.TOKEN_TYPE, [token_type for _, _, token_type in vocabulary], GGUFValueType.INT32),
    ):
        writer.add_key_value(key, items, GGUFValueType.ARRAY, sub_type=kind)
    settings = read_json(model_dir / "tokenizer_config.json")
    for role in ("bos", "eos", "unk", "pad", "mask"):
        token = settings.get(f"{role}_token")
        text = token["content"] if isinstance(token, dict) else token
        if text in ids:
            getattr(writer, f"add_{role}_token_id")(ids[text])
    if END_OF_TURN in ids:
        writer.add_eot_token_id(ids[END_OF_TURN])
    writer.add_add_bos_token(settings.get("add_bos_token", True))
    writer.add_add_eos_token(settings.get("add_eos_token", False))
    writer.add_add_space_prefix(False)
    if template := chat_template(model_dir):
        writer.add_chat_template(template)


def _piece_types(pieces: Any, ids: list[int]) -> list[int]:
    from gguf import TokenType

    tests = {"unknown": TokenType.UNKNOWN, "control": TokenType.CONTROL, "unused": TokenType.UNUSED}
    tests["byte"] = TokenType.BYTE
    found = [int(TokenType.NORMAL)] * len(ids)
    for name, kind in tests.items():
        for i, is_kind in enumerate(getattr(pieces, f"is_{name}")(ids)):
            if is_kind:
                found[i] = int(kind)
    return found
