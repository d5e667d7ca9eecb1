"""Brings a DuckDB file of exemplars here, checks it, and puts it in the place of the project's database.

Run: python -m scripts.dataset.pull --source user@server:/path/dataset.duckdb [-w batfit] [--dry-run]
The source is host:/path or host:~/path (a name in configs/hosts.yaml, or an SSH host) or a local path. The new file
replaces the present one whole; that is kept as dataset.previous.duckdb. A pull that is killed or finds the file wanting
changes nothing, and the next one goes on with what has arrived.
"""

import argparse
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from potstill import cli, database, foreign, hosts, progress, project, transfer, workload
from potstill.files import sha256_text, stage_lock
from potstill.foreign import Inspection, Refused
from potstill.hosts import Host
from potstill.stop import BUSY, DATA, IO, USAGE, Stop
from potstill.workload import Workload

# a colon before the first slash makes a source remote, as for scp and rsync; the folder begins with / or ~/
REMOTE = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9._@-]*):(?P<folder>~?/(?:[^/].*/)?)(?P<name>\w[^/]*)")
WILDCARDS = "*?[]\\"
BLOCK_BYTES = 16 << 20
CANDIDATE = "candidate.duckdb"


@dataclass(frozen=True)
class Remote:
    """A file `name` in `folder` (absolute, or ./ for the login's home) on a host."""

    host: Host
    folder: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.host.host}:{self.folder}"


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, dry_run=True)
    parser.add_argument("--source", required=True, help="[user@]host:/path/x.duckdb, or a local path")
    parser.add_argument("--port", type=port, help="of SSH (default: the one in configs/hosts.yaml, or 22)")
    parser.add_argument("--bwlimit", type=int, default=0, metavar="KIB", help="at most so many KiB a second")
    arguments = parser.parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    source = parse_source(arguments.source, arguments.port)
    target = project.database()
    if arguments.dry_run:
        describe(source, arguments.source, target, job)
        return
    with stage_lock(target.parent, "pull"):
        fold_log(target)
        arriving = target.parent / ".incoming" / sha256_text(arguments.source)[:12]
        candidate = fetch(source, arguments.source, arriving, arguments.bwlimit)
        try:
            found = foreign.inspect(candidate, arguments.source)
        except Refused:
            candidate.unlink()
            raise
        sha256 = digest(candidate)
        print(f"sha256 {sha256}  {candidate.stat().st_size} bytes  DuckDB storage {found.storage_version}")
        print(*comparison(rows_of(target), found, job), sep="\n")
        wrote = replace(candidate, target, sha256)
        sync(target.parent)
        shutil.rmtree(target.parent / ".incoming", ignore_errors=True)
    cli.done(list[Path | str](wrote), f"fab dataset.clean -w {job.name}")


def port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("want a number from 1 to 65535")
    return int(text)


def parse_source(text: str, port: int | None = None) -> Path | Remote:
    """A local path or a file on a host. Raises Stop 2 for anything else: a URL, an option, a pattern."""
    head, colon, _ = text.partition(":")
    if not text or text.startswith("-") or not text.isprintable():
        raise Stop(f"--source {text!r}: want [user@]host:/path/x.duckdb, or a local path", USAGE)
    if not colon or "/" in head:
        return Path(text).expanduser()
    found = REMOTE.fullmatch(text)
    if not found or set(text) & set(WILDCARDS) or ".." in found["folder"].split("/"):
        raise Stop(
            f"--source {text!r}: want [user@]host:/path/x.duckdb or [user@]host:~/path/x.duckdb, one plain file and no "
            f"URL; the port goes into --port. For a local file of that name write ./{text}",
            USAGE,
        )
    host = hosts.find(found["host"])
    # without its ~ a path means the same to rsync, which starts in the login's home
    folder = found["folder"].replace("~/", "./", 1) if found["folder"].startswith("~") else found["folder"]
    return Remote(host.model_copy(update={"port": port or host.port}), folder, found["name"])


def describe(source: Path | Remote, shown: str, target: Path, job: Workload) -> None:
    """--dry-run: what is there and what would be replaced; for a local source also whether it is fit."""
    if isinstance(source, Remote):
        transfer.need_programs()
        entry = whole(source, shown)
        print(f"{shown}: {entry.size} bytes of {entry.time}; what is in it is seen once it is here")
        lines = [f"{task}: {count} rows now" for task, count in rows_of(target).items()]
    else:
        lines = comparison(rows_of(target), foreign.inspect(source, shown), job)
    print(*lines, f"would replace {target}", sep="\n")


def fetch(source: Path | Remote, shown: str, arriving: Path, bwlimit: int) -> Path:
    """The source, whole, as a file of our own in the folder `arriving`."""
    arriving.mkdir(parents=True, exist_ok=True)
    candidate = arriving / CANDIDATE
    if isinstance(source, Remote):
        fetch_remote(source, shown, candidate, bwlimit)
    else:
        copy(source, shown, candidate)
    # whatever the source's mode: that of a new file, as the umask gave it to the folder
    os.chmod(candidate, arriving.stat().st_mode & 0o666)
    return candidate


def fetch_remote(source: Remote, shown: str, candidate: Path, bwlimit: int) -> None:
    transfer.need_programs()
    arrived = candidate.with_name("file") / source.name
    arrived.parent.mkdir(exist_ok=True)
    if candidate.exists():
        # killed after the transfer; rsync compares it with the source and keeps what is right of it
        os.replace(candidate, arrived)
    transfer.adopt(arrived)
    before = whole(source, shown)
    have = sum(path.stat().st_size for path in arrived.parent.rglob("*") if path.is_file())
    need_space(arrived.parent, before.size - have)
    if have:
        print(f"going on with the {have} bytes of {before.size} that are here", flush=True)
    options = ["--compress", "--copy-links", f"--bwlimit={bwlimit}"]
    transfer.rsync(source.host, [source.name], source.path, f"{arrived.parent}/", f"pull {shown}", options)
    if whole(source, shown) != before:
        raise Stop(f"{shown} has changed while it was copied. Run this again while no program writes it.", BUSY)
    if not arrived.is_file() or arrived.is_symlink():
        raise Stop(f"{shown} did not arrive; is it a plain file?", IO)
    # a name that no other rsync, left over from a killed pull, can still write to
    os.replace(arrived, candidate)


