"""A model folder's vocabulary as files: reads it, and writes the same with some of its tokens under new ids.

Formats: sentencepiece_model.proto of SentencePiece 0.2, tokenizer.json of the tokenizers library, safetensors. A file
that this module does not know how to renumber is refused, never copied with ids that no longer hold.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from potstill import headers
from potstill.files import atomic_open, write_json
from potstill.stop import DATA, Stop

UNUSED_NAME = re.compile(r"<unused\d+>")
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
# what tokenizer.json may say of its model for joining by rank alone to be the whole of it
PLAIN = {"type": "BPE", "byte_fallback": True, "ignore_merges": False, "dropout": None}
PLAIN |= {"continuing_subword_prefix": None, "end_of_word_suffix": None}
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Tokenizer:
    """tokenizer.json and the SentencePiece model of a folder; `rows` is the number of tokens its embedding has."""

    json: dict[str, Any]
    model: Any
    rows: int

    @property
    def vocab(self) -> dict[str, int]:
        """Hugging Face's text of a token -> id. It can differ from SentencePiece's: Gemma has a tab for <0x09>."""
        return self.json["model"]["vocab"]

    @cached_property
    def added(self) -> dict[str, int]:
        return {entry["content"]: entry["id"] for entry in self.json["added_tokens"]}

    @cached_property
    def scores(self) -> list[float]:
        return [piece.score for piece in self.model.pieces]

    def merges(self) -> list[tuple[str, str]]:
        """Best first; older files write a pair as one text with a space between."""
        return [tuple(m.split(" ", 1) if isinstance(m, str) else m) for m in self.json["model"]["merges"]]

    def ranks(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges())}


def read(folder: Path) -> Tokenizer:
    """Raises Stop 65 naming the file that is missing, or what it says that trimming does not support."""
    from sentencepiece import sentencepiece_model_pb2

    path = folder / "tokenizer.model"
    if not path.is_file():
        raise Stop(f"{path} is not there; trimming needs the SentencePiece model. Give -o vocabulary=keep.", DATA)
    model = vars(sentencepiece_model_pb2)["ModelProto"]()
    model.ParseFromString(path.read_bytes())
    if model.trainer_spec.model_type != model.trainer_spec.BPE or not model.trainer_spec.byte_fallback:
        raise Stop(
            f"{path} is no BPE model with byte fallback, so it cannot be trimmed. Give -o vocabulary=keep.", DATA
        )
    fast = read_json(folder / "tokenizer.json")
    for key, wanted in PLAIN.items():
        if fast["model"].get(key, wanted) != wanted:
            found = fast["model"][key]
            raise Stop(f"{folder}/tokenizer.json: model.{key} is {found!r}, want {wanted!r} for trimming.", DATA)
    rows = read_json(folder / "config.json")["vocab_size"]
    if len(model.pieces) > rows:
        raise Stop(f"{path} has {len(model.pieces)} pieces, config.json a vocab_size of {rows}.", DATA)
    return Tokenizer(fast, model, rows)


def named_ids(folder: Path, tokenizer: Tokenizer) -> set[int]:
    """Ids that the folder's configs name by a role, such as pad_token, whatever the texts have."""
    ids: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        ids |= {i for key, value in _optional(folder / name).items() if _is_id_key(key) for i in _listed(value)}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for key, value in _optional(folder / name).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and text in tokenizer.added:
                ids.add(tokenizer.added[text])
    return {i for i in ids if 0 <= i < tokenizer.rows}


def write_tokenizer(source: Path, tokenizer: Tokenizer, new_ids: dict[int, int], target: Path) -> None:
    """tokenizer.model, tokenizer.json and their companions with the tokens of `new_ids` (old id -> new id)."""
    with atomic_open(target / "tokenizer.model", "wb") as file:
        file.write(_sentencepiece(tokenizer.model, new_ids))
    with atomic_open(target / "tokenizer.json") as file:
        json.dump(_huggingface(tokenizer, new_ids, source), file, ensure_ascii=False)
    gone = {text for text, i in tokenizer.added.items() if i not in new_ids}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if values := _optional(source / name):
            if "added_tokens_decoder" in values:
                decoder = values["added_tokens_decoder"].items()
                values["added_tokens_decoder"] = {str(new_ids[int(i)]): v for i, v in decoder if int(i) in new_ids}
            write_json(target / name, _without(values, gone))
    if values := _optional(source / "added_tokens.json"):
        write_json(target / "added_tokens.json", {t: new_ids[i] for t, i in values.items() if i in new_ids})


def write_configs(source: Path, new_ids: dict[int, int], target: Path) -> None:
    """config.json with the new vocab_size, and generation_config.json; token ids in both are the new ones."""
    for name in ("config.json", "generation_config.json"):
        values = _optional(source / name)
        for key in filter(_is_id_key, values):
            if (old := values[key]) is not None:
                mapped = [new_ids[i] for i in _listed(old) if i in new_ids]
                values[key] = mapped if isinstance(old, list) else next(iter(mapped), None)
        if name == "config.json":
            values["vocab_size"] = len(new_ids)
        if values:
            write_json(target / name, values)


