"""The files of a folder that nobody has vouched for: walked without following, opening or believing anything."""

import os
import re
import stat
from pathlib import Path

MAX_FILES, MAX_BYTES, MAX_DEPTH = 10_000, 2**40, 6
# of a file or folder in a package: no hidden one, no option, nothing that a terminal or another system reads otherwise
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@-]{0,199}")


def walk(package: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Regular files by their path inside the package, and a problem for everything that no package has."""
    present: dict[str, Path] = {}
    problems: list[tuple[str, str]] = []
    total = 0

    def unreadable(error: OSError) -> None:
        problems.append((os.path.relpath(error.filename, package), "cannot be read"))

    for folder, folders, names in os.walk(package, followlinks=False, onerror=unreadable):
        at = Path(folder).relative_to(package)
        if not folders and not names:
            problems.append((at.as_posix(), "is an empty folder; a package has none"))
        for name in sorted(folders + names):
            path, inside = Path(folder) / name, (at / name).as_posix()
            found = path.lstat()
            if not PLAIN_NAME.fullmatch(name):
                problems.append((repr(inside)[1:-1], "is hidden or has a name that no file of a package has"))
            if stat.S_ISLNK(found.st_mode):
                problems.append((inside, "is a symbolic link; a package has none"))
            elif stat.S_ISREG(found.st_mode):
                present[inside] = path
                total += found.st_size
                if found.st_mode & 0o7111:
                    problems.append((inside, "is executable; nothing in a package is (chmod 644)"))
            elif not stat.S_ISDIR(found.st_mode):
                problems.append((inside, "is no regular file"))
        if len(at.parts) >= MAX_DEPTH and folders:
            problems.append((at.as_posix(), "has folders deeper than a package's"))
            folders.clear()
        if len(present) > MAX_FILES or total > MAX_BYTES:
            return {}, [*problems, (at.as_posix(), f"more than {MAX_FILES} files or {MAX_BYTES} bytes")]
    return present, problems
