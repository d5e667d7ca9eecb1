"""The spool of potstill.capture: JSON lines in files beside the database, until flush moves them into it.

Every append opens a file, locks it without waiting, writes one line and lets go. A file that is locked is passed over
for another one of the process, so no writer ever waits: not for a thread, a forked child, a merger or a stopped
process. A merger locks a file, renames it and lets go; a writer that came too late sees that its file has moved.
"""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from potstill.records import Exemplar

FORMAT = b"potstill1"
OPEN, SEALED, REFUSED = ".open.jsonl", ".sealed.jsonl", ".refused.jsonl"
# a writer holds its file for well under a millisecond
SEAL_ATTEMPTS, SEAL_PAUSE_S = 4, 0.01
# spool folder -> the names of this process's own files in it; a child that shares them with its parent does no harm
_own: dict[Path, list[str]] = {}


def folder_of(database: Path) -> Path:
    return database.with_name(f"{database.stem}.captured")


def append(folder: Path, row: Exemplar, *, fsync: bool = False) -> None:
    """Adds one line, whole or not at all. It outlives this process; with `fsync`, a power cut too.

    Raises OSError when the disk refuses it.
    """
    payload = row.model_dump_json().encode()
    line = b"%s %s %s\n" % (FORMAT, _checksum(payload), payload)
    folder.mkdir(parents=True, exist_ok=True)
    own = _own.setdefault(folder, [])
    for name in itertools.chain(list(own), _new_names(own)):
        if _append_to(folder / name, line, fsync):
            return


def seal(folder: Path) -> list[Path]:
    """Takes the files away from their writers; returns all that are to be merged. For the holder of `merge_lock`.

    A file that stays in use, by a writer that was stopped in the middle, is left for the next time.
    """
    busy = sorted(folder.glob(f"*{OPEN}"))
    for attempt in range(SEAL_ATTEMPTS):
        if attempt:
            time.sleep(SEAL_PAUSE_S)
        if not (busy := [path for path in busy if not _take(path)]):
            break
    return sorted(folder.glob(f"*{SEALED}"))


def _take(path: Path) -> bool:
    """Whether the file is nobody's to write to any more; False while a writer holds it."""
    try:
        with _locked(path, os.O_RDWR) as descriptor:
            if descriptor is not None and _is_at(descriptor, path):
                # a name of its own: the writer goes on under the old one
                stem = f"{path.name.removesuffix(OPEN)}-{uuid.uuid4().hex[:8]}"
                os.rename(path, path.with_name(f"{stem}{SEALED}"))
            return descriptor is not None
    except FileNotFoundError:
        return True


def read(path: Path, refused: list[tuple[str, bytes]]) -> Iterator[Exemplar]:
    """Streams the rows of a sealed file; adds (reason, line) to `refused` for what is no line of this version."""
    with open(path, "rb") as file:
        for line in file:
            line = line.rstrip(b"\n")
            form, _, rest = line.partition(b" ")
            checksum, _, payload = rest.partition(b" ")
            if form != FORMAT and form.startswith(b"potstill"):
                refused.append(("other_version", line))
            elif form != FORMAT or _checksum(payload) != checksum:
                refused.append(("damaged", line))
            else:
                try:
                    yield Exemplar.model_validate_json(payload)
                except ValidationError:
                    refused.append(("other_version", line))


@contextlib.contextmanager
def merge_lock(folder: Path, wait: bool) -> Iterator[bool]:
    """Whether this process may merge; only one at a time does. With `wait` it waits for its turn."""
    path = folder / ".merge.lock"
    with _locked(path, os.O_RDWR | os.O_CREAT, wait) as descriptor:
        yield descriptor is not None


def _append_to(path: Path, line: bytes, fsync: bool) -> bool:
    """False, and nothing written, when the file is in use or was taken away."""
    with _locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as descriptor:
        if descriptor is None or not _is_at(descriptor, path):
            return False
        size = os.fstat(descriptor).st_size
        # after a line that a kill cut off
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except BaseException:
            os.ftruncate(descriptor, size)
            raise
        if fsync:
            os.fsync(descriptor)
            if not size:
                _sync_name(path)
        return True


@contextlib.contextmanager
def _locked(path: Path, flags: int, wait: bool = False) -> Iterator[int | None]:
    """The open file, locked; None when another holds it."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        try:
            yield descriptor
        finally:
            # closing is not enough: a child that was forked meanwhile has the file open too, and would keep the lock
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _new_names(own: list[str]) -> Iterator[str]:
    while True:
        name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}{OPEN}"
        own.append(name)
        yield name


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(payload).hexdigest()[:16].encode()


def _sync_name(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
