"""The artifacts of a package, each rounded once from the merged float32 weights."""

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from potstill import compressed, gguf, gguf_types, imatrix, models, package, progress, sealing, weights
from potstill.bases import HUB_ID
from potstill.files import write_json
from potstill.package import GGUF_TYPES, PackageConfig
from potstill.runs import RunRecord

# rows on which the activations of an fp16 artifact are looked at
ACTIVATION_ROWS = 8


def write(
    record: RunRecord, settings: PackageConfig, whole: Path, out: Path, prompts: list[list[int]], terms: str
) -> dict[str, Any]:
    """Writes every artifact of `settings` into `out` and returns what was done, by artifact.

    `prompts` are the token ids of train rows, answers included; `terms` is the licence. Raises Stop 65 when the model
    cannot be written in a wanted form.
    """
    wanted = {GGUF_TYPES[kind] for kind in settings.artifacts if kind in GGUF_TYPES} & set(gguf_types.WEIGHTED)
    importance = imatrix.collect(whole, prompts) if settings.imatrix and wanted else None
    made: dict[str, Any] = {}
    for kind in progress.track(settings.artifacts, "export"):
        began = time.monotonic()
        if kind in GGUF_TYPES:
            report = gguf.write_gguf(
                whole,
                out / kind / package.gguf_name(record.run, kind),
                GGUF_TYPES[kind],
                name=record.run,
                licence=terms,
                source=_provenance(record),
                importance=importance,
                calibration=(f"{record.workload} {record.snapshot} train", len(imatrix.chosen(prompts))),
            )
            made[kind] = asdict(report)
            if report.fallbacks:
                print(f"{kind}: {report.fallbacks} tensors are no multiple of 256 wide and took a type of 32 instead")
        elif kind in compressed.SCHEMES:
            made[kind] = compressed.write(whole, out / kind, cast(compressed.Scheme, kind), prompts).model_dump()
        else:
            made[kind] = _half(whole, out / kind, kind, Path(record.base.path), prompts)
        made[kind] = {**made[kind], "bytes": sealing.size_of(out / kind), "seconds": time.monotonic() - began}
    return made


def _half(whole: Path, out: Path, kind: str, base: Path, prompts: list[list[int]]) -> dict[str, Any]:
    """bf16 or fp16. Raises Stop 65 when a weight, or an activation on some train rows, does not fit into float16."""
    import torch

    found: dict[str, Any] = {}
    if kind == "fp16":
        found["range"] = asdict(weights.check_range(whole))
        single, _ = models.load_folder(whole, torch.float32)
        found["activation"] = asdict(weights.check_activations(single, prompts[:ACTIVATION_ROWS]))
    model, _ = models.load_folder(whole, torch.bfloat16 if kind == "bf16" else torch.float16)
    save_folder(model, base, out)
    return found


def _provenance(record: RunRecord) -> gguf.Provenance:
    known = HUB_ID.match(record.base.name) is not None
    return gguf.Provenance(
        finetune=record.workload,
        version=record.run,
        base_name=record.base.name,
        base_version=record.base.revision,
        base_url=f"https://huggingface.co/{record.base.name}" if known else None,
        dataset_name=record.workload,
        dataset_version=record.snapshot,
    )


def save_folder(model: Any, base: Path, out: Path) -> None:
    """A Hugging Face folder: weights in the model's dtype, config, tokenizer, and a greedy generation config."""
    model.save_pretrained(out)
    for path in out.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes 0600; a package is read by the user a service runs as
    for name in models.TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    # none of the base's sampling defaults: an extraction wants the likeliest answer
    tokens = {key: getattr(model.generation_config, f"{key}_token_id") for key in ("bos", "eos", "pad")}
    settings = {f"{key}_token_id": value for key, value in tokens.items() if value is not None}
    write_json(out / "generation_config.json", {**settings, "do_sample": False})
