"""Turns a workload's own raw material into exemplars: rows of the DuckDB table `examples`.

Run: python -m scripts.dataset.convert -w batfit        (or: fab dataset.convert -w batfit)
Running it again replaces the rows that the last conversion of the workload wrote, and no others.
"""

from collections import Counter
from collections.abc import Iterator

from potstill import cli, database, progress, project, rows, workload
from potstill.records import Exemplar
from potstill.workload import Workload


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, dry_run=True)
    arguments = parser.parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    path = project.database()
    strata: Counter[rows.Stratum] = Counter()
    if arguments.dry_run:
        print(f"would write {sum(1 for _ in exemplars(job, strata))} exemplars from {job.samples} to {path}")
    else:
        written = database.write(path, exemplars(job, strata), replace_workload=job.name)
        print(f"{job.name}: {written} exemplars from {job.samples}")
    print("\n".join(rows.mix_table(rows.effective_counts(strata))))
    if arguments.dry_run:
        return
    cli.done([path], f"fab dataset.clean -w {job.name}")


def exemplars(job: Workload, strata: "Counter[rows.Stratum]") -> Iterator[Exemplar]:
    """The workload's exemplars, counted by what their weights depend on."""
    for exemplar in progress.track(job.module.convert(job.samples), "convert"):
        strata[rows.stratum(exemplar)] += 1
        yield exemplar.model_copy(update={"metadata": {**exemplar.metadata, "converted_by": job.name}})


if __name__ == "__main__":
    cli.run(main)
