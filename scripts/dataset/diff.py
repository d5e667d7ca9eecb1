"""What changed between two snapshots: rows added, removed, moved between splits, and changed slot by slot.

Run: python -m scripts.dataset.diff -w batfit [--old v1] [--new v2]        (or: fab dataset.diff -w batfit)
Default: the two newest that are still there. Rows are matched by id. Exits 0 whether or not anything changed.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from potstill import cli, progress, project, shown, snapshots, tombstones, workload
from potstill.files import canonical_json, sha256_text, write_text
from potstill.leaves import ABSENT
from potstill.records import Example, parse_row
from potstill.snapshots import SPLITS, Version
from potstill.stop import DATA, USAGE, Stop

EXAMPLES = 5
MAX_PRINTED = 20
# compared as they are; the answer is compared slot by slot, and other texts are only said to differ
FIELDS = ("task", "system", "prompt", "slots", "metadata", "schema_version", "source_sha256")


class Place(NamedTuple):
    """Where a row of the older snapshot is, so that memory holds no text."""

    split: str
    offset: int
    sha256: str


@dataclass
class Changes:
    rows: dict[str, Counter[str]] = field(default_factory=lambda: {"old": Counter(), "new": Counter()})
    added: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # split -> ids
    removed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    moved: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    changed: Counter[str] = field(default_factory=Counter)  # by the newer split
    fields: Counter[tuple[str, str]] = field(default_factory=Counter)  # (field, newer split)
    slots: Counter[tuple[str, str]] = field(default_factory=Counter)  # (path, newer split)
    examples: dict[str, list[tuple[str, str, Any, Any]]] = field(default_factory=lambda: defaultdict(list))


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--old", "--from", dest="old", metavar="VERSION", help="the older snapshot, such as v1")
    parser.add_argument("--new", "--to", dest="new", metavar="VERSION", help="the newer snapshot")
    arguments = parser.parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    versions = snapshots.registry().get(job.name, {})
    old, new = choose(job.name, versions, arguments.old, arguments.new)
    changes = compare(versions[old], versions[new])
    lines = markdown(job.name, old, new, versions, changes)
    report = project.reports(job.name) / f"diff_{old}_{new}.md"
    write_text(report, "\n".join(lines) + "\n")
    summary(old, new, changes)
    cli.done([report], f"fab dataset.stats -w {job.name}")


def choose(name: str, versions: dict[str, Version], old: str | None, new: str | None) -> tuple[str, str]:
    """The two versions to compare. Raises Stop 65 when there are not two, 2 for a name that is none of them."""
    for wanted in (old, new):
        if wanted is not None and wanted not in versions:
            known = ", ".join(versions) or "none"
            raise Stop(f"workload {name} has no snapshot {shown.line(wanted)!r}. Known: {known}.", USAGE)
    order = sorted(versions, key=lambda version: int(version.removeprefix("v")))
    there = [v for v in order if not tombstones.withdrawn(Path(versions[v].train.file))]
    new = new or next((v for v in reversed(there) if v != old), None)
    older = [v for v in there if new in order and order.index(v) < order.index(new)]
    old = old or (older[-1] if older else None)
    if old is None or new is None:
        raise Stop(f"workload {name} has {len(there)} snapshots to compare, want 2. Run fab dataset.split.", DATA)
    return old, new


def compare(old: Version, new: Version) -> Changes:
    """Reads the older snapshot once and the newer one once. Raises Stop 65, naming the file, for an edited one."""
    changes = Changes()
    places: dict[str, Place] = {}
    paths = {split: snapshots.checked(snapshot) for split, snapshot in old.files().items()}
    for split, path in paths.items():
        for offset, line, example in progress.track(lines_of(path), f"read {path.name}", old.files()[split].rows):
            places[example.id] = Place(split, offset, sha256_text(line))
            changes.rows["old"][split] += 1
    for split, snapshot in new.files().items():
        path = snapshots.checked(snapshot)
        for _, line, example in progress.track(lines_of(path), f"compare {path.name}", snapshot.rows):
            changes.rows["new"][split] += 1
            place = places.pop(example.id, None)
            if place is None:
                changes.added[split].append(example.id)
                continue
            if place.split != split:
                changes.moved[place.split, split].append(example.id)
            if place.sha256 != sha256_text(line):
                row_changes(changes, split, row_at(paths[place.split], place.offset), example)
    for id, place in places.items():
        changes.removed[place.split].append(id)
    return changes


def lines_of(path: Path) -> Iterator[tuple[int, str, Example]]:
    """(offset in bytes, line, row)"""
    offset = 0
    with open(path, "rb") as file:
        for number, data in enumerate(file, 1):
            line = data.decode("utf-8")
            if line.strip():
                yield offset, line, parse_row(line, Example, f"{path} line {number}", "Run fab dataset.split.")
            offset += len(data)


def row_at(path: Path, offset: int) -> Example:
    with open(path, "rb") as file:
        file.seek(offset)
        return Example.model_validate_json(file.readline())


def row_changes(changes: Changes, split: str, old: Example, new: Example) -> None:
    changes.changed[split] += 1
    for name in FIELDS:
        changes.fields[name, split] += getattr(old, name) != getattr(new, name)
    if old.response == new.response:
        return
    changes.fields["answer", split] += 1
    paths = set()
    for at, path, before, after in leaf_changes(answer(old), answer(new)):
        paths.add(path)
        if len(changes.examples[path]) < EXAMPLES:
            changes.examples[path].append((new.id, at, before, after))
    # of a list, a row counts once
    changes.slots.update((path, split) for path in paths)


def leaf_changes(old: Any, new: Any, at: str = "", path: str = "") -> Iterator[tuple[str, str, Any, Any]]:
    """(items[0].price, items[].price, old value, new value) of every leaf that differs; 1, 1.0 and true differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            dot = "." if at else ""
            yield from leaf_changes(old.get(key, ABSENT), new.get(key, ABSENT), f"{at}{dot}{key}", f"{path}{dot}{key}")
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            before, after = (side[index] if index < len(side) else ABSENT for side in (old, new))
            yield from leaf_changes(before, after, f"{at}[{index}]", f"{path}[]")
    elif text(old) != text(new):
        yield at or "answer", path or "answer", old, new


