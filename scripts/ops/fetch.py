"""Brings a run and its reports back from a host, checked file by file.

python -m scripts.ops.fetch --host gpu [-w batfit] [-r run] [--checkpoints] [--dry-run]     or: fab -H gpu ops.fetch
A folder arrives beside the present one and takes its place when its every checksum is right; a killed fetch changes
nothing, and the next one goes on. Without -r it is the newest run on the host. Files that only this machine has stay.
"""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from potstill import cli, hosts, project, transfer
from potstill.files import sha256_file, stage_lock
from potstill.records import Record, parse_row
from potstill.stop import DATA, IO, Stop

CHECKPOINTS = "checkpoints"


class File(Record):
    """`path` is relative to the folder; `size` in bytes."""

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Listing(Record):
    """What a machine has of a run: the files of models/<run>/ and of reports/<run>/."""

    run: str
    folders: dict[str, list[File]]


def main(argv: list[str] | None = None) -> int | None:
    parser = cli.parser(__doc__, run=True, dry_run=True)
    parser.add_argument("--host", help="a name in configs/hosts.yaml, or an SSH host")
    parser.add_argument("--checkpoints", action="store_true", help="with models/<run>/checkpoints/")
    parser.add_argument("--list", action="store_true", help="print what this machine has of the run, as JSON")
    arguments = parser.parse_args(argv)
    workload = cli.workload_name(arguments)
    if arguments.list:
        print(listing(project.find_run(workload, arguments.run), arguments.checkpoints).model_dump_json())
        return 0
    if not arguments.host:
        raise Stop("which host? Say fab -H <name> ops.fetch, or --host <name>")
    transfer.need_programs()
    host = hosts.find(arguments.host)
    there = _ask(
        host,
        [
            "--list",
            f"--workload={workload}",
            *([f"--run={arguments.run}"] if arguments.run else []),
            *(["--checkpoints"] if arguments.checkpoints else []),
        ],
    )
    wrote = []
    for folder, files in there.folders.items():
        wanted = missing(Path(folder), files)
        size = sum(file.size for file in wanted)
        print(f"{folder}: {len(wanted)} of {len(files)} files differ, {size / 1e6:.1f} MB to fetch", flush=True)
        if arguments.dry_run:
            print(*(f"  {file.path}" for file in wanted), sep="\n")
        elif wanted:
            # the run last: its metrics.json says that a run is complete
            receive(host, Path(folder), files)
            wrote.append(folder)
    cli.done(wrote, f"fab eval.generate -w {workload} -r {there.run}")
    return 0


def listing(run: str, checkpoints: bool) -> Listing:
    folders = {}
    for top in (project.reports(run), project.run_folder(run)):
        paths = [path for path in sorted(top.rglob("*")) if path.is_file() and not path.is_symlink()]
        names = {path: path.relative_to(top).as_posix() for path in paths}
        folders[top.as_posix()] = [
            File(path=name, size=path.stat().st_size, sha256=sha256_file(path))
            for path, name in names.items()
            # dot files are locks and unfinished writes
            if not any(part.startswith(".") for part in PurePosixPath(name).parts)
            and (checkpoints or PurePosixPath(name).parts[0] != CHECKPOINTS)
        ]
    return Listing(run=run, folders=folders)


def _ask(host: hosts.Host, words: list[str]) -> Listing:
    """The host's listing, which is trusted for checksums but not for where a file is to be written."""
    text = transfer.remote(host, hosts.command(host, "scripts.ops.fetch", words))
    lines = text.strip().splitlines() or [""]
    there = parse_row(lines[-1], Listing, f"the listing of {host.host}", "Run fab ops.push, then this again.")
    allowed = {project.reports(there.run).as_posix(), project.run_folder(there.run).as_posix()}
    names = [PurePosixPath(file.path) for files in there.folders.values() for file in files]
    if set(there.folders) - allowed or any(
        name.is_absolute() or any(part.startswith(".") for part in name.parts) or not name.parts for name in names
    ):
        raise Stop(f"the listing of {host.host} names files outside the run's folders; nothing was fetched", DATA)
    return there


def missing(folder: Path, files: list[File]) -> list[File]:
    """The files that are not in `folder` with the same content."""
    return [file for file in files if not _is(folder / file.path, file)]


def _is(path: Path, file: File) -> bool:
    plain = path.is_file() and not path.is_symlink() and path.stat().st_size == file.size
    return plain and sha256_file(path) == file.sha256


def receive(host: hosts.Host, folder: Path, files: list[File]) -> None:
    """Fetches what `folder` lacks into a temporary sibling, checks all of it, then swaps the two.

    Raises Stop 74 when a file arrives with another checksum than the host gave.
    """
    with stage_lock(folder.parent / ".incoming", f"fetch-{folder.name}"):
        transfer.recover(folder)
        arriving = folder.parent / ".incoming" / folder.name
        arriving.mkdir(parents=True, exist_ok=True)
        wanted = {file.path for file in files}
        for stray in [path for path in arriving.rglob("*") if not path.is_dir() or path.is_symlink()]:
            # what an earlier attempt has left of files that the host has no longer
            if stray.relative_to(arriving).as_posix() not in wanted and transfer.PARTIAL not in stray.parts:
                stray.unlink()
        for file in files:
            _reuse(folder / file.path, arriving / file.path, file)
        lacking = missing(arriving, files)
        transfer.rsync(
            host,
            [file.path for file in lacking],
            transfer.remote_path(host, folder.as_posix() + "/"),
            f"{arriving.as_posix()}/",
            f"fetch {folder}",
        )
        wrong = missing(arriving, lacking)
        for file in wrong:
            (arriving / file.path).unlink(missing_ok=True)
        if wrong:
            raise Stop(
                f"{folder / wrong[0].path} and {len(wrong) - 1} more arrived with another checksum than "
                f"{host.host} gave; {folder} is untouched. Run the same command again.",
                IO,
            )
        for partial in list(arriving.rglob(transfer.PARTIAL)):
            shutil.rmtree(partial)
        transfer.swap_in(arriving, folder)


def _reuse(present: Path, arriving: Path, file: File) -> None:
    if not arriving.exists() and _is(present, file):
        arriving.parent.mkdir(parents=True, exist_ok=True)
        os.link(present, arriving)


if __name__ == "__main__":
    cli.run(main)
