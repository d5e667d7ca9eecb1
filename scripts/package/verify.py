"""Checks that a package is whole: every file there, none extra, none changed, nothing in it that could run, and signed.

Run: python -m scripts.package.verify -r <run>        or, anywhere:  python -m scripts.package.verify --folder <package>
With a public key (--public-key, or signing.public_key in configs/project.yaml) it must be signed with its private half.
--replaces <installed package> also refuses a package of an earlier run than the installed one. Exits 65 after a line
for each problem. Opens no connection.
"""

from pathlib import Path

from potstill import cli, manifest, package, project, signing
from potstill.stop import DATA, OK, USAGE, Stop


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument("--folder", type=Path, help="a package folder, wherever it is (default: the run's)")
    parser.add_argument("--public-key", type=Path, help="whose signature is wanted (default: configs/project.yaml's)")
    parser.add_argument("--replaces", type=Path, help="the installed package folder that this one would replace")
    arguments = parser.parse_args(argv)
    run, folder = None, arguments.folder
    if folder is None:
        run = project.find_run(cli.workload_name(arguments), arguments.run)
        folder = package.folder(run)
    public_key = arguments.public_key or configured_key()
    if public_key and public_key.resolve().is_relative_to(folder.resolve()):
        raise Stop(f"{public_key} is inside the package it should vouch for. Give a key from elsewhere.", USAGE)
    problems = manifest.verify(folder, public_key)
    if arguments.replaces and not problems:
        problems = manifest.cannot_replace(folder, arguments.replaces)
    for problem in problems:
        print(f"{folder}/{problem}")
    if problems:
        print(f"{len(problems)} problems; nothing of this package should be used. Run fab package.export again.")
        return DATA
    show(folder)
    print(said_of_signature(folder, public_key))
    print(f"{folder} is whole")
    cli.done([], f"fab package.parity -r {run}" if run else None)
    return OK


def configured_key() -> Path | None:
    """signing.public_key of the project; a machine that only installs packages has no project."""
    if not (project.CONFIGS / "project.yaml").is_file():
        return None
    named = project.load_project().signing.public_key
    return Path(named).expanduser() if named else None


def said_of_signature(folder: Path, public_key: Path | None) -> str:
    if public_key:
        return f"signed with the key sha256:{signing.fingerprint(public_key)}"
    found = "has a signature, which was" if (folder / signing.NAME).is_file() else "is not signed; a signature was"
    return f"the package {found} NOT checked: no public key. Give --public-key (docs/signing.md)"


def show(folder: Path) -> None:
    """A line per artifact: how many files and bytes."""
    print(f"{'artifact':<12} {'files':>5} {'MB':>9}")
    for artifact in sorted(p for p in folder.iterdir() if p.is_dir()):
        files = [p for p in artifact.rglob("*") if p.is_file()]
        print(f"{artifact.name:<12} {len(files):>5} {sum(p.stat().st_size for p in files) / 1e6:>9.1f}")


if __name__ == "__main__":
    cli.run(main)
