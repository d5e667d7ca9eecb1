"""One guarded process that cleans rows: a row that eats its CPU or memory limit costs that process, and only that row.

Started by potstill/engine.py as python -m potstill.worker; JSON lines in on stdin, one JSON line out for each.
The first line in is the greeting: {"workload", "pii_key", "cpu_s", "memory_mib"}.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# a page is cleaned in milliseconds; one that takes seconds was made to
CPU_S = 2
# beyond what the process has once everything is imported
MEMORY_MIB = 1024

Row = dict[str, Any]


class Worker:
    """A handle on one process. `run` never raises for a row: a row that ends the process comes back as a reject."""

    def __init__(self, workload: str, pii_key: bytes, cpu_s: int = CPU_S, memory_mib: int = MEMORY_MIB):
        # the key goes through the pipe: arguments and environments can be seen by others
        self.greeting = {"workload": workload, "pii_key": pii_key.hex(), "cpu_s": cpu_s, "memory_mib": memory_mib}
        self.process: subprocess.Popen[str] | None = None

    def run(self, rows: Iterable[Row]) -> list[Row]:
        """The answer of each row; a row that is a reject already is its own answer."""
        return [row if "reject" in row else self.clean(row) for row in rows]

    def clean(self, row: Row) -> Row:
        if self.process is None:
            self.process = self._start()
        try:
            answer = self._ask(self.process, row)
        except BrokenPipeError:
            answer = ""
        if answer:
            return json.loads(answer)
        code = self.close()
        limit = f"over {self.greeting['cpu_s']} s of CPU or {self.greeting['memory_mib']} MiB"
        detail = f"cleaning it ended the process (exit {code}): {limit}"
        reject = {"id": row["id"], "task": row["task"], "stage": "clean", "reason": "too_costly", "detail": detail}
        return {"reject": reject}

    def close(self) -> int | None:
        """Ends the process, if there is one, and returns its exit code."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
        return process.wait()

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "potstill.worker"]
        # the project folder, in which it runs, need not be the one that holds the code
        path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *os.environ.get("PYTHONPATH", "").split(":")])
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )
        if not self._ask(process, self.greeting):
            raise RuntimeError(f"{' '.join(command)} did not start: exit {process.wait()}")
        return process

    @staticmethod
    def _ask(process: "subprocess.Popen[str]", value: Row) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        # ASCII: a page may hold lone surrogates, and U+2028 is no line end here
        process.stdin.write(json.dumps(value) + "\n")
        process.stdin.flush()
        return process.stdout.readline()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    # what a library prints must not come between the answers
    os.dup2(2, 1)
    greeting = json.loads(sys.stdin.readline())
    from potstill import cleaning, workload

    job = workload.load(greeting["workload"])
    cleaner = cleaning.Cleaner(job, bytes.fromhex(greeting["pii_key"]))
    limit_memory(greeting["memory_mib"])
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        limit_cpu(greeting["cpu_s"])
        print(json.dumps(cleaner.clean(json.loads(line))), file=answers, flush=True)


def limit_memory(mib: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + mib * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu(seconds: int) -> None:
    """From now on; the kernel ends the process, whatever code it is in."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # whole seconds only: a row gets its limit and up to one more
    soft = int(usage.ru_utime + usage.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
