"""Turns a workload's own raw material into exemplars: rows of the DuckDB table `examples`.

Run: python -m scripts.dataset.convert -w batfit        (or: fab dataset.convert -w batfit)
A workload's module can add options of its own (CONVERT_OPTIONS); -w <name> -h lists them.
Running it again replaces the rows that the last conversion of the workload wrote, and no others.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from potstill import cli, config, database, progress, project, rows, workload
from potstill.records import Exemplar
from potstill.stop import USAGE, Stop
from potstill.workload import Workload


def main(argv: list[str] | None = None) -> None:
    job, arguments, options = read_arguments(argv)
    if not hasattr(job.module, "convert"):
        raise Stop(
            f"potstill/workloads/{job.name}.py has no convert: its rows are captured or pulled. "
            f"Run fab dataset.clean -w {job.name}."
        )
    path = project.database()
    strata: Counter[rows.Stratum] = Counter()
    if arguments.dry_run:
        print(f"would write {sum(1 for _ in exemplars(job, strata, options))} exemplars to {path}")
    else:
        written = database.write(path, exemplars(job, strata, options), replace_workload=job.name)
        print(f"{job.name}: {written} exemplars")
    print("\n".join(rows.mix_table(rows.effective_counts(strata))))
    if arguments.dry_run:
        return
    cli.done([path], f"fab dataset.clean -w {job.name}")


def read_arguments(argv: list[str] | None) -> tuple[Workload, argparse.Namespace, dict[str, Any]]:
    """The workload, the arguments, and the workload's own options, given as --name or as -o name=value."""
    # which options there are depends on the workload, so its name is read first
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    named.add_argument("-w", "--workload")
    job = workload.load(cli.workload_name(named.parse_known_args(argv)[0]))
    parser = cli.parser(__doc__, dry_run=True)
    parser.add_argument("-o", "--override", action="append", default=[], metavar="NAME=VALUE", help="as --name VALUE")
    own: dict[str, tuple[type, str]] = getattr(job.module, "CONVERT_OPTIONS", {})
    for name, (kind, text) in own.items():
        how: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
        parser.add_argument(f"--{name.replace('_', '-')}", help=text, **how)
    arguments = parser.parse_args(argv)
    words = [word for pair in arguments.override for word in as_words(job, own, pair)]
    arguments = parser.parse_args([*(sys.argv[1:] if argv is None else argv), *words])
    return job, arguments, {name: getattr(arguments, name) for name in own}


def as_words(job: Workload, own: dict[str, tuple[type, str]], pair: str) -> list[str]:
    name, _, value = pair.partition("=")
    if name not in own:
        known = ", ".join(own) or "none"
        raise Stop(f"-o {name}: {job.name} has no such option.{config.nearest(name, own)} Known: {known}.", USAGE)
    option = f"--{name.replace('_', '-')}"
    if own[name][0] is not bool:
        return [f"{option}={value}"]
    if value not in ("true", "false"):
        raise Stop(f"-o {name}: want true or false.", USAGE)
    return [option] if value == "true" else []


def exemplars(job: Workload, strata: "Counter[rows.Stratum]", options: dict[str, Any]) -> Iterator[Exemplar]:
    """The workload's exemplars, counted by what their weights depend on."""
    for exemplar in progress.track(job.module.convert(job.samples, **options), "convert"):
        strata[rows.stratum(exemplar)] += 1
        yield exemplar.model_copy(update={"metadata": {**exemplar.metadata, "converted_by": job.name}})


if __name__ == "__main__":
    cli.run(main)
