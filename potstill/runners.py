"""Runs a step's command for Fabric so that an interrupt reaches it: here or on a host, with a terminal or without.

A step that is interrupted saves its state and exits 75. By themselves Fabric and Invoke forward Ctrl-C through a
terminal only, and nothing forwards the SIGTERM of `timeout` or a service manager.
"""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from subprocess import PIPE, Popen
from typing import Any

import fabric.runners
import invoke.exceptions
import invoke.runners

from potstill.stop import BUSY, Stop


@contextlib.contextmanager
def stops() -> Iterator[None]:
    """Ends fab as a script ends: with one line and the documented code."""
    try:
        yield
    except Stop as stop:
        raise invoke.exceptions.Exit(f"error: {stop}", code=stop.code) from None
    except KeyboardInterrupt:
        raise invoke.exceptions.Exit("interrupted; run the same command again to go on", code=BUSY) from None


def flags(**options: Any) -> list[str]:
    """['--workload=batfit', '--override=a=1', '--override=b=2', '--dry-run']: options as a script takes them."""
    words: list[str] = []
    for key, value in options.items():
        option = "--" + key.replace("_", "-")
        if value is True:
            words.append(option)
        elif isinstance(value, list):
            words += [f"{option}={item}" for item in value]
        elif value is not None and value is not False:
            # one word, so that a value may begin with a dash
            words.append(f"{option}={value}")
    return words


def on_terminal() -> bool:
    """A pseudo-terminal merges stdout and stderr, so one is made only when both of ours, and stdin, are a terminal."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def follow(run: Callable[..., invoke.runners.Result], command: str) -> int:
    """Runs a command line with a context's `run` or `local`, showing what it shows; returns its exit code."""
    # a deadline or a service manager ends a step as gently as Ctrl-C does
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = run(command, pty=on_terminal(), warn=True).exited
    except invoke.exceptions.ThreadException as error:
        if not all(issubclass(item.type, BrokenPipeError) for item in error.exceptions):
            raise
        # whoever read our output, `head` for example, has gone; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = -signal.SIGPIPE
    finally:
        signal.signal(signal.SIGTERM, before)
    # as a shell reports a program that a signal has ended
    return code if code >= 0 else 128 - code


class Local(invoke.runners.Local):
    def start(self, command: str, shell: str, env: dict[str, Any]) -> None:
        if self.using_pty:
            super().start(command, shell, env)
            return
        # a group of its own: an interrupt meets the step once, through send_interrupt, and not in the midst of saving
        self.process = Popen([shell, "-c", command], env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE, process_group=0)

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        if self.using_pty:
            super().send_interrupt(interrupt)
        else:
            os.kill(self.process.pid, signal.SIGINT)


class Remote(fabric.runners.Remote):
    """Without a terminal, the first line a session writes is its process id, which is kept and not shown.

    SSH has a request that sends a signal (RFC 4254 section 6.9), but OpenSSH refuses it to root, whom rented GPU
    hosts let in.
    """

    process_id = ""

    def send_start_message(self, command: str) -> None:
        if not self.using_pty:
            # sh, because login shells do not agree on $$
            command = shlex.join(["sh", "-c", f"echo $$; {command}"])
        super().send_start_message(command)

    def read_proc_stdout(self, num_bytes: int) -> bytes | None:
        if not self.using_pty and not self.process_id:
            line = b""
            while not line.endswith(b"\n") and (byte := super().read_proc_stdout(1)):
                line += byte
            self.process_id = line.decode().strip() or "-"
        return super().read_proc_stdout(num_bytes)

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        if self.using_pty:
            super().send_interrupt(interrupt)
        elif self.process_id.isdecimal():
            with self.context.create_session() as session:
                session.exec_command(f"kill -INT {self.process_id}")
                session.recv_exit_status()
        else:
            raise interrupt
