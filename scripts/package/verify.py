"""Checks that a package is whole: every file there, none extra, none changed, nothing in it that could run code.

Run: python -m scripts.package.verify -r <run>        or, anywhere:  python -m scripts.package.verify --folder <package>
Exits 65 after a line for each problem.
"""

from pathlib import Path

from potstill import cli, manifest, package, project
from potstill.stop import DATA, OK


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument("--folder", type=Path, help="a package folder, wherever it is (default: the run's)")
    arguments = parser.parse_args(argv)
    run = None if arguments.folder else project.find_run(cli.workload_name(arguments), arguments.run)
    folder = arguments.folder or package.folder(run)
    problems = manifest.verify(folder)
    for problem in problems:
        print(f"{folder}/{problem}")
    if problems:
        print(f"{len(problems)} problems; nothing of this package should be used. Run fab package.export again.")
        return DATA
    show(folder)
    print(f"{folder} is whole")
    cli.done([], f"fab package.parity -r {run}" if run else None)
    return OK


def show(folder: Path) -> None:
    """A line per artifact: how many files and bytes."""
    print(f"{'artifact':<12} {'files':>5} {'MB':>9}")
    for artifact in sorted(p for p in folder.iterdir() if p.is_dir()):
        files = [p for p in artifact.rglob("*") if p.is_file()]
        print(f"{artifact.name:<12} {len(files):>5} {sum(p.stat().st_size for p in files) / 1e6:>9.1f}")


if __name__ == "__main__":
    cli.run(main)