def answer(example: Example) -> Any:
    try:
        return json.loads(example.response)
    except ValueError:  # a task whose answer is text
        return example.response


def text(value: Any) -> str:
    return "(absent)" if value is ABSENT else canonical_json(value)


def markdown(name: str, old: str, new: str, versions: dict[str, Version], changes: Changes) -> list[str]:
    lines = [f"# {name}: snapshot {old} to {new}", "", *table(changes), ""]
    lines += (
        [f"- seed {versions[old].seed} to {versions[new].seed}"] if versions[old].seed != versions[new].seed else []
    )
    for source in sorted({*versions[old].parents, *versions[new].parents}):
        before, after = (versions[v].parents.get(source) for v in (old, new))
        if before != after:
            lines.append(f"- parent {shown.code(source)}: {shown.code(before or '-')} to {shown.code(after or '-')}")
    if leaks := sum(len(ids) for (a, b), ids in changes.moved.items() if "train" in (a, b)):
        lines += [
            "",
            f"**{leaks} rows moved into or out of train**: scores of runs trained on {old} and on {new} are not",
        ]
        lines[-1] += " over the same unseen rows."
    for title, groups in (("Added", changes.added), ("Removed", changes.removed)):
        lines += ids_of(title, {split: groups[split] for split in SPLITS if groups[split]})
    lines += ids_of("Moved", {f"{a} to {b}": ids for (a, b), ids in sorted(changes.moved.items())})
    if changes.fields:
        names = sorted({field for (field, _), n in changes.fields.items() if n})
        rows = [[n, *(f"{changes.fields[n, split]:,}" for split in SPLITS)] for n in names]
        lines += ["", "## What changed in rows", "", *shown.table(["field", *SPLITS], rows)]
    return [*lines, *slots_of(changes)]


def table(changes: Changes) -> list[str]:
    def moved(split: str, side: int) -> int:
        return sum(len(ids) for pair, ids in changes.moved.items() if pair[side] == split)

    rows = [
        ["rows before", *(f"{changes.rows['old'][split]:,}" for split in SPLITS)],
        ["removed", *(f"{len(changes.removed[split]):,}" for split in SPLITS)],
        ["moved out", *(f"{moved(split, 0):,}" for split in SPLITS)],
        ["added", *(f"{len(changes.added[split]):,}" for split in SPLITS)],
        ["moved in", *(f"{moved(split, 1):,}" for split in SPLITS)],
        ["rows after", *(f"{changes.rows['new'][split]:,}" for split in SPLITS)],
        ["changed", *(f"{changes.changed[split]:,}" for split in SPLITS)],
    ]
    return shown.table(["", *SPLITS], rows)


def ids_of(title: str, groups: dict[str, list[str]]) -> list[str]:
    lines = ["", f"## {title}", ""] if groups else []
    for name, ids in groups.items():
        more = f" and {len(ids) - EXAMPLES:,} more" if len(ids) > EXAMPLES else ""
        lines.append(f"- {name}, {len(ids):,}: {', '.join(shown.code(id) for id in ids[:EXAMPLES])}{more}")
    return lines


def slots_of(changes: Changes) -> list[str]:
    if not changes.slots:
        return []
    order = order_of(changes)
    rows = [[path, *(f"{changes.slots[path, split]:,}" for split in SPLITS)] for path in order]
    lines = ["", "## Answers, slot by slot", "", *shown.table(["slot", *SPLITS], rows)]
    for path in order:
        lines += ["", f"### {shown.cell(path)}", ""]
        for id, at, before, after in changes.examples[path]:
            lines.append(
                f"- {shown.code(id)} {shown.code(at)}: {shown.code(text(before))} to {shown.code(text(after))}"
            )
    return lines


def order_of(changes: Changes) -> list[str]:
    """The slots that changed, the most often changed first."""
    return sorted(changes.examples, key=lambda path: (-sum(changes.slots[path, s] for s in SPLITS), path))


def summary(old: str, new: str, changes: Changes) -> None:
    counts = {
        "added": sum(map(len, changes.added.values())),
        "removed": sum(map(len, changes.removed.values())),
        "moved": sum(map(len, changes.moved.values())),
        "changed": changes.changed.total(),
    }
    print(f"{old} to {new}: {', '.join(f'{n:,} {what}' for what, n in counts.items())}")
    for path in order_of(changes)[:MAX_PRINTED]:
        print(f"  {sum(changes.slots[path, split] for split in SPLITS):6,} answers differ in {shown.line(path)}")


if __name__ == "__main__":
    cli.run(main)
