"""Divides clean.jsonl into an immutable snapshot of train, val and test, whole groups on one side.

Run: python -m scripts.dataset.split -w batfit        (or: fab dataset.split -w batfit)
The same rows and seed give the same bytes, and then the version that is already there is kept. Rows of augmented.jsonl
go to train with their parents. With near_duplicates in the workload's YAML, near-duplicates count as one group.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from potstill import cli, leakage, progress, project, snapshots, splitting, workload
from potstill.files import atomic_open, sha256_file, stage_lock, write_json
from potstill.leakage import Overlaps
from potstill.records import Example, read_jsonl
from potstill.snapshots import SPLITS, Snapshot, Version
from potstill.splitting import Drift, Row
from potstill.stop import BUSY, DATA, Stop
from potstill.workload import Workload


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__, dry_run=True).parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    with stage_lock(project.processed(job.name), "split"):
        if wrote := split(job, arguments.dry_run):
            cli.done(wrote, f"fab train.prepare -w {job.name}")


def split(job: Workload, dry_run: bool) -> list[Path | str]:
    """Divides, checks and writes; returns the files written."""
    snapshots.check_all(job.name)
    report = project.reports(job.name) / "leakage.json"
    # what a split that was killed left behind
    for leftover in [*project.processed(job.name).glob(".*candidate.*"), *report.parent.glob(f".{report.name}.*")]:
        leftover.unlink()
    settings = job.settings.split
    parents = Parents(job)
    rows, overlaps = read_rows(job, parents.clean)
    chosen, seed = splitting.assign(rows, settings.val, settings.test, settings.seed, settings.max_drift)
    split_of = [chosen[row.group] for row in rows]
    drift = splitting.drift(rows, chosen)
    wanted, left_out = choose_variants(parents.augmented, rows, split_of, overlaps)
    table(rows, chosen)
    if wanted:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(left_out.items()))
        print(f"train also gets {sum(wanted)} augmented rows; {left_out.total()} left out ({reasons or 'none'})")
    tell(job, rows, split_of, overlaps, drift, seed)
    found = {
        "workload": job.name,
        "rows": len(rows),
        "seed": seed,
        "near_duplicates": overlaps.threshold,
        "joined_groups_rows": overlaps.joined()[: leakage.SHOWN],
        "drift": {"max_drift": settings.max_drift, "largest": asdict(drift) if drift else None},
        "augmented": {"to_train": sum(wanted), "left_out": dict(sorted(left_out.items()))},
        **leakage.summary(overlaps.crossing(split_of.__getitem__)),
        "pairs_over_limit": overlaps.unlisted,
    }
    if conflicts := found["counts"]["conflict"]:
        print(f"{conflicts} pairs of near prompts with different answers are parted: the leakage report has them")
    if dry_run:
        refuse_leaks(found["counts"], "the leakage report (run without --dry-run)")
        return []
    write_json(report, found)
    refuse_leaks(found["counts"], str(report))
    version = write_snapshot(job.name, parents, split_of, wanted, seed)
    return [*(snapshot.file for snapshot in version.files().values()), project.REGISTRY, report]


class Parents:
    """The files a snapshot is made of, with their checksums at the start."""

    def __init__(self, job: Workload):
        folder = project.processed(job.name)
        self.clean = folder / "clean.jsonl"
        self.augmented = folder / "augmented.jsonl"
        if not self.clean.is_file():
            raise Stop(f"{self.clean} is not there. Run fab dataset.clean -w {job.name}.", DATA)
        self.sums = self.now()

    def now(self) -> dict[str, str]:
        return {path.name: sha256_file(path) for path in (self.clean, self.augmented) if path.is_file()}


def read_rows(job: Workload, clean: Path) -> tuple[list[Row], Overlaps]:
    """What a split needs of every clean row; near-duplicates have one group."""
    settings = job.settings.near_duplicates
    overlaps = Overlaps(settings.threshold if settings else None)
    mend = f"Run fab dataset.clean -w {job.name}."
    rows, grouped, key = [], False, job.settings.split.group
    for example in progress.track(read_jsonl(clean, Example, mend), "compare"):
        rows.append(describe(job, example))
        grouped = grouped or key == "task" or key in example.metadata
        overlaps.add(example, rows[-1].group, rows[-1].pin)
    if not rows:
        raise Stop(f"{clean} has no rows. {mend}", DATA)
    if not grouped:
        print(
            f"warning: no row has metadata.{key}, so each is a group of its own, and rows of one source may be on two "
            f"sides. Set split.group in configs/workloads/{job.name}.yaml to a key that rows have.",
            file=sys.stderr,
        )
    overlaps.settle()
    for number, row in enumerate(rows):
        if (group := overlaps.group(number)) != row.group:
            rows[number] = replace(row, group=group)
    return rows, overlaps


def describe(job: Workload, example: Example) -> Row:
    """A row that belongs to no group is a group of its own; a row of a slice is graded, never trained on."""
    metadata = example.metadata
    keys = {"task": example.task, **metadata}
    pin = "test" if metadata.get("slice") else metadata.get("split")
    if pin is not None and pin not in SPLITS:
        raise Stop(f"row {example.id}: metadata.split is {pin!r}, want one of {', '.join(SPLITS)}.", DATA)
    group = str(keys.get(job.settings.split.group) or example.id)
    stratum = "|".join(str(keys.get(key)) for key in job.settings.split.stratify)
    # one text in memory for all the rows that share it
    task, group, stratum = map(sys.intern, (example.task, group, stratum))
    return Row(example.id, task, group, stratum, pin, bool(metadata.get("slice")))


def choose_variants(
    augmented: Path, rows: list[Row], split_of: list[str], overlaps: Overlaps
) -> tuple[bytearray, Counter[str]]:
    """For every row of augmented.jsonl 1 if it goes to train, else 0; and why the others are left out.

    Raises Stop 65 for a row that names no parent.
    """
    wanted = bytearray()
    left_out: Counter[str] = Counter()
    if not augmented.is_file():
        return wanted, left_out
    numbers = {row.id: number for number, row in enumerate(rows)}
    mend = "Run fab dataset.augment again."
    for example in progress.track(read_jsonl(augmented, Example, mend), "variants"):
        parent = example.metadata.get("parent")
        if not isinstance(parent, str):
            raise Stop(
                f"{augmented}: row {example.id} has no metadata.parent, want the id of a clean row. {mend}", DATA
            )
        number = numbers.get(parent)
        reason = None
        if number is None:
            reason = "parent is not in clean.jsonl"
        elif split_of[number] != "train":
            reason = f"parent is in {split_of[number]}"
        elif overlaps.held_out_twin(example, split_of.__getitem__):
            reason = "near a row of val or test"
        wanted.append(reason is None)
        left_out.update([reason] if reason else [])
    return wanted, left_out


def table(rows: list[Row], chosen: dict[str, str]) -> None:
    sizes = Counter((chosen[row.group], row.task) for row in rows)
    groups = Counter(chosen.values())
    for split in SPLITS:
        tasks = ", ".join(f"{task} {n}" for (s, task), n in sorted(sizes.items()) if s == split)
        total = sum(n for (s, _), n in sizes.items() if s == split)
        print(f"{split:5} {total:6} rows in {groups[split]:3} groups: {tasks}")


def tell(
    job: Workload, rows: list[Row], split_of: list[str], overlaps: Overlaps, drift: Drift | None, seed: int
) -> None:
    """The lines below the table: what joined groups, the seed, and how far the split is from what was asked for."""
    settings = job.settings.split
    if joined := overlaps.joined():
        print(f"near-duplicates joined groups into {len(joined)} larger ones, of at most {joined[0]} rows")
    if seed != settings.seed:
        print(f"seed {seed}: with {settings.seed} a task lacked a split, or a stratum drifted too far")
    warn_of_sizes(rows, split_of, {"val": settings.val, "test": settings.test})
    if drift and drift.size > settings.max_drift:
        print(
            f"warning: stratum {drift.stratum} is {drift.share:.0%} of {drift.split} and {drift.free_share:.0%} of the "
            f"free rows, more than split.max_drift {settings.max_drift} apart: give rows finer groups or strata.",
            file=sys.stderr,
        )


def warn_of_sizes(rows: list[Row], split_of: list[str], wanted: dict[str, float]) -> None:
    side = {row.group: split for row, split in zip(rows, split_of, strict=True)}
    for split, fraction in wanted.items():
        free = splitting.free_for(rows, split)
        share = sum(side[row.group] == split for row in free) / max(1, len(free))
        if free and not fraction / 2 <= share <= 2 * fraction:
            largest, n = Counter(row.group for row in free).most_common(1)[0]
            print(
                f"warning: {split} got {share:.1%} of the free rows, {fraction:.1%} was asked for: groups are too "
                f"coarse. The largest, {largest!r}, has {n} of {len(free)} rows; near-duplicates may have joined it.",
                file=sys.stderr,
            )


def refuse_leaks(counts: dict[str, int], report: str) -> None:
    """Raises Stop 65 when two splits share a prompt, a near-duplicate or a group."""
    if any(counts[kind] for kind in leakage.BLOCKING):
        raise Stop(
            f"{counts['exact']} prompts, {counts['near_duplicate']} near-duplicate pairs and {counts['group']} groups "
            f"are in more than one split; {report} names them. Give such rows one metadata.group and no differing "
            "metadata.split, or delete one of each.",
            DATA,
        )


def write_snapshot(name: str, parents: Parents, split_of: list[str], wanted: bytearray, seed: int) -> Version:
    """Writes the three files and registers them, or keeps the newest version when it has the same rows."""
    folder = project.processed(name)
    versions = snapshots.registry().get(name, {})
    number = max((int(v.removeprefix("v")) for v in versions), default=0)
    candidates = {s: folder / f".candidate.{s}.jsonl" for s in SPLITS}
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        files = {s: stack.enter_context(atomic_open(path)) for s, path in candidates.items()}
        for to, example in sorted_rows(parents, split_of, wanted):
            files[to].write(example.model_dump_json() + "\n")
            counts[to] += 1
    if parents.now() != parents.sums:
        raise Stop(f"{parents.clean} or {parents.augmented.name} was changed during the split. Run it again.", BUSY)
    sums = {s: sha256_file(path) for s, path in candidates.items()}
    latest = versions.get(f"v{number}")
    unchanged = latest is not None and sums == {s: snapshot.sha256 for s, snapshot in latest.files().items()}
    version_name = f"v{number}" if unchanged else f"v{number + 1}"
    entries: dict[str, Any] = {}
    for s, candidate in candidates.items():
        path = snapshots.path_of(name, s, version_name)
        candidate.replace(path)
        entries[s] = Snapshot(file=path.as_posix(), rows=counts[s], sha256=sums[s])
    version = Version(**entries, seed=seed, parents=parents.sums)
    if unchanged:
        print(f"the same rows as {version_name}: kept")
    else:
        # registered last: a file that is not in the registry is no snapshot
        snapshots.register(name, version_name, version)
    return version


def sorted_rows(parents: Parents, split_of: list[str], wanted: bytearray) -> Iterator[tuple[str, Example]]:
    """Every row with its split: the clean ones in order, then the augmented ones that were chosen."""
    clean = progress.track(read_jsonl(parents.clean, Example), "write", len(split_of))
    yield from zip(split_of, clean, strict=True)
    if wanted:
        for chosen, example in zip(wanted, read_jsonl(parents.augmented, Example), strict=True):
            if chosen:
                yield "train", example


if __name__ == "__main__":
    cli.run(main)
