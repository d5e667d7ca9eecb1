"""Writes a Hugging Face Gemma 3 text model folder as one GGUF file that llama.cpp and Ollama load.

    write_gguf(Path("models/nano"), Path("nano.gguf"), "Q8_0")

Format: the GGUF specification of ggml, version 3; key and tensor names are those of the `gguf` library's GEMMA3
architecture. Weights are rounded once, from the dtype they are stored in straight to the file type. One tensor is in
memory at a time. The same input gives the same bytes.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.stop import DATA, USAGE, Stop

FILE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
# also the head where the weights are tied, which suffers most from four bits: llama.cpp gives it eight in a Q4_0 file
EIGHT_BITS = ("model.embed_tokens.weight", "lm_head.weight")
ARCHITECTURE = "Gemma3ForCausalLM"
END_OF_TURN = "<end_of_turn>"
# llama.cpp slides every layer but each sixth when the file does not say otherwise
DEFAULT_PERIOD = 6
# llama.cpp's converter gives added tokens this score; they are matched as whole pieces and never merged by it
ADDED_TOKEN_SCORE = -1000.0
PADDING_SCORE = -10000.0
# config.json keys whose other values llama.cpp's Gemma 3 graph does not compute
FIXED = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "rope_scaling": None,
}


def write_gguf(
    model_dir: Path, path: Path, file_type: str, *, name: str | None = None, licence: str | None = None
) -> None:
    """Writes `model_dir` to `path`, whole or not at all.

    `file_type` is that of matrices; norms stay F32, and in a Q4_0 file the embedding is Q8_0. A matrix whose rows are
    no multiple of the block size (32 for Q8_0 and Q4_0) becomes F16. Raises Stop 2 for an unknown file type and Stop 65
    when the folder is no Gemma 3 text model that llama.cpp computes alike.
    """
    import gguf

    if file_type not in FILE_TYPES:
        raise Stop(f"no GGUF file type {file_type!r}; want one of {', '.join(FILE_TYPES)}", USAGE)
    model_dir, path = Path(model_dir), Path(path)
    config = read_config(model_dir)
    vocabulary = read_vocabulary(model_dir, config["vocab_size"])
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GEMMA3])
    try:
        _add_metadata(writer, config, file_type, name or model_dir.name, licence)
        _add_vocabulary(writer, model_dir, vocabulary)
        _write_tensors(writer, model_dir, config, file_type)
        writer.close()
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        writer.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_config(model_dir: Path) -> dict[str, Any]:
    """config.json of a Gemma 3 text model. Raises Stop 65 naming the architecture or key that cannot be written."""
    config = _read_json(model_dir / "config.json")
    found = config.get("architectures") or [config.get("model_type")]
    if found != [ARCHITECTURE]:
        raise Stop(
            f"{model_dir}/config.json: architecture {', '.join(map(str, found))} cannot be written as GGUF; "
            f"want {ARCHITECTURE}",
            DATA,
        )
    wanted = {**FIXED, "query_pre_attn_scalar": config["head_dim"]}
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise Stop(
                f"{model_dir}/config.json: {key} is {config[key]!r}; llama.cpp computes Gemma 3 only with {value!r}",
                DATA,
            )
    return config


def read_vocabulary(model_dir: Path, size: int) -> list[tuple[str, float, int]]:
    """(text, score, token type) of every token id: tokenizer.model, then the added tokens of tokenizer.json.

    Added tokens are what Hugging Face splits a text at first; llama.cpp does so with control and user-defined tokens,
    and it compares those with the text before spaces become "▁". Ids without a token are unused.
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
    for i in range(pieces.vocab_size()):
        tokens[i] = (pieces.id_to_piece(i), pieces.get_score(i), int(_piece_type(pieces, i)))
    for added in _read_json(model_dir / "tokenizer.json").get("added_tokens", []):
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
    return _read_json(model_dir / "tokenizer_config.json").get("chat_template")


def sliding_period(config: dict[str, Any]) -> int:
    """Every how many layers one attends to everything. Raises Stop 65 when the layers follow no such rule."""
    layers = config["num_hidden_layers"]
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or DEFAULT_PERIOD
    types = config.get("layer_types")
    if types is None:
        return period
    full = [i for i, kind in enumerate(types) if kind == "full_attention"]
    period = full[0] + 1 if full else max(DEFAULT_PERIOD, layers + 1)
    # llama.cpp ends the process over a model in which no layer slides
    if period == 1 or full != list(range(period - 1, layers, period)) or len(types) != layers:
        raise Stop("config.json: layer_types are not 'sliding but for every n-th layer', which a GGUF can say", DATA)
    # without any full layer both rules say the same, and older readers know only the default one
    return DEFAULT_PERIOD if not full and layers < DEFAULT_PERIOD else period


