"""Writes a workload's committed samples anew: data/samples/<workload>/. The same seed gives the same bytes.

Run: python -m scripts.dataset.samples -w batfit        (or: fab dataset.samples -w batfit)
"""

from potstill import cli, workload
from potstill.stop import Stop

SEED = 17


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, dry_run=True)
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s, the committed samples' own")
    arguments = parser.parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    if not hasattr(job.module, "make_samples"):
        raise Stop(f"potstill/workloads/{job.name}.py has no make_samples: its samples are not generated")
    if arguments.dry_run:
        print(f"would write {job.samples}/ anew with seed {arguments.seed}")
        return
    cli.done(job.module.make_samples(job.samples, arguments.seed), f"fab dataset.convert -w {job.name}")


if __name__ == "__main__":
    cli.run(main)
