"""Goes on with an interrupted run under a changed config; the change is noted in models/<run>/config_changes.jsonl.

Run: python -m scripts.train.resume -r <run> -o sft.learning_rate=1.0e-4 [-o sft.num_train_epochs=2] [--processes 2]
Without a change this is train.run. What decides which model learns from which rows cannot change on the way: prepare a
new run for that. See docs/training.md.
"""

from potstill import checkpoints, cli, config, launching, project, runs
from potstill.files import stage_lock
from potstill.runs import TrainConfig
from potstill.stop import DATA, OK, USAGE, Stop
from scripts.train import run as train_run


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="what to change; repeatable"
    )
    parser.add_argument("--processes", type=int, default=1, help="as train.run's")
    parser.add_argument("--auto-batch", action="store_true", help="as train.run's")
    parser.add_argument("--dry-run", action="store_true", help="says what would change, and changes nothing")
    arguments = parser.parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    folder = project.run_folder(run)
    if runs.is_trained(run):
        raise Stop(f"{run} is trained to its end already. Prepare a new run: fab train.prepare.", USAGE)
    found = checkpoints.newest(folder / "checkpoints")
    if found is None:
        raise Stop(f"{run} has no whole checkpoint to go on from. Start it with fab train.run -r {run}.", DATA)
    change(run, found[1].step, arguments.override, arguments.dry_run)
    if arguments.dry_run:
        return OK
    words = ["-r", run, f"--processes={arguments.processes}", *(["--auto-batch"] if arguments.auto_batch else [])]
    return train_run.main(words)


def change(run: str, step: int, overrides: list[str], dry_run: bool) -> None:
    """Applies and records what is overridden; what is as it was changes nothing."""
    folder = project.run_folder(run)
    old = runs.resolved_config(run)
    path = folder / "config.yaml"
    new = runs.checked(config.load(path, TrainConfig, overrides), path)
    changes = launching.allow(run, old, new)
    for key, (before, after) in changes.items():
        print(f"from step {step} on, {key} is {after}, was {before}")
    if not changes:
        print(f"nothing changes: {run} goes on as it was")
    elif not dry_run:
        # the run must not be training meanwhile: it has read its config already
        with stage_lock(folder, "train"):
            launching.record(run, step, changes, new)


if __name__ == "__main__":
    cli.run(main)
