"""Keys and signatures: made with care, refused when careless, the same bytes each time, and read by model-signing."""

import base64
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import poison
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from poison import RUN

from potstill import manifest, signing
from potstill.stop import Stop
from scripts.package import keygen, verify

REPO = Path(__file__).resolve().parents[2]
PHRASE = "three words here"


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    return poison.copy_of(exported, tmp_path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where keygen puts keys, in a test's own home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path / "home/.config/potstill"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keygen_writes_a_private_and_a_public_half(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0)
    try:
        keygen.main([])
    finally:
        os.umask(before)
    private, public = home / "potstill.pem", home / "potstill.pub.pem"
    assert (mode(private), mode(public), mode(home)) == (0o600, 0o644, 0o700)
    assert sorted(home.iterdir()) == [private, public]
    said = capsys.readouterr().out
    # the base64 of a PEM is the DER
    der = base64.b64decode("".join(public.read_text().splitlines()[1:-1]))
    assert f"fingerprint sha256:{hashlib.sha256(der).hexdigest()}" in said
    assert f"  private_key: {private}" in said
    assert "PRIVATE KEY" not in said
    assert said.splitlines()[-1] == "next: fab package.export"
    assert signing.load_private(private).curve.name == "secp256r1"
    assert public.read_text().startswith("-----BEGIN PUBLIC KEY-----")


def test_keygen_follows_the_configured_folder_and_overwrites_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    keygen.main(["--key", "shop"])
    private = tmp_path / "config/potstill/shop.pem"
    before = private.read_bytes()
    with pytest.raises(Stop, match="already there and is not overwritten"):
        keygen.main(["--key", "shop"])
    # a dangling link would make the key somewhere else
    (tmp_path / "config/potstill/other.pub.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Stop, match=r"other\.pub\.pem is already there"):
        keygen.main(["--key", "other"])
    assert private.read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()
    assert not home.exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "", "-x", ".hidden"])
def test_a_key_name_cannot_leave_its_folder(home: Path, name: str) -> None:
    with pytest.raises(Stop, match="is no key name"):
        keygen.main([f"--key={name}"])


