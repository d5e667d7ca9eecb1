"""Packages a trained run: folders for vLLM and transformers, GGUF for llama.cpp, Ollama and the Raspberry Pi.

Run: python -m scripts.package.export -r <run> -c default        (or: fab package.export -r <run>)
The package is built beside models/<run>/package/ and renamed over it when whole, so there is never half a package.

Every artifact is rounded once, from the merged float32 weights: those are what eval.generate grades, so F16 (11 bits of
mantissa) and Q8_0 stay nearer to the graded model than they would by way of bf16 (8 bits). With signing.private_key in
configs/project.yaml the package is signed (docs/signing.md).
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from potstill import (
    artifacts,
    cli,
    gguf,
    licence,
    manifest,
    models,
    package,
    pi,
    project,
    prompt,
    prompt_lookup,
    runs,
    sealing,
    serving,
    snapshots,
    token_lock,
    workload,
)
from potstill.files import sha256_text, stage_lock, write_json
from potstill.package import GGUF_TYPES, PackageConfig
from potstill.prompt import Rendered
from potstill.records import Example
from potstill.runs import RunRecord
from potstill.snapshots import SPLITS
from potstill.stop import DATA, Stop


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__, run=True, config="", dry_run=True).parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    record = runs.require_trained(run)
    config = arguments.config or workload.load(record.workload).settings.package_config
    settings = package.load_config(config, arguments.override, tell=True)
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
    base, job = Path(record.base.path), workload.load(record.workload)
    template = gguf.chat_template(base)
    if template is None or template != tokenizer.chat_template:
        raise Stop(f"{base} has not the chat template that run {record.run} was trained with", DATA)
    examples = list(snapshots.read(record.snapshots["train"]))
    rendered = [prompt.render(example, tokenizer) for example in examples]
    check_context(examples, rendered, model, settings.num_ctx)
    # hidden from the manifest and gone before it is written
    whole = out / ".float32"
    artifacts.save_folder(model, base, whole)
    del model
    terms = licence.of(record)
    done = artifacts.write(record, settings, whole, out, [[*r.prompt_ids, *r.completion_ids] for r in rendered], terms)
    write_json(project.reports(record.run) / "export.json", done)
    shutil.rmtree(whole)
    licence.write(out, terms, record)
    system = only_system(examples)
    ggufs = {kind: package.gguf_name(record.run, kind) for kind in settings.artifacts if kind in GGUF_TYPES}
    serving.write(
        out,
        run=record.run,
        job=job,
        tokenizer=tokenizer,
        system=system,
        num_ctx=settings.num_ctx,
        slots=settings.slots,
        copied=prompt_lookup.steps_saved((r.prompt_ids, r.completion_ids) for r in rendered),
        ggufs=ggufs,
    )
    if settings.pi:
        names = {"run": record.run, "kind": settings.pi, "gguf": ggufs.get(settings.pi, settings.pi)}
        pi.write(out, **names, job=job, system=system, num_ctx=settings.num_ctx)
    check_tokens(record, settings, out, tokenizer)
    said = sealing.seal(
        out,
        record,
        list(settings.artifacts),
        train_config=runs.resolved_config(record.run).model_dump(),
        scores=manifest.read_scores(record.run),
        licence=terms,
        num_ctx=settings.num_ctx,
        chat_template_sha256=sha256_text(template),
        system_sha256=sha256_text(system) if system else None,
    )
    print(said)


def check_tokens(record: RunRecord, settings: PackageConfig, out: Path, tokenizer: Any) -> None:
    """The token lock: every reader of the package sees every row of the snapshot as the ids that were trained on."""
    examples = [example for split in SPLITS for example in snapshots.read(record.snapshots[split])]
    mismatches = token_lock.check(out, settings.artifacts, examples, tokenizer)
    for mismatch in mismatches:
        print(token_lock.explain(mismatch), file=sys.stderr)
    if mismatches:
        raise Stop("the package would read prompts as other tokens than training did; nothing was written", DATA)


def check_context(examples: list[Example], rendered: list[Rendered], model: Any, num_ctx: int) -> None:
    """Raises Stop 65 when a row that was trained would not fit what the package serves."""
    if num_ctx > model.config.max_position_embeddings:
        raise Stop(
            f"num_ctx is {num_ctx}, the model reads {model.config.max_position_embeddings} tokens; lower num_ctx "
            f"(-o num_ctx={model.config.max_position_embeddings})",
            DATA,
        )
    for example, row in zip(examples, rendered, strict=True):
        length = len(row.prompt_ids) + len(row.completion_ids)
        if length > num_ctx:
            raise Stop(
                f"example {example.id} has {length} tokens, num_ctx is {num_ctx}; raise it (-o num_ctx=...)", DATA
            )


def only_system(examples: list[Example]) -> str | None:
    """The system text all rows were trained with; None when they differ, for then each call must bring its own."""
    texts = {example.system for example in examples}
    return texts.pop() or None if len(texts) == 1 else None


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
