"""What came of a snapshot's rows: the runs and packages trained on them, and the reports that hold their text."""

import json
from pathlib import Path
from typing import Any

from potstill import project, runs
from potstill.runs import RunRecord
from potstill.stop import Stop
from potstill.tombstones import Tombstones

# what the judge said of texts, by a hash of the texts
JUDGE_CACHE = project.REPORTS / "judge_cache.sqlite"


def descendants(workload: str, versions: dict[str, dict[str, int]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The runs prepared with any of the snapshot `versions` (version -> split -> rows removed), and runs based on them.

    [{"run", "snapshot", "rows", "trained", "package", "based_on"}], and a line for every run that cannot be read.
    """
    records: dict[str, RunRecord] = {}
    unreadable = []
    for path in sorted(project.MODELS.glob("*/run.json")):
        try:
            records[path.parent.name] = runs.read(path.parent.name)
        except Stop as stop:
            unreadable.append(str(stop))
    found = {}
    for name, record in records.items():
        if record.workload == workload and record.snapshot in versions:
            found[name] = _entry(record, versions[record.snapshot], None)
    # a model trained on top of such a run's model has seen the rows too
    while more := {n: b for n, r in records.items() if n not in found and (b := _basis(r, found))}:
        for name, basis in more.items():
            found[name] = _entry(records[name], {}, basis)
    return [found[name] for name in sorted(found)], unreadable


def reports_with(gone: Tombstones) -> dict[str, int | None]:
    """Files under reports/ that hold text of removed rows -> rows, or null where it was not counted."""
    found: dict[str, int | None] = {}
    for folder in sorted(path for path in project.REPORTS.glob("*") if path.is_dir()):
        counts = {path: _rows_of(path, gone) for path in sorted(folder.glob("*.jsonl"))}
        found |= {path.as_posix(): n for path, n in counts.items() if n}
        if any(counts.values()):
            # they quote the worst answers with their prompts
            found |= {p.as_posix(): None for p in sorted(folder.glob("report.*"))}
    if found and JUDGE_CACHE.is_file():
        found[JUDGE_CACHE.as_posix()] = None
    return found


def _entry(record: RunRecord, rows: dict[str, int], based_on: str | None) -> dict[str, Any]:
    package = project.run_folder(record.run) / "package"
    return {
        "run": record.run,
        "snapshot": record.snapshot,
        "rows": rows,
        "trained": runs.is_trained(record.run),
        "package": package.as_posix() if (package / "manifest.json").is_file() else None,
        "based_on": based_on,
    }


def _basis(record: RunRecord, found: dict[str, Any]) -> str | None:
    # a trimmed base lies in the run's own folder
    origin = record.vocabulary.original if record.vocabulary else record.base.path
    parents = Path(origin).resolve().parents
    return next((name for name in found if project.run_folder(name).resolve() in parents), None)


def _rows_of(path: Path, gone: Tombstones) -> int:
    """Lines of a JSONL file whose row was taken down; a line that is none of ours does not count."""
    ids = set()
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(id := row.get("id"), str) and gone.named(id, {}, None):
                ids.add(id)
    return len(ids)
