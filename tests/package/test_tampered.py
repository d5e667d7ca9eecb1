"""A signed package that was tampered with, or is an old one put back, is refused by name."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import poison
import pytest
from poison import RUN
from tampering import TAMPERINGS, listed

from potstill import bom, manifest, signing
from scripts.package import verify

REPO = Path(__file__).resolve().parents[2]
LATER, EARLIER = {"created_at": "2026-11-21T09:00:00+00:00"}, {"created_at": "2026-11-19T09:00:00+00:00"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs: ours, and somebody else's."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        signing.generate(folder, name)
    return folder


@pytest.fixture(scope="module")
def signed(exported: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = poison.copy_of(exported, tmp_path_factory.mktemp("signed"))
    bom.write(package, poison.values_of(package)["run"], "apache-2.0", lock=REPO / "requirements.lock")
    poison.refit(package)
    signing.sign(package, keys / "ours.pem", RUN)
    return package


@pytest.fixture
def package(signed: Path, keys: Path, tmp_path: Path) -> Path:
    shutil.copytree(keys, tmp_path / "keys")
    return Path(shutil.copytree(signed, tmp_path / "package"))


def named(package: Path) -> str:
    return "\n".join(str(problem) for problem in manifest.verify(package, package.parent / "keys/ours.pub.pem"))


@pytest.mark.parametrize("what", TAMPERINGS)
def test_a_tampered_package_is_refused_by_name(package: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    tamper, said = TAMPERINGS[what]
    assert named(package) == ""
    tamper(package)
    key = str(package.parent / "keys/ours.pub.pem")
    assert verify.main(["--folder", str(package), "--public-key", key]) == 65
    assert said in capsys.readouterr().out


def test_there_are_more_than_forty() -> None:
    assert len(TAMPERINGS) >= 40


def test_any_flipped_byte_of_a_signed_package_is_found_and_its_file_named(package: Path) -> None:
    generator = random.Random(11)
    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for _ in range(40 if path.name == "model.sig" else 2):
            at = generator.randrange(len(whole))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << generator.randrange(8))]) + whole[at + 1 :])
            assert path.relative_to(package).as_posix() in named(package), (path, at)
        path.write_bytes(whole)
    assert named(package) == ""


def remade(package: Path, keys: Path, folder: Path, **run: str) -> Path:
    """Another package, as validly signed, whose run differs in `run`."""
    other = Path(shutil.copytree(package, folder))
    poison.refit(other, run=run)
    signing.sign(other, keys / "ours.pem", RUN)
    return other


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (EARLIER, "manifest.json: run batfit-tiny (2026-11-19T09:00:00+00:00) is older than batfit-tiny (2026-11-20"),
        ({**LATER, "workload": "coach"}, "manifest.json: is of workload 'coach', the installed one of 'batfit'"),
        ({"created_at": "2026-11-21T09:00:00"}, "has a created_at that cannot be compared"),
        ({"created_at": "tomorrow"}, "has a created_at that cannot be compared"),
        (LATER, None),
        ({}, None),
        # the same instant in another zone
        ({"created_at": "2026-11-21T03:30:00+05:30"}, None),
    ],
)
def test_an_older_package_does_not_replace_a_newer_one(
    package: Path, keys: Path, run: dict, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    other = remade(package, keys, package.parent / "other", **run)
    words = ["--folder", str(other), "--public-key", str(keys / "ours.pub.pem")]
    assert verify.main(words) == 0
    assert verify.main([*words, "--replaces", str(package)]) == (65 if said else 0)
    assert (said or "is whole") in capsys.readouterr().out


def test_an_installed_package_that_cannot_be_read_is_named(package: Path, keys: Path) -> None:
    other = remade(package, keys, package.parent / "other")
    (package / "manifest.json").write_text("{}")
    assert "package/manifest.json: manifest_version: Field required" in str(manifest.cannot_replace(other, package)[0])
    (package / "manifest.json").unlink()
    assert "manifest.json: is missing" in str(manifest.cannot_replace(other, package)[0])


def test_verify_opens_nothing_outside_the_package_and_no_connection(package: Path) -> None:
    """Seen by an audit hook of Python, in a package full of ways out."""
    outside = package.parent / "secret"
    outside.write_text("hush")
    (package / "bf16/out.json").symlink_to(outside)
    (package / "gguf-q8_0/up").symlink_to(package.parent)
    listed("../secret")(package)
    (package / "gguf-f16/Modelfile").write_text("FROM ./../../secret\n")
    code = (
        "import sys; seen = []\n"
        "sys.addaudithook(lambda event, args: seen.append((event, str(args[:2]))))\n"
        "from pathlib import Path; from potstill import manifest\n"
        "folder, key = map(Path, sys.argv[1:])\n"
        "manifest.verify(folder, key); seen.clear()\n"
        "print(len(manifest.verify(folder, key)))\n"
        "bad = ('pickle.find_class', 'os.system', 'os.posix_spawn', 'exec', 'import')\n"
        "for event, what in seen:\n"
        "    if event.startswith('socket.') or event in bad: print(event, what)\n"
        "    if event == 'open' and 'secret' in what: print(event, what)\n"
        "    if event in ('os.listdir', 'os.scandir') and 'package' not in what: print(event, what)\n"
    )
    command = [sys.executable, "-c", code, str(package), str(package.parent / "keys/ours.pub.pem")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    count, *events = done.stdout.splitlines()
    assert int(count) >= 5, done.stderr
    assert events == []
