"""Prepares a training run: checks base, snapshot and config against each other, and writes models/<run>/.

The vocabulary of a base of 65,536 pieces or more is trimmed to the train rows: models/<run>/base, docs/vocabulary.md.

Run: python -m scripts.train.prepare -w batfit -c nano [-r name] [-o sft.learning_rate=1.0e-3]
The environment variable <WORKLOAD>_BASE_MODEL, such as BATFIT_BASE_MODEL, takes the place of the config's base.
"""

import importlib.util
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from potstill import (
    bases,
    batches,
    cleaning,
    cli,
    models,
    package,
    progress,
    project,
    prompt,
    rows,
    runs,
    snapshots,
    tracking,
    workload,
)
from potstill.files import write_json, write_text
from potstill.records import Example, Reject, write_jsonl
from potstill.snapshots import SPLITS, Version
from potstill.stop import DATA, UNAVAILABLE, USAGE, Stop
from potstill.workload import Workload


class Preflight(NamedTuple):
    """The rows that cannot be trained on, and what goes into lengths.json."""

    refused: list[Reject]
    lengths: dict[str, dict[str, Any]]


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, config="", dry_run=True)
    parser.add_argument("-r", "--run", help="name of the new run (default: workload, config and time)")
    arguments = parser.parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    config = arguments.config or job.settings.train_config
    settings = with_base(runs.train_config(config, arguments.override), job, arguments.override)
    run = arguments.run or project.new_run_name(job.name, config)
    folder = project.run_folder(run)
    if (folder / "run.json").exists():
        raise Stop(f"{folder} is there already: a run is prepared once. Give another name with -r.", USAGE)
    name, version = snapshots.newest(job.name)
    warn_of_other_system_text(job, version)
    require(settings)
    # nobody should train for hours for an artifact that cannot be
    package.load_config(job.settings.package_config, tell=True)
    base = bases.resolve(settings.base, settings.revision)
    base, vocabulary, checked = fitted(base, version, settings, None if arguments.dry_run else folder / "base")
    commit, dirty = project.git_commit()
    record = runs.RunRecord(
        run=run,
        workload=job.name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        train_config=config,
        mode=settings.mode,
        base=base,
        snapshot=name,
        snapshots=version.files(),
        git_commit=commit,
        git_dirty=dirty,
        lock_sha256=project.lock_sha256(),
        seed=settings.sft.seed,
        device=device(),
        vocabulary=vocabulary,
    )
    if arguments.dry_run:
        print(record.model_dump_json(indent=2))
        return
    write_jsonl(folder / "refused.jsonl", checked.refused)
    write_json(folder / "lengths.json", checked.lengths)
    write_text(folder / "config.yaml", f"# resolved from configs/train/{config}.yaml\n" + dump(settings))
    # last: its existence means that the run is prepared
    write_json(folder / "run.json", record.model_dump())
    wrote: list[Path | str] = [folder / name for name in ("config.yaml", "refused.jsonl", "lengths.json", "run.json")]
    cli.done([*([folder / "base"] if vocabulary else []), *wrote], f"fab train.run -r {run}")


def require(settings: runs.TrainConfig) -> None:
    """Raises Stop 69 when the config wants what this machine does not have."""
    tracking.require(settings)
    if settings.mode != "qlora":
        return
    import torch

    missing = [] if torch.cuda.is_available() else ["a GPU"]
    missing += [] if importlib.util.find_spec("bitsandbytes") else ["bitsandbytes (requirements-gpu.lock)"]
    if missing:
        raise Stop(
            f"mode qlora trains on a base in 4 bits and needs {' and '.join(missing)}, which this machine does not "
            "have. Prepare the run on a GPU host (fab -H <host> train.prepare ...), or take mode lora.",
            UNAVAILABLE,
        )


def with_base(settings: runs.TrainConfig, job: Workload, given: list[str]) -> runs.TrainConfig:
    """The settings with the base that <WORKLOAD>_BASE_MODEL names, unless -o base=... is given.

    The config's revision is one of the config's own base, so another base goes without it.
    """
    key, value = workload.variable(job.name, "base_model")
    keys = [pair.partition("=")[0] for pair in given]
    if value is None or value == settings.base or "base" in keys:
        return settings
    print(f"base {value}: from {key}", file=sys.stderr)
    revision = settings.revision if "revision" in keys else None
    return settings.model_copy(update={"base": value, "revision": revision})


