"""The most memory that this process, or a piece of work in it, takes. Standard library only."""

import resource
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
KIB = 1024


class Peak:
    """`bytes` is by how much the process was larger than before, at most; None where the kernel does not tell.

    Source: Linux, Documentation/filesystems/proc.rst: writing 5 to clear_refs sets the peak (VmHWM) to what is held.
    """

    bytes: int | None = None

    def __enter__(self) -> "Peak":
        self.before: int | None = None
        try:
            CLEAR.write_text("5")
            self.before = resident("VmRSS")
        except OSError:
            pass
        return self

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            self.bytes = max(0, resident("VmHWM") - self.before)


def resident(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * KIB


def peak_bytes() -> int:
    """The most resident memory that this process has had."""
    if STATUS.is_file():
        # not getrusage's: that begins with the memory of the program that started this one
        return resident("VmHWM")
    # as macOS counts it
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