def whole(source: Remote, shown: str) -> transfer.Entry:
    """The remote file as it is now. Raises Stop when it is no file, or lies beside a log of changes not yet in it."""
    wal = f"{source.name}.wal"
    entries = transfer.listing(source.host, [source.name, wal], source.path)
    if source.name not in entries or entries[source.name].kind != "-":
        raise Stop(f"{shown} is not there, or is no file. Name the .duckdb file itself.", DATA)
    if wal in entries and entries[wal].size:
        raise Refused("unfolded", shown, f"{wal}, {entries[wal].size} bytes")
    return entries[source.name]


def copy(source: Path, shown: str, candidate: Path) -> None:
    """A local file that no other process writes meanwhile."""
    if not source.is_file():
        raise Stop(f"{shown} is not there, or is no file. Name the .duckdb file itself.", DATA)
    if project.database().exists() and source.samefile(project.database()):
        raise Stop(f"{shown} is the project's database already", USAGE)
    need_space(candidate.parent, source.stat().st_size)
    # beside the file itself, not beside a link to it
    log = source.resolve().with_name(source.resolve().name + ".wal")
    with open(source, "rb") as file, unwritten(file, shown), open(candidate, "wb") as out:
        if log.exists() and log.stat().st_size:
            raise Refused("unfolded", shown, log.name)
        for block in blocks(file, "copy"):
            out.write(block)


def blocks(file: BinaryIO, what: str) -> Iterator[bytes]:
    total = -(-os.fstat(file.fileno()).st_size // BLOCK_BYTES)
    return progress.track(iter(lambda: file.read(BLOCK_BYTES), b""), f"{what}, in blocks of 16 MiB", total)


def digest(path: Path) -> str:
    """sha256 of what is then on the disk for good."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        for block in blocks(file, "checksum"):
            sha256.update(block)
        os.fsync(file.fileno())
    return sha256.hexdigest()


def need_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise Stop(f"{folder} has {free / 1e6:.0f} MB free, {size / 1e6:.0f} MB are to come. Make room first.", IO)


@contextlib.contextmanager
def unwritten(file: BinaryIO, shown: Path | str) -> Iterator[None]:
    """Keeps DuckDB from opening the file for writing. Raises Refused when a process has it open for that.

    DuckDB takes fcntl locks on the whole file: shared to read, exclusive to write.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise Refused("open", shown, "DuckDB has it locked") from None
        # file systems without locks: DuckDB has none there either
    yield


def rows_of(target: Path) -> dict[str, int]:
    """The rows by task of the present database; none where it cannot be read, which is no reason to keep it."""
    if not target.exists():
        return {}
    try:
        return foreign.inspect(target).rows
    except Stop as stop:
        if stop.code == BUSY:
            raise
        print(f"the present database is of no use: {stop}")
        return {}


def comparison(before: dict[str, int], found: Inspection, job: Workload) -> list[str]:
    """What the user sees of the change: rows by task, and what it means for the workload."""
    lines = ["the database is REPLACED, not merged; rows by task, before -> after:"]
    tasks = sorted({*before, *found.rows})
    lines += [f"  {foreign.printable(task)}: {before.get(task, 0)} -> {found.rows.get(task, 0)}" for task in tasks]
    lacking = [f"the column {name}" for name in database.COLUMNS if name not in found.columns]
    if not found.primary_key:
        lacking.append("a primary key on id")
    if lacking:
        lines.append(f"it lacks {', '.join(lacking)}: its rows can be used, but no step can add rows to it")
    missing = [task for task in job.settings.tasks if task not in found.rows]
    if any(before.get(task) for task in missing):
        lines.append(f"rows of {job.name} are gone from it; fab dataset.convert -w {job.name} adds the samples again")
    elif len(missing) == len(job.settings.tasks):
        lines.append(f"it has no rows of {job.name} (task {', '.join(missing)}); -w names another workload")
    return lines


def fold_log(target: Path) -> None:
    """Brings what a killed program has left in the present database's log into the database."""
    log = target.with_name(target.name + ".wal")
    if not target.exists() or not log.exists():
        return
    try:
        database.connect(target, read_only=False).close()
    except Stop as stop:
        if stop.code == BUSY:
            raise
        raise Stop(f"{log} and {target} do not go together. Move both away, then run this again.", DATA) from None


def replace(candidate: Path, target: Path, sha256: str) -> list[Path]:
    """Puts the candidate in the place of the target, which stays as <name>.previous.duckdb. Returns what it wrote."""
    if not target.exists():
        os.replace(candidate, target)
        return [target]
    if digest(target) == sha256:
        print(f"{target} is the same file already")
        return []
    previous = project.previous_database()
    spare = candidate.with_name("previous")
    spare.unlink(missing_ok=True)
    with open(target, "rb") as file, unwritten(file, target):
        log = target.with_name(target.name + ".wal")
        if log.exists():
            raise Refused("unfolded", target, log.name)
        try:
            os.link(target, spare)
        except OSError:
            # file systems without hard links
            shutil.copy2(target, spare)
        os.replace(spare, previous)
        os.replace(candidate, target)
    return [target, previous]


def sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    cli.run(main)
