"""Makes seeded variants of the rows of clean.jsonl that may be trained on; dataset.split adds those of train rows.

Run: python -m scripts.dataset.augment -w batfit        (or: fab dataset.augment -w batfit)
The block `augment` of the workload says which kinds and how many; the same rows and seed give the same variants,
whatever the order of the rows. --dry-run makes and counts them, and writes nothing.
"""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from potstill import augment, cli, progress, project, workload
from potstill.augment import Discarded
from potstill.files import atomic_open, canonical_json, sha256_text, stage_lock
from potstill.records import Example, read_jsonl
from potstill.workload import Workload

DIGEST = 16  # hexadecimal digits: 64 bits tell prompts apart, at a few bytes a row


@dataclass
class Tally:
    parents: int = 0
    held_out: int = 0
    made: Counter[str] = field(default_factory=Counter)  # by kind
    discarded: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by kind and reason


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__, dry_run=True).parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    settings = augment.settings(job)
    folder = project.processed(job.name)
    with stage_lock(folder, "augment"), tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8") as spool:
        tally, repeated = spool_variants(job, folder / "clean.jsonl", spool)
        spared = first_of(spool, repeated)
        if arguments.dry_run:
            kept = sum(1 for _ in unrepeated(spool, spared, tally))
        else:
            with atomic_open(folder / "augmented.jsonl") as file:
                file.writelines(unrepeated(spool, spared, tally))
            kept = tally.made.total()
    print("\n".join(table(settings.kinds, tally)))
    print(f"{job.name}: {tally.parents} rows, {tally.held_out} held out, {kept} variants")
    if not arguments.dry_run:
        cli.done([folder / "augmented.jsonl"], f"fab dataset.split -w {job.name}")


def spool_variants(job: Workload, clean: Path, spool: IO[str]) -> tuple[Tally, set[str]]:
    """Writes every variant to `spool` as digest and row; returns the digests that came more than once."""
    tally = Tally()
    mend = f"Run fab dataset.clean -w {job.name}."
    rows = {loosely(example.prompt) for example in read_jsonl(clean, Example, mend)}
    seen: set[int] = set()
    repeated: set[str] = set()
    for parent in progress.track(read_jsonl(clean, Example, mend), "augment"):
        tally.parents += 1
        if not augment.trainable(parent):
            tally.held_out += 1
            continue
        own = loosely(parent.prompt)
        for variant in augment.variants(job, parent):
            if isinstance(variant, Discarded):
                tally.discarded[variant.kind][variant.reason] += 1
                continue
            kind = variant.metadata["augmented"]
            loose = loosely(variant.prompt)
            if loose in rows and loose != own:
                tally.discarded[kind]["equal_to_row"] += 1
                continue
            digest = sha256_text(canonical_json([variant.task, variant.system, variant.prompt]))[:DIGEST]
            if int(digest, 16) in seen:
                repeated.add(digest)
            seen.add(int(digest, 16))
            tally.made[kind] += 1
            spool.write(f"{digest}{variant.model_dump_json()}\n")
    return tally, repeated


def first_of(spool: IO[str], repeated: set[str]) -> dict[str, str]:
    """Digest of a repeated prompt -> the least of its rows' ids: which one stays must not depend on their order."""
    least: dict[str, str] = {}
    spool.seek(0)
    for line in spool if repeated else ():
        if (digest := line[:DIGEST]) in repeated:
            row = json.loads(line[DIGEST:])["id"]
            least[digest] = min(row, least.get(digest, row))
    return least


def unrepeated(spool: IO[str], spared: dict[str, str], tally: Tally) -> Iterator[str]:
    """Yields the rows of the spool, JSON lines, but the repeated ones, which move from made to discarded."""
    spool.seek(0)
    for line in spool:
        digest, row = line[:DIGEST], line[DIGEST:]
        if digest in spared and (values := json.loads(row))["id"] != spared[digest]:
            kind = values["metadata"]["augmented"]
            tally.made[kind] -= 1
            tally.discarded[kind]["equal_to_variant"] += 1
        else:
            yield row


def loosely(prompt: str) -> int:
    """A digest that is blind to case and spacing, as the leakage check of dataset.split is."""
    return int(sha256_text(" ".join(prompt.lower().split()))[:DIGEST], 16)


def table(kinds: list[str], tally: Tally) -> list[str]:
    lines = [f"{'kind':16} {'made':>7} {'discarded':>10}  why"]
    for kind in dict.fromkeys(kinds):
        reasons = tally.discarded[kind]
        why = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))
        lines.append(f"{kind:16} {tally.made[kind]:7} {reasons.total():10}  {why}".rstrip())
    seen = sorted({reason for reasons in tally.discarded.values() for reason in reasons})
    return lines + [f"  {reason}: {augment.REASONS[reason]}" for reason in seen]


if __name__ == "__main__":
    cli.run(main)
