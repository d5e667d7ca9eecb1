"""What every program in scripts/ shares: the common options, and how it starts and ends."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from potstill import project
from potstill.stop import BUSY, IO, Stop


def parser(
    doc: str | None, *, workload: bool = True, run: bool = False, config: str | None = None, dry_run: bool = False
):
    """An ArgumentParser with DESIGN's common options. `config`: the default name in configs/<stage>/; "" for none."""
    arguments = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if workload:
        arguments.add_argument("-w", "--workload", help="default: the one in configs/project.yaml")
    if run:
        arguments.add_argument("-r", "--run", help="default: the newest run of the workload")
    if config is not None:
        usual = config or "what the workload says"
        arguments.add_argument("-c", "--config", default=config or None, help=f"name of a YAML file (default: {usual})")
        arguments.add_argument(
            "-o",
            "--override",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="overrides a key of the config; repeatable",
        )
    if dry_run:
        arguments.add_argument("--dry-run", action="store_true", help="says what would be written, and writes nothing")
    return arguments


def workload_name(arguments: argparse.Namespace) -> str:
    return arguments.workload or project.load_project().workload


def done(wrote: Sequence[Path | str], following: str | None = None) -> None:
    """The last lines of a step: what it wrote and the next command."""
    for path in wrote:
        print(f"wrote {path}")
    if following:
        print(f"next: {following}")


def run(main: Callable[[], int | None]) -> None:
    """Runs a script's main and exits with the code DESIGN section 6 gives its end."""
    project.go_offline()
    quiet()
    try:
        code = main() or 0
    except Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        code = stop.code
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        code = BUSY
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        print(
            f"error: {error.filename or 'a file'}: {error.strerror}. Nothing was half-written; mend it and run again.",
            file=sys.stderr,
        )
        code = IO
    sys.stdout.flush()
    raise SystemExit(code)


def quiet() -> None:
    """Leaves the screen to our own lines: libraries show errors only."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    for name in ("torch.utils._pytree", "torchao", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
