"""Turns a workload's own raw material into exemplars: rows of the DuckDB table `examples`.

Run: python -m scripts.dataset.convert -w batfit        (or: fab dataset.convert -w batfit)
Running it again replaces the rows that the last conversion of the workload wrote, and no others.
"""

from collections.abc import Iterator

from potstill import cli, database, progress, project, workload
from potstill.records import Exemplar
from potstill.workload import Workload


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, dry_run=True)
    arguments = parser.parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    path = project.database()
    if arguments.dry_run:
        print(f"would write {sum(1 for _ in exemplars(job))} exemplars from {job.samples} to {path}")
        return
    written = database.write(path, exemplars(job), replace_workload=job.name)
    print(f"{job.name}: {written} exemplars from {job.samples}")
    cli.done([path], f"fab dataset.clean -w {job.name}")


def exemplars(job: Workload) -> Iterator[Exemplar]:
    for exemplar in progress.track(job.module.convert(job.samples), "convert"):
        yield exemplar.model_copy(update={"metadata": {**exemplar.metadata, "converted_by": job.name}})


if __name__ == "__main__":
    cli.run(main)