def warn_of_other_system_text(job: Workload, version: Version) -> None:
    """A run asks with its rows' system text: one chosen after they were converted and cleaned would go unused."""
    key, value = workload.variable(job.name, "system_prompt")
    if value is None:
        return
    wanted = cleaning.normalise(job.system_prompt)
    if all(example.system != wanted for example in snapshots.read(version.train)):
        print(
            f"warning: no train row has the system text of {key}; the run will have the rows' own. To use {value}, run "
            f"fab dataset.convert, dataset.clean and dataset.split -w {job.name} with {key} set, then this again.",
            file=sys.stderr,
        )


def fitted(
    base: runs.Base, version: Version, settings: runs.TrainConfig, target: Path | None
) -> tuple[runs.Base, runs.Vocabulary | None, Preflight]:
    """The base the run starts from, trimmed into `target` where the config says so, and the rows it cannot have.

    Without a target nothing is written, and rows are counted in tokens of the whole vocabulary.
    """
    if not bases.wants_trim(base, settings):
        return base, None, preflight(version, models.load_tokenizer(base.path), settings)
    if target is None:
        print(f"vocabulary: {bases.pieces(base):,} pieces, would be trimmed to the train rows")
        return base, None, preflight(version, models.load_tokenizer(base.path), settings)
    own, vocabulary = trim(base, version, target, settings.vocabulary_reserve)
    try:
        return own, vocabulary, preflight(version, models.load_tokenizer(own.path), settings)
    except BaseException:
        # a base without a run would only fill the disk
        shutil.rmtree(target, ignore_errors=True)
        raise


def trim(base: runs.Base, version: Version, target: Path, reserve: int) -> tuple[runs.Base, runs.Vocabulary]:
    tokenizer = models.load_tokenizer(base.path)
    examples = progress.track(snapshots.read(version.train), "trim", version.train.rows)
    return bases.trimmed(base, (text for example in examples for text in texts(example, tokenizer)), target, reserve)


def texts(example: Example, tokenizer: Any) -> Iterator[str]:
    """What is made into tokens of an example: the rendered prompt, system text included, and the answer with its end.

    Only train rows may decide what is kept: what val and test rows hold must not leak into the model.
    """
    messages = prompt.messages(example.system, example.prompt)
    yield tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    yield example.response + prompt.END_OF_TURN


def preflight(version: Version, tokenizer: Any, settings: runs.TrainConfig) -> Preflight:
    """Renders every row to be trained on. Raises Stop 65 when a split would be left with none."""
    refused: list[Reject] = []
    lengths: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        snapshot = version.files()[split]
        examples = list(progress.track(snapshots.read(snapshot), f"check {split}", snapshot.rows))
        kept, rejected = rows.training_rows(examples, tokenizer, settings.sft.max_length, settings.loss_weights)
        if not kept:
            raise Stop(f"{snapshot.file}: {why_none(rejected, settings)}", DATA)
        refused += rejected
        found = rows.lengths(kept)
        lengths[split] = found._asdict()
        print(
            f"{split:5} {found.rows:6} rows, longest {found.longest} tokens, {found.trained_tokens} trained tokens, "
            f"{len(rejected)} refused"
        )
        if split == "train":
            lengths[split]["padding"] = padding = padding_of(kept, settings.sft)
            print("\n".join(rows.histogram_lines(found)))
            print(f"padding in batches of {settings.sft.per_device_train_batch_size}: {padding:.1%}")
            mix = rows.effective_counts(Counter(map(rows.stratum, examples)))
            # rows of an epoch, before those that are refused
            lengths[split]["effective"] = sum(count.effective for count in mix if not count.stratum.held_out)
            print("\n".join(rows.mix_table(mix)))
    for reason, count in Counter(r.reason for r in refused).items():
        print(f"refused {count} rows: {reason}; see refused.jsonl in the run's folder")
    return Preflight(refused, lengths)


def why_none(rejected: list[Reject], settings: runs.TrainConfig) -> str:
    """What keeps all rows of a split out, and what to do."""
    too_long = [int(reject.detail.split()[0]) for reject in rejected if reject.reason == "too_long"]
    if not too_long:
        return "no token of any answer has a weight above 0. Raise loss_weights."
    found = (
        f"no row fits into max_length {settings.sft.max_length}: they have {min(too_long)} to {max(too_long)} tokens"
    )
    return f"{found}. Raise it: -o sft.max_length={max(too_long)}, or shorten the prompts."


def padding_of(kept: list[dict[str, Any]], sft: runs.Sft) -> float:
    sizes = [len(row["input_ids"]) for row in kept]
    batch = sft.per_device_train_batch_size
    return batches.padding(sizes, batch, batch * sft.gradient_accumulation_steps, sft.seed)


def device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


def dump(settings: runs.TrainConfig) -> str:
    return yaml.safe_dump(settings.model_dump(exclude_none=True), sort_keys=False)


if __name__ == "__main__":
    cli.run(main)