def _add_metadata(writer: Any, config: dict[str, Any], file_type: str, name: str, licence: str | None) -> None:
    import gguf

    writer.add_type("model")
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    everywhere, local = _rope_bases(config)
    writer.add_rope_freq_base(everywhere)
    writer.add_rope_freq_base_swa(local)
    writer.add_sliding_window(config["sliding_window"])
    if (period := sliding_period(config)) != DEFAULT_PERIOD:
        writer.add_sliding_window_pattern(period)
    writer.add_vocab_size(config["vocab_size"])
    kind = "ALL_F32" if file_type == "F32" else f"MOSTLY_{file_type}"
    writer.add_file_type(int(gguf.LlamaFileType[kind]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _rope_bases(config: dict[str, Any]) -> tuple[float, float]:
    """(full attention, sliding attention), from the keys of transformers 5 or of 4."""
    nested = config.get("rope_parameters")
    if not nested:
        return config["rope_theta"], config["rope_local_base_freq"]
    for kind, parameters in nested.items():
        if parameters.get("rope_type", "default") != "default":
            raise Stop(f"config.json: rope_parameters.{kind} is of type {parameters['rope_type']}; want default", DATA)
    return nested["full_attention"]["rope_theta"], nested["sliding_attention"]["rope_theta"]


def _add_vocabulary(writer: Any, model_dir: Path, vocabulary: list[tuple[str, float, int]]) -> None:
    texts = [text for text, _, _ in vocabulary]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([score for _, score, _ in vocabulary])
    writer.add_token_types([kind for _, _, kind in vocabulary])
    settings = _read_json(model_dir / "tokenizer_config.json")
    for role in ("bos", "eos", "unk", "pad"):
        token = settings.get(f"{role}_token")
        text = token["content"] if isinstance(token, dict) else token
        if text in texts:
            getattr(writer, f"add_{role}_token_id")(texts.index(text))
    if END_OF_TURN in texts:
        writer.add_eot_token_id(texts.index(END_OF_TURN))
    writer.add_add_bos_token(settings.get("add_bos_token", True))
    writer.add_add_eos_token(settings.get("add_eos_token", False))
    writer.add_add_space_prefix(False)
    if template := chat_template(model_dir):
        writer.add_chat_template(template)


def _write_tensors(writer: Any, model_dir: Path, config: dict[str, Any], file_type: str) -> None:
    import gguf
    import numpy as np

    layers = config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, layers)
    plan = {}
    for source, shape, read in _stored_tensors(model_dir):
        if source == "lm_head.weight" and config.get("tie_word_embeddings", True):
            continue
        target = names.get_name(source, try_suffixes=(".weight",))
        if target is None:
            raise Stop(f"{model_dir}: tensor {source!r} is unknown to Gemma 3 in GGUF", DATA)
        plan[target] = (source, shape, _tensor_type(source, shape, file_type), read)
    wanted = 2 + 13 * layers + (not config.get("tie_word_embeddings", True))
    if len(plan) != wanted or plan["token_embd.weight"][1][0] != config["vocab_size"]:
        rows = config["vocab_size"]
        raise Stop(f"{model_dir}: found {len(plan)} tensors, want {wanted}, and {rows} rows in the embedding", DATA)
    for target, (_, shape, kind, _) in plan.items():
        block, size = gguf.GGML_QUANT_SIZES[kind]
        nbytes = int(np.prod(shape)) // block * size
        writer.add_tensor_info(target, shape, np.dtype(np.float32), nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for source, _, kind, read in plan.values():
        values = read()
        if source.endswith("norm.weight"):
            values = values + np.float32(1)  # Hugging Face's RMSNorm multiplies by 1 + weight, llama.cpp's by weight
        if kind == gguf.GGMLQuantizationType.F16 and np.abs(values).max() > np.finfo(np.float16).max:
            raise Stop(f"{model_dir}: tensor {source!r} does not fit in F16; export BF16 or Q8_0", DATA)
        writer.write_tensor_data(gguf.quants.quantize(values, kind))


def _stored_tensors(model_dir: Path) -> Iterator[tuple[str, list[int], Any]]:
    """(name, shape, function that reads it as a float32 array), in the order of layers."""
    from safetensors import safe_open

    paths = sorted(model_dir.glob("*.safetensors"))
    if not paths:
        raise Stop(f"{model_dir} has no *.safetensors", DATA)
    found = []
    for path in paths:
        # torch, because numpy has no bfloat16
        file = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
            shape = file.get_slice(name).get_shape()
            found.append((name, shape, lambda f=file, n=name: f.get_tensor(n).float().numpy()))
    layer = re.compile(r"\.layers\.(\d+)\.")
    return iter(sorted(found, key=lambda t: (int(m[1]) if (m := layer.search(t[0])) else -1, t[0])))


def _tensor_type(source: str, shape: list[int], file_type: str) -> Any:
    import gguf

    if len(shape) < 2 or file_type == "F32":
        return gguf.GGMLQuantizationType.F32
    eight = file_type == "Q4_0" and source in EIGHT_BITS
    kind = gguf.GGMLQuantizationType["Q8_0" if eight else file_type]
    return kind if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else gguf.GGMLQuantizationType.F16


def _piece_type(pieces: Any, i: int) -> Any:
    from gguf import TokenType

    if pieces.is_unknown(i):
        return TokenType.UNKNOWN
    if pieces.is_control(i):
        return TokenType.CONTROL
    if pieces.is_unused(i):
        return TokenType.UNUSED
    return TokenType.BYTE if pieces.is_byte(i) else TokenType.NORMAL


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise Stop(f"{path} is not there; want a whole Hugging Face model folder", DATA)
    return json.loads(path.read_text(encoding="utf-8"))
