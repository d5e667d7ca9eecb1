"""Removes rows for good: from the database, the processed files and the snapshots, and keeps them from coming back.

Run: python -m scripts.dataset.takedown -w batfit (--id X | --domain D | --tenant T | --no-consent) [--reason ...]
                                                  [--dry-run]        (or: fab dataset.takedown -w batfit --id X)
Also variants of such rows and, for --id, the same content under another id. Lists the runs and packages trained on them
and the reports that quote them; those are yours to delete. Killed at any moment, the same command completes it.
"""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from potstill import capture, cli, lineage, project, removal, shown, snapshots, tombstones, workload
from potstill.files import sha256_file, sha256_text, stage_lock, write_json
from potstill.snapshots import SPLITS
from potstill.stop import DATA, USAGE, Stop
from potstill.tombstones import Kind, Tombstone, Tombstones
from potstill.workload import Workload

STAGES = ("clean", "augment", "split")
MAX_IDS = 1_000
NOT_SEARCHED = [
    "other files in data/raw/ and data/samples/, and the database on the server: a pull brings the rows here again, "
    "and dataset.clean rejects them as taken_down",
    "hosts that got the snapshot, a run or a package through ops.push or otherwise",
    "backups, and the disk's own free blocks",
]


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, dry_run=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", help="the row with this id")
    which.add_argument("--domain", help="rows of this domain and of those below it")
    which.add_argument("--tenant", help="rows of this tenant")
    which.add_argument("--no-consent", action="store_true", help="rows whose metadata.consent is false now")
    parser.add_argument("--reason", default="", help="kept in the tombstone; name no person")
    arguments = parser.parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    kind, value = criterion(arguments)
    with contextlib.ExitStack() as stack:
        if not arguments.dry_run:
            stack.enter_context(stage_lock(project.PROCESSED, "takedown"))
            for stage in STAGES:
                stack.enter_context(stage_lock(project.processed(job.name), stage))
            # calls that wait beside the database are taken down too
            capture.flush(project.database())
        earlier = tombstones.find(job.name, kind, value, arguments.id)
        stone = earlier or Tombstone(
            workload=job.name,
            kind=kind,
            value=value,
            ids=[sha256_text(arguments.id)] if arguments.id is not None else [],
            sources=[],
            versions={},
            reason=arguments.reason,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        found, gone = removal.survey(job, stone)
        if not found.ids and earlier is None:
            if kind == "no_consent":
                print("every row has consent, or does not say: nothing to take down")
                return
            others = (
                f" Rows of the tasks {', '.join(sorted(found.elsewhere))} are: say their -w." if found.elsewhere else ""
            )
            raise Stop(f"{name_of(stone, arguments.id)} names no row of {job.name}: nothing was written.{others}", DATA)
        if kind == "id" and found.ids and not found.originals:
            raise Stop(
                f"{name_of(stone, arguments.id)} is a variant, and would be made again: take down its parent.", DATA
            )
        stone = stone.model_copy(
            update={
                "ids": sorted({*stone.ids, *map(sha256_text, found.originals)}) if kind == "no_consent" else stone.ids,
                "sources": sorted({*stone.sources, *found.sources}) if kind == "id" else [],
                "versions": {**stone.versions, **found.versions},
                "reason": arguments.reason or stone.reason,
            }
        )
        report = describe(job.name, stone, found, gone, arguments.id)
        if arguments.dry_run:
            show(report)
            print("nothing was written")
            return
        carry_out(job, stone, found, gone, report, compact=bool(found.database or found.previous or earlier))


def criterion(arguments: Any) -> tuple[Kind, str | None]:
    if arguments.id is not None:
        return "id", None
    if arguments.tenant is not None:
        return "tenant", arguments.tenant
    if arguments.domain is None:
        return "no_consent", None
    name = tombstones.host(arguments.domain)
    if "." not in name or "/" in name:
        raise Stop(f"--domain {shown.line(arguments.domain)!r}: want a domain such as shop.example", USAGE)
    return "domain", name


def name_of(stone: Tombstone, id: str | None) -> str:
    return f"{stone.kind} {shown.line(id or stone.value or '')}".strip()


def describe(name: str, stone: Tombstone, found: removal.Found, gone: Tombstones, id: str | None) -> dict[str, Any]:
    affected, unreadable = lineage.descendants(name, stone.versions)
    return {
        "workload": name,
        "kind": stone.kind,
        "value": id or stone.value,
        "reason": stone.reason,
        "tombstone": tombstones.FILE.as_posix(),
        "taken_down_at": stone.created_at,
        "rows": len(found.ids),
        "ids": sorted(found.ids)[:MAX_IDS],
        "removed": {
            "database": len(found.database),
            "previous_database": len(found.previous),
            "files": {path: n for path, n in found.files.items() if n},
        },
        "withdrawn": stone.versions,
        "newest": None,
        "runs": affected,
        "runs_unreadable": unreadable,
        "reports": lineage.reports_with(gone),
        "other_workloads": dict(found.elsewhere),
        "not_searched": NOT_SEARCHED,
    }


def carry_out(
    job: Workload, stone: Tombstone, found: removal.Found, gone: Tombstones, report: dict[str, Any], compact: bool
) -> None:
    """Each step can be done twice, and none before what it follows from: a second run completes a killed one.

    The tombstone comes first, so the rows are refused from then on. The report comes before the last places that know
    which rows they were are gone; the database is one, because rejected rows and predictions have ids and no metadata.
    """
    tombstones.save(stone)
    for path in found.files:
        if found.files[path]:
            removal.without(Path(path), Path(path), gone)
    # the new version is registered before the files of the old one go
    report["newest"] = newest_without(job.name, stone, gone)
    target = project.reports(job.name) / f"takedown_{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    write_json(target, report)
    for left in leftovers(job.name, stone):
        left.unlink(missing_ok=True)
    if compact:
        removal.purge(project.database(), found.database)
        removal.purge(project.previous_database(), found.previous)
    show(report)
    cli.done([tombstones.FILE, target], f"fab {'train.prepare' if report['newest'] else 'dataset.split'} -w {job.name}")


def newest_without(name: str, stone: Tombstone, gone: Tombstones) -> str | None:
    """The newest snapshot when it is not withdrawn, else a new version of it without the rows: the other rows stay in
    their splits. None when there is nothing to make it of.

    Older versions get none, because it would pass for the newest.
    """
    versions = snapshots.registry().get(name, {})
    newest = max(versions, key=lambda version: int(version.removeprefix("v")), default=None)
    if newest is None or not tombstones.withdrawn(Path(versions[newest].train.file)):
        return newest
    old, new = versions[newest], f"v{int(newest.removeprefix('v')) + 1}"
    removed = stone.versions.get(newest, {})
    for split, snapshot in old.files().items():
        if not Path(snapshot.file).is_file() or sha256_file(Path(snapshot.file)) != snapshot.sha256:
            print(f"{snapshot.file} is not what was registered, so {newest} gets no successor")
            return None
        if snapshot.rows == removed.get(split, 0):
            print(f"no row of {snapshot.file} is left, so {newest} gets no successor")
            return None
    entries: dict[str, Any] = {}
    for split, snapshot in old.files().items():
        path = snapshots.path_of(name, split, new)
        rows = removal.without(Path(snapshot.file), path, gone)
        entries[split] = snapshot.model_copy(
            update={"file": path.as_posix(), "rows": rows, "sha256": sha256_file(path)}
        )
    parents = {f"{split}.{newest}.jsonl": snapshot.sha256 for split, snapshot in old.files().items()}
    snapshots.register(name, new, old.model_copy(update={**entries, "parents": parents}))
    return new


def leftovers(name: str, stone: Tombstone) -> list[Path]:
    """Files that can hold the rows and that nothing makes anew: old versions, their diffs, what a killed step left."""
    folder, reports = project.processed(name), project.reports(name)
    found = [snapshots.path_of(name, split, version) for version in stone.versions for split in SPLITS]
    for version in stone.versions:
        found += [*reports.glob(f"diff_{version}_*.md"), *reports.glob(f"diff_*_{version}.md")]
    return [*found, *folder.glob(".*.jsonl*")]


def show(report: dict[str, Any]) -> None:
    removed, value = report["removed"], shown.line(report["value"] or "")
    print(f"{report['kind']} {value}: {report['rows']} rows, {removed['database']} of them in the database")
    for path, n in removed["files"].items():
        print(f"  {path}: {n}")
    for version, splits in report["withdrawn"].items():
        print(f"  snapshot {version}, withdrawn: {', '.join(f'{split} {n}' for split, n in splits.items())}")
    if report["newest"]:
        print(f"  snapshot {report['newest']} is the newest, without them")
    for run in report["runs"]:
        why = f"based on {run['based_on']}" if run["based_on"] else f"prepared with {run['snapshot']}"
        package = f", package {run['package']}" if run["package"] else ""
        print(f"  run {run['run']}, {why}, {'trained' if run['trained'] else 'not trained'}{package}")
    for line in report["runs_unreadable"]:
        print(f"  not read: {shown.line(line)}")
    for path, n in report["reports"].items():
        print(f"  {shown.line(path)}: {'may quote them' if n is None else f'{n} of the rows'}")
    for task, n in report["other_workloads"].items():
        print(f"  {n} such rows have the task {shown.line(task)}, of another workload: take them down with its -w")


if __name__ == "__main__":
    cli.run(main)
