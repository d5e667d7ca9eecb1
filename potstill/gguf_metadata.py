"""The metadata of a GGUF file: what config.json says of a Gemma 3 text model, and where the model comes from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.stop import DATA, Stop

ARCHITECTURE = "Gemma3ForCausalLM"
# llama.cpp slides every layer but each sixth when the file does not say otherwise
DEFAULT_PERIOD = 6
# config.json keys whose other values llama.cpp's Gemma 3 graph does not compute
FIXED = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "rope_scaling": None,
}


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from: general.* keys of the GGUF specification. What is None is not written."""

    finetune: str | None = None  # what it was tuned for: the workload
    version: str | None = None  # of the tuned model: the run
    base_name: str | None = None
    base_version: str | None = None  # the revision
    base_url: str | None = None
    dataset_name: str | None = None
    dataset_version: str | None = None
    licence_link: str | None = None
    quantized_by: str | None = "Potstill"


def read_config(model_dir: Path) -> dict[str, Any]:
    """config.json of a Gemma 3 text model. Raises Stop 65 naming the architecture or key that cannot be written."""
    config = read_json(model_dir / "config.json")
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


def read_json(path: Path) -> dict[str, Any]:
    """Raises Stop 65 when the file is not there."""
    if not path.is_file():
        raise Stop(f"{path} is not there; want a whole Hugging Face model folder", DATA)
    return json.loads(path.read_text(encoding="utf-8"))


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


def add_architecture(writer: Any, config: dict[str, Any], file_type: str) -> None:
    """Writes the gemma3.* keys, and what kind of file it is."""
    import gguf

    writer.add_type("model")
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


def add_general(writer: Any, name: str, licence: str | None, source: Provenance, parameters: int) -> None:
    """Writes who the model is. llama.cpp takes its sampling from here where a request names none: greedy, as graded."""
    import gguf

    writer.add_name(name)
    writer.add_sampling_temp(0.0)
    writer.add_sampling_top_k(1)
    # the writer leaves out empty strings
    writer.add_license(licence or "")
    writer.add_license_link(source.licence_link or "")
    writer.add_finetune(source.finetune or "")
    writer.add_version(source.version or "")
    writer.add_quantized_by(source.quantized_by or "")
    writer.add_size_label(gguf.size_label(parameters, 0, 0, 0))
    if source.base_name:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, source.base_name)
        writer.add_base_model_version(0, source.base_version or "")
        writer.add_base_model_repo_url(0, source.base_url or "")
    if source.dataset_name:
        writer.add_dataset_count(1)
        writer.add_dataset_name(0, source.dataset_name)
        writer.add_dataset_version(0, source.dataset_version or "")


def add_importance(writer: Any, entries: int, dataset: str | None, rows: int | None) -> None:
    """Writes the keys that llama-quantize leaves of an importance matrix; a chunk is one prompt here."""
    writer.add_string("quantize.imatrix.dataset", dataset or "")
    writer.add_uint32("quantize.imatrix.entries_count", entries)
    if rows:
        writer.add_uint32("quantize.imatrix.chunks_count", rows)


def _rope_bases(config: dict[str, Any]) -> tuple[float, float]:
    """(full attention, sliding attention), from the keys of transformers 5 or of 4."""
    nested = config.get("rope_parameters")
    if not nested:
        return config["rope_theta"], config["rope_local_base_freq"]
    for kind, parameters in nested.items():
        if parameters.get("rope_type", "default") != "default":
            raise Stop(f"config.json: rope_parameters.{kind} is of type {parameters['rope_type']}; want default", DATA)
    return nested["full_attention"]["rope_theta"], nested["sliding_attention"]["rope_theta"]
