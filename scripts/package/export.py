"""Packages a trained run: bf16 safetensors for vLLM and transformers, GGUF with a Modelfile for llama.cpp and Ollama.

Run: python -m scripts.package.export -r <run> -c default        (or: fab package.export -r <run>)
The package is built beside models/<run>/package/ and renamed over it when whole, so there is never half a package.

Every artifact is rounded once, from the merged float32 weights: those are what eval.generate grades, so F16 (11 bits of
mantissa) and Q8_0 stay nearer to the graded model than they would by way of bf16 (8 bits).
"""

import os
import shutil
from pathlib import Path
from typing import Any

from potstill import (
    cli,
    gguf,
    manifest,
    modelfile,
    models,
    package,
    progress,
    project,
    prompt,
    runs,
    snapshots,
    workload,
)
from potstill.files import sha256_text, stage_lock, write_json, write_text
from potstill.package import GGUF_TYPES, PackageConfig
from potstill.records import Example
from potstill.runs import RunRecord
from potstill.stop import DATA, Stop

GEMMA_NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

The model in this package is a Model Derivative of {base} in the sense of those terms: its weights were changed by
fine-tuning. Whoever receives it is bound by the use restrictions of the Gemma Prohibited Use Policy
(ai.google.dev/gemma/prohibited_use_policy), and whoever passes it on passes on this notice and a copy of the terms.
"""
OLLAMA_README = """\
# {run} ({kind})

    ollama create {run} -f Modelfile
    ollama run {run}

Run both in this folder. {system} Ollama does not trim a message as training did: send it without white space around it.
"""
RUNTIMES = {
    "bf16": {
        "transformers": "loads as it is; the same tokenizer and chat template as in training",
        "vllm": "--dtype bfloat16 (vLLM refuses float16 for Gemma 3), temperature 0; not run by package.parity",
    },
    "gguf": {
        "llama.cpp": "loads as it is; graded by package.parity",
        "ollama": "by the Modelfile beside it; its template is derived from the training template, not run here",
    },
}


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__, run=True, config="", dry_run=True).parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    record = runs.require_trained(run)
    config = arguments.config or workload.load(record.workload).settings.package_config
    settings = package.load_config(config, arguments.override)
    target = package.folder(run)
    if arguments.dry_run:
        for kind in settings.artifacts:
            print(f"would write {target / kind}")
        return
    with stage_lock(project.run_folder(run), "package"):
        export(record, settings, target)
    cli.done([*(target / kind for kind in settings.artifacts), target / manifest.NAME], f"fab package.parity -r {run}")


def export(record: RunRecord, settings: PackageConfig, target: Path) -> None:
    """Builds the package of a run and puts it at `target`, in place of an older one."""
    partial, old = target.with_name(".package.partial"), target.with_name(".package.old")
    if old.exists() and not target.exists():  # a kill came between the two renames below
        old.rename(target)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    build(record, settings, partial)
    sync(partial)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def build(record: RunRecord, settings: PackageConfig, out: Path) -> None:
    import torch

    model, tokenizer = models.load_merged(record.run, torch.float32)
    base = Path(record.base.path)
    template = gguf.chat_template(base)
    if template is None or template != tokenizer.chat_template:
        raise Stop(f"{base} has not the chat template that run {record.run} was trained with", DATA)
    examples = list(snapshots.read(record.snapshots["train"]))
    check_context(examples, tokenizer, model, settings.num_ctx)
    system = only_system(examples)
    # hidden from the manifest and gone before it is written
    whole = out / ".float32"
    save_folder(model, base, whole)
    licence = licence_of(record)
    for kind in progress.track(settings.artifacts, "export"):
        if kind == "bf16":
            save_folder(model.to(torch.bfloat16), base, out / kind)
        else:
            name = package.gguf_name(record.run, kind)
            gguf.write_gguf(whole, out / kind / name, GGUF_TYPES[kind], name=record.run, licence=licence)
            write_text(out / kind / "Modelfile", modelfile.modelfile(name, tokenizer, system, settings.num_ctx))
            write_text(out / kind / "README.md", readme(record.run, kind, system))
    shutil.rmtree(whole)
    if licence == "gemma":
        write_text(out / "NOTICE", GEMMA_NOTICE.format(base=record.base.name))
    # the manifest is written last, so its existence means that the package is complete
    manifest.write(
        out,
        run=record,
        train_config=runs.resolved_config(record.run).model_dump(),
        scores=manifest.read_scores(record.run),
        licence=licence,
        num_ctx=settings.num_ctx,
        chat_template_sha256=sha256_text(template),
        system_sha256=sha256_text(system) if system else None,
        runtimes={kind: RUNTIMES[kind.partition("-")[0]] for kind in settings.artifacts},
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


def check_context(examples: list[Example], tokenizer: Any, model: Any, num_ctx: int) -> None:
    """Raises Stop 65 when a row that was trained would not fit what the package serves."""
    if num_ctx > model.config.max_position_embeddings:
        raise Stop(
            f"num_ctx is {num_ctx}, the model reads {model.config.max_position_embeddings} tokens; lower num_ctx "
            f"(-o num_ctx={model.config.max_position_embeddings})",
            DATA,
        )
    for example in examples:
        rendered = prompt.render(example, tokenizer)
        length = len(rendered.prompt_ids) + len(rendered.completion_ids)
        if length > num_ctx:
            raise Stop(
                f"example {example.id} has {length} tokens, num_ctx is {num_ctx}; raise it (-o num_ctx=...)", DATA
            )


def only_system(examples: list[Example]) -> str | None:
    """The system text all rows were trained with; None when they differ, for then each call must bring its own."""
    texts = {example.system for example in examples}
    return texts.pop() or None if len(texts) == 1 else None


def licence_of(record: RunRecord) -> str:
    # a run on the nano base is the project's own; anything else unknown is for the user to say
    name = record.base.name.lower()
    return "gemma" if "gemma" in name else "apache-2.0" if name.rstrip("/").endswith("nano") else "other"


def readme(run: str, kind: str, system: str | None) -> str:
    said = (
        "The Modelfile holds the system text."
        if system
        else "Rows differ in their system text: send it with each call."
    )
    return OLLAMA_README.format(run=run, kind=kind, system=said)


def sync(folder: Path) -> None:
    """Puts every file on the disk before a rename makes them count."""
    for path in (folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    cli.run(main)