def write_weights(source: Path, rows: int, kept: list[int], target: Path) -> None:
    """The safetensors file with the `kept` of the `rows` of its embedding, and of its head when that is not tied.

    Bytes are copied, whatever the dtype, and never more than some thousand rows are in memory. Raises Stop 65 when the
    file is damaged or its embedding has another number of rows.
    """
    import numpy as np

    try:
        tensors = headers.read_safetensors(source)
    except headers.BadHeader as error:
        raise Stop(f"{source}: {error}. Download the base again.", DATA) from None
    cut = [t for t in tensors if t.name in EMBEDDINGS]
    if EMBEDDINGS[0] not in {t.name for t in cut} or any(t.shape[0] != rows for t in cut):
        found = {t.name: t.shape for t in cut} or "none"
        raise Stop(f"{source}: embeddings are {found}, want {EMBEDDINGS[0]} with the {rows} rows of config.json.", DATA)
    with open(source, "rb") as file:
        first = 8 + int.from_bytes(file.read(8), "little")
    data = np.memmap(source, np.uint8, "r", offset=first)
    plan = [(t, [len(kept), *t.shape[1:]] if t in cut else t.shape) for t in tensors]
    with atomic_open(target, "wb") as file:
        file.write(_header(plan, rows, len(kept)))
        for tensor, _ in plan:
            stored = data[tensor.start : tensor.start + tensor.nbytes]
            if tensor not in cut:
                file.write(stored)
                continue
            table = stored.reshape(rows, -1)
            for start in range(0, len(kept), CHUNK_ROWS):
                file.write(table[kept[start : start + CHUNK_ROWS]].tobytes())


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise Stop(f"{path} is not there; want a whole Hugging Face model folder.", DATA)
    return json.loads(path.read_text(encoding="utf-8"))


def _header(plan: list[tuple[headers.Tensor, list[int]]], rows: int, kept: int) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor, shape in plan:
        nbytes = tensor.nbytes if shape == tensor.shape else tensor.nbytes // rows * kept
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data is aligned to 8 bytes
    return len(text).to_bytes(8, "little") + text


def _sentencepiece(model: Any, new_ids: dict[int, int]) -> bytes:
    trimmed = type(model)()
    trimmed.CopyFrom(model)
    del trimmed.pieces[:]
    trimmed.pieces.extend(piece for i, piece in enumerate(model.pieces) if i in new_ids)
    # such as the self-test of the whole vocabulary, which loading would repeat
    trimmed.DiscardUnknownFields()
    trainer = trimmed.trainer_spec
    trainer.vocab_size = len(trimmed.pieces)
    for role in ("unk_id", "bos_id", "eos_id", "pad_id"):
        setattr(trainer, role, new_ids.get(getattr(trainer, role), -1))
    left = {piece.piece for piece in trimmed.pieces}
    for symbols in (trainer.user_defined_symbols, trainer.control_symbols):
        symbols[:] = [symbol for symbol in symbols if symbol in left]
    return trimmed.SerializeToString(deterministic=True)


def _huggingface(tokenizer: Tokenizer, new_ids: dict[int, int], source: Path) -> dict[str, Any]:
    vocab = tokenizer.vocab
    pairs = zip(tokenizer.json["model"]["merges"], tokenizer.merges(), strict=True)
    merges = [raw for raw, (a, b) in pairs if all(vocab[piece] in new_ids for piece in (a, b, a + b))]
    left = sorted(((text, new_ids[i]) for text, i in vocab.items() if i in new_ids), key=lambda item: item[1])
    added = [{**e, "id": new_ids[e["id"]]} for e in tokenizer.json["added_tokens"] if e["id"] in new_ids]
    trimmed = tokenizer.json | {"added_tokens": sorted(added, key=lambda e: e["id"])}
    trimmed["model"] = tokenizer.json["model"] | {"vocab": dict(left), "merges": merges}
    trimmed["post_processor"] = _post_processor(tokenizer.json.get("post_processor"), new_ids, source)
    if padding := trimmed.get("padding"):
        trimmed["padding"] = padding | {"pad_id": new_ids[padding["pad_id"]]}
    return trimmed


def _post_processor(value: dict[str, Any] | None, new_ids: dict[int, int], source: Path) -> dict[str, Any] | None:
    kind = (value or {}).get("type")
    if value is None or kind == "ByteLevel":
        return value
    if kind == "Sequence":
        return value | {"processors": [_post_processor(v, new_ids, source) for v in value["processors"]]}
    if kind != "TemplateProcessing":
        raise Stop(f"{source}/tokenizer.json: post_processor {kind} is not supported. Give -o vocabulary=keep.", DATA)
    tokens = {k: v | {"ids": [new_ids[i] for i in v["ids"]]} for k, v in value["special_tokens"].items()}
    return value | {"special_tokens": tokens}


def _without(value: Any, gone: set[str]) -> Any:
    """A config without the entries that name a token which is no more: a loader would add it again, without a row."""
    if isinstance(value, dict):
        return {key: _without(item, gone) for key, item in value.items() if not _names(item, gone)}
    return [_without(item, gone) for item in value if not _names(item, gone)] if isinstance(value, list) else value


def _names(item: Any, gone: set[str]) -> bool:
    text = item.get("content") if isinstance(item, dict) else item
    return isinstance(text, str) and text in gone


def _is_id_key(key: str) -> bool:
    return key.endswith(("_token_id", "_token_index", "suppress_tokens"))


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _optional(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