def test_a_private_key_is_never_made_inside_a_checkout(home: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    (tmp_path / "way").symlink_to(checkout)
    for folder in (checkout, checkout / "keys/deep", tmp_path / "way/keys", REPO / "keys"):
        with pytest.raises(Stop, match="is inside the git checkout") as stopped:
            keygen.main(["--keys", str(folder)])
        assert stopped.value.code == 2
    assert [path.name for path in checkout.iterdir()] == [".git"]
    assert not (REPO / "keys").exists()


def test_a_passphrase_comes_from_a_file_or_the_environment(
    home: Path, tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(PHRASE + "\n")
    with pytest.raises(Stop, match=r"can be read by others .* chmod 600"):
        keygen.main(["--passphrase-file", str(secret)])
    secret.chmod(0o600)
    keygen.main(["--passphrase-file", str(secret)])
    monkeypatch.setenv("KEY_PHRASE", PHRASE)
    keygen.main(["--key", "env", "--passphrase-env", "KEY_PHRASE"])
    said = capsys.readouterr().out
    assert PHRASE not in said
    assert "passphrase_env: KEY_PHRASE" in said
    for name in ("potstill", "env"):
        key = home / f"{name}.pem"
        assert "ENCRYPTED" in key.read_text()
        with pytest.raises(Stop, match="needs its passphrase"):
            signing.sign(package, key, RUN)
        with pytest.raises(Stop, match="the passphrase is wrong"):
            signing.sign(package, key, RUN, "another")
        signing.sign(package, key, RUN, PHRASE)
        assert manifest.verify(package, home / f"{name}.pub.pem") == []
    with pytest.raises(Stop, match="not by both"):
        signing.passphrase_from(secret, "KEY_PHRASE")
    with pytest.raises(Stop, match="NOT_SET has no passphrase"):
        signing.passphrase_from(None, "NOT_SET")


def test_a_careless_key_is_refused_with_the_command_that_mends_it(home: Path, package: Path) -> None:
    private, public = signing.generate(home, "k")
    for open_mode in (0o640, 0o604, 0o620, 0o601):
        private.chmod(open_mode)
        with pytest.raises(Stop, match=f"chmod 600 {private}") as stopped:
            signing.sign(package, private, RUN)
        assert stopped.value.code == 2
    private.chmod(0o600)
    assert not (package / "model.sig").exists()
    with pytest.raises(Stop, match="no private key in PEM"):
        private_of_public = home / "copy.pem"
        private_of_public.write_bytes(public.read_bytes())
        private_of_public.chmod(0o600)
        signing.sign(package, private_of_public, RUN)
    with pytest.raises(Stop, match=r"fab package\.keygen makes a key"):
        signing.sign(package, home / "none.pem", RUN)
    with pytest.raises(Stop, match="is no public key"):
        manifest.verify(package, private)
    with pytest.raises(Stop, match="Name the public key"):
        manifest.verify(package, home / "none.pub.pem")


def test_only_elliptic_curves_sign(home: Path, package: Path) -> None:
    home.mkdir(parents=True)
    made = {"rsa": rsa.generate_private_key(65537, 2048), "ed": ed25519.Ed25519PrivateKey.generate()}
    made["k1"] = ec.generate_private_key(ec.SECP256K1())
    for name, key in made.items():
        path = home / f"{name}.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        with pytest.raises(Stop, match="is no elliptic-curve key"):
            signing.sign(package, path, RUN)


def test_model_signing_itself_takes_our_signature_and_we_take_its_own(home: Path, package: Path) -> None:
    private, public = signing.generate(home, "k")
    signing.sign(package, private, RUN)
    module = [sys.executable, "-m", "model_signing"]
    words = ["--public_key", str(public), "--signature", str(package / "model.sig")]
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9"}
    run = {"capture_output": True, "text": True, "env": environment}
    done = subprocess.run([*module, "verify", "key", *words, str(package)], **run)
    assert done.returncode == 0, done.stderr
    (package / "NOTICE").write_text("more")
    assert subprocess.run([*module, "verify", "key", *words, str(package)], **run).returncode != 0
    (package / "NOTICE").unlink()
    # its default leaves .git and the like out, which ours does not: said, not taken
    words = ["--private_key", str(private), "--signature", str(package / "model.sig")]
    subprocess.run([*module, "sign", "key", *words, "--no-ignore-git-paths", str(package)], check=True, **run)
    assert manifest.verify(package, public) == []
    subprocess.run([*module, "sign", "key", *words, str(package)], check=True, **run)
    assert "model.sig: leaves files out" in str(manifest.verify(package, public)[0])


def test_the_same_package_and_key_give_the_same_signature_in_any_process(home: Path, package: Path) -> None:
    private, _ = signing.generate(home, "k")
    signing.sign(package, private, RUN)
    wanted = (package / "model.sig").read_bytes()
    twin = Path(shutil.copytree(package, package.parent / ".package.partial"))
    (twin / "model.sig").unlink()
    code = "import sys; from pathlib import Path; from potstill import signing\n"
    code += "signing.sign(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(twin), str(private), RUN]
        subprocess.run(command, cwd=REPO, env=environment, check=True)
        assert (twin / "model.sig").read_bytes() == wanted
    assert RUN.encode() not in wanted
    assert mode(package / "model.sig") & 0o777 == 0o644


def test_what_a_signature_cannot_cover_is_not_signed(home: Path, package: Path) -> None:
    private, _ = signing.generate(home, "k")
    (package / "bf16/.gitignore").write_text("*")
    with pytest.raises(Stop, match=r"\.gitignore is hidden"):
        signing.sign(package, private, RUN)
    (package / "bf16/.gitignore").unlink()
    (package / "bf16/out.json").symlink_to(package / "manifest.json")
    with pytest.raises(Stop, match="symlink"):
        signing.sign(package, private, RUN)
    assert not (package / "model.sig").exists()


def configure(project: Path, **settings: str) -> None:
    path = project / "configs/project.yaml"
    lines = [f"  {key}: {value}" for key, value in settings.items()]
    path.write_text("\n".join([path.read_text(), "signing:", *lines, ""]))


def test_the_projects_key_signs_and_is_demanded(
    copied: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = copied / "models" / RUN / "package"
    assert "no signing.private_key" in signing.sign_as_configured(package, RUN)
    assert verify.main(["-r", RUN]) == 0
    assert "is not signed; a signature was NOT checked" in capsys.readouterr().out
    monkeypatch.setenv("KEY_PHRASE", PHRASE)
    private, public = signing.generate(home, "k", PHRASE)
    keys = {"private_key": "~/.config/potstill/k.pem", "public_key": str(public)}
    configure(copied, **keys, **{"passphrase_env": "KEY_PHRASE"})
    assert verify.main(["-r", RUN]) == 65
    assert "model.sig: is missing: the package is not signed" in capsys.readouterr().out
    assert signing.sign_as_configured(package, RUN) == f"signed with {private}"
    assert verify.main(["-r", RUN]) == 0
    assert f"signed with the key sha256:{signing.fingerprint(public)}" in capsys.readouterr().out
    private.unlink()
    assert "is not on this machine" in signing.sign_as_configured(package, RUN)


def test_a_package_is_verified_without_a_project(
    exported: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = poison.copy_of(exported, tmp_path)
    private, public = signing.generate(home, "k")
    signing.sign(package, private, RUN)
    monkeypatch.chdir(tmp_path)
    assert verify.main(["--folder", "package"]) == 0
    assert "has a signature, which was NOT checked: no public key" in capsys.readouterr().out
    assert verify.main(["--folder", "package", "--public-key", str(public)]) == 0
    shutil.copy(public, package / "key.txt")
    with pytest.raises(Stop, match="is inside the package it should vouch for"):
        verify.main(["--folder", "package", "--public-key", "package/key.txt"])
