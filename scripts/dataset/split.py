"""Divides clean.jsonl into an immutable snapshot of train, val and test, whole groups on one side.

Run: python -m scripts.dataset.split -w batfit        (or: fab dataset.split -w batfit)
The same rows and seed give the same bytes, and then the version that is already there is kept.
"""

from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path

from potstill import cli, project, snapshots, splitting, workload
from potstill.files import atomic_open, sha256_file, sha256_text, stage_lock, write_json
from potstill.records import Example, read_jsonl
from potstill.snapshots import SPLITS, Snapshot, Version
from potstill.splitting import Row
from potstill.stop import DATA, Stop
from potstill.workload import Workload


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__, dry_run=True).parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    clean = project.processed(job.name) / "clean.jsonl"
    mend = f"Run fab dataset.clean -w {job.name}."
    rows = [describe(job, example) for example in read_jsonl(clean, Example, mend)]
    if not rows:
        raise Stop(f"{clean} has no rows. {mend}", DATA)
    settings = job.settings.split
    chosen, seed = splitting.assign(rows, settings.val, settings.test, settings.seed)
    table(rows, chosen)
    if arguments.dry_run:
        return
    with stage_lock(project.processed(job.name), "split"):
        leakage = project.reports(job.name) / "leakage.json"
        check_leakage(clean, chosen, rows, leakage)
        version = write_snapshot(job.name, clean, chosen, rows, seed)
    files = [snapshot.file for snapshot in version.files().values()]
    cli.done([*files, project.REGISTRY, leakage], f"fab train.prepare -w {job.name}")


def describe(job: Workload, example: Example) -> Row:
    """A row that belongs to no group is a group of its own; a row of a slice is graded, never trained on."""
    metadata = example.metadata
    keys = {"task": example.task, **metadata}
    pin = "test" if metadata.get("slice") else metadata.get("split")
    if pin is not None and pin not in SPLITS:
        raise Stop(f"row {example.id}: metadata.split is {pin!r}, want one of {', '.join(SPLITS)}.", DATA)
    group = str(keys.get(job.settings.split.group) or example.id)
    stratum = "|".join(str(keys.get(key)) for key in job.settings.split.stratify)
    return Row(example.id, example.task, group, stratum, pin, bool(metadata.get("slice")))


def table(rows: list[Row], chosen: dict[str, str]) -> None:
    sizes = Counter((chosen[row.group], row.task) for row in rows)
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        groups[chosen[row.group]].add(row.group)
    for split in SPLITS:
        tasks = ", ".join(f"{task} {n}" for (s, task), n in sorted(sizes.items()) if s == split)
        total = sum(n for (s, _), n in sizes.items() if s == split)
        print(f"{split:5} {total:6} rows in {len(groups[split]):3} groups: {tasks}")


def check_leakage(clean: Path, chosen: dict[str, str], rows: list[Row], report: Path) -> None:
    """Writes what two splits share. Raises Stop 65 when that is anything."""
    prompts: dict[str, dict[str, str]] = defaultdict(dict)
    groups: dict[str, set[str]] = defaultdict(set)
    for row, example in zip(rows, read_jsonl(clean, Example), strict=True):
        split = chosen[row.group]
        # case and spacing make no new prompt
        prompts[sha256_text(" ".join(example.prompt.lower().split()))].setdefault(split, row.id)
        groups[row.group].add(split)
    shared_prompts = [ids for ids in prompts.values() if len(ids) > 1]
    shared_groups = sorted(group for group, splits in groups.items() if len(splits) > 1)
    found = {"rows": len(rows), "shared_prompts": shared_prompts, "shared_groups": shared_groups}
    write_json(report, found)
    if shared_prompts or shared_groups:
        raise Stop(
            f"{len(shared_prompts)} prompts and {len(shared_groups)} groups are in more than one split; {report} names "
            "them. Give such rows one metadata.group, or delete one of each.",
            DATA,
        )


def write_snapshot(name: str, clean: Path, chosen: dict[str, str], rows: list[Row], seed: int) -> Version:
    versions = snapshots.registry().get(name, {})
    number = max((int(v.removeprefix("v")) for v in versions), default=0)
    candidates = {split: project.processed(name) / f".candidate.{split}.jsonl" for split in SPLITS}
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        files = {split: stack.enter_context(atomic_open(path)) for split, path in candidates.items()}
        for row, example in zip(rows, read_jsonl(clean, Example), strict=True):
            split = chosen[row.group]
            files[split].write(example.model_dump_json() + "\n")
            counts[split] += 1
    sums = {split: sha256_file(path) for split, path in candidates.items()}
    latest = versions.get(f"v{number}")
    unchanged = latest is not None and sums == {split: s.sha256 for split, s in latest.files().items()}
    version_name = f"v{number}" if unchanged else f"v{number + 1}"
    entries = {}
    for split, candidate in candidates.items():
        path = snapshots.path_of(name, split, version_name)
        candidate.replace(path)
        entries[split] = Snapshot(file=path.as_posix(), rows=counts[split], sha256=sums[split])
    version = Version(**entries, seed=seed, parents={"clean.jsonl": sha256_file(clean)})
    if unchanged:
        print(f"the same rows as {version_name}: kept")
    else:
        # registered last: a file that is not in the registry is no snapshot
        snapshots.register(name, version_name, version)
    return version


if __name__ == "__main__":
    cli.run(main)
