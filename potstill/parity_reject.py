"""Takes artifacts that are over their limits out of a package: they go to package-rejected/, the rest is sealed anew.

The package is replaced as a whole, as export does it, so that at any instant it is one that verifies, or none.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from potstill import manifest, package, pi, sealing, signing
from potstill.files import stage_lock
from potstill.project import run_folder
from potstill.stop import DATA, Stop


def folder(run: str) -> Path:
    return run_folder(run) / "package-rejected"


def settle(run: str, kinds: list[str]) -> None:
    """Seals the package of `run` anew, so that its model card says what parity.json does, and without `kinds`.

    Those go to package-rejected/, and a Raspberry Pi bundle that was made of one of them goes away; when nothing would
    be left there is no package any more. A package that was signed elsewhere stays as it is unless something leaves it.
    Raises Stop 65 when the package has no readable manifest.
    """
    whole, rejected = package.folder(run), folder(run)
    if not kinds and (whole / signing.NAME).is_file() and not signing.can_sign():
        print("the package stays as it was signed: the key is not on this machine, so its card says nothing of this")
        return
    partial, old = whole.with_name(".package.partial"), whole.with_name(".package.old")
    with stage_lock(run_folder(run), "package"):
        made = manifest.read(whole)
        if made is None:
            raise Stop(f"{whole}/{manifest.NAME} cannot be read. Run fab package.export -r {run}.", DATA)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        left = [kind for kind in made.runtimes if kind not in kinds]
        if left:
            # links cost nothing, and no file of a package is ever written to again
            shutil.copytree(whole, partial, copy_function=os.link, ignore=_without(whole, run, kinds))
            print(sealing.seal_anew(partial, made, left))
        whole.rename(old)
        if left:
            partial.rename(whole)
        for kind in kinds:
            rejected.mkdir(exist_ok=True)
            shutil.rmtree(rejected / kind, ignore_errors=True)
            (old / kind).rename(rejected / kind)
        shutil.rmtree(old)


def _without(whole: Path, run: str, kinds: list[str]) -> Callable[[str, list[str]], set[str]]:
    files = {package.gguf_name(run, kind) for kind in kinds if kind in package.GGUF_TYPES}
    bundle = {pi.NAME} if any((whole / pi.NAME / name).exists() for name in files) else set()

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {*kinds, *bundle, *sealing.NAMES} & set(names) if Path(folder) == whole else set()

    return ignored
