"""Signs a package with an elliptic-curve key, offline, and checks such a signature: model.sig at the package's root.

The file is what model-signing writes and reads (a Sigstore bundle around an in-toto statement of every file's sha256),
so `model_signing verify key --public_key KEY.pub.pem PACKAGE --signature PACKAGE/model.sig` takes it as well. Ours are
deterministic ECDSA (RFC 6979): the same package and key give the same bytes.
"""

import base64
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from potstill import project
from potstill.files import write_text
from potstill.headers import BadHeader
from potstill.stop import DATA, USAGE, Stop

NAME = "model.sig"
MAX_BYTES = 16 * 2**20
CURVES = ("secp256r1", "secp384r1", "secp521r1")


def keys_folder() -> Path:
    """Where keys are: outside every checkout (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "potstill"


def generate(folder: Path, name: str, passphrase: str | None = None) -> tuple[Path, Path]:
    """A new P-256 key: <folder>/<name>.pem (0600) and <name>.pub.pem (0644). Raises Stop 2 rather than overwrite."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not project.RUN_NAME.match(name):
        raise Stop(f"{name!r} is no key name: want letters, digits, '.', '_' and '-'", USAGE)
    private, public = folder.absolute() / f"{name}.pem", folder.absolute() / f"{name}.pub.pem"
    if checkout := _checkout_of(folder.resolve()):
        raise Stop(f"{private} is inside the git checkout {checkout}; a private key is never. Give --keys.", USAGE)
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise Stop(f"{path} is already there and is not overwritten. Give another --key, or keep using it.", USAGE)
    key = ec.generate_private_key(ec.SECP256R1())
    way = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, way)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_new(private, pem, 0o600)
    _write_new(public, _public_pem(key.public_key()), 0o644)
    return private, public


def fingerprint(public_key: Path) -> str:
    """sha256 of the public key in DER, as `openssl pkey -pubin -outform DER | sha256sum` gives it."""
    from cryptography.hazmat.primitives import serialization

    der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(load_public(public_key).public_bytes(*der)).hexdigest()


def passphrase_from(file: Path | None, variable: str | None) -> str | None:
    """The key's passphrase from a private file or an environment variable; None when neither is named."""
    if file is not None and variable is not None:
        raise Stop("give the passphrase by a file or by an environment variable, not by both", USAGE)
    if variable is not None:
        if not os.environ.get(variable):
            raise Stop(f"the environment variable {variable} has no passphrase", USAGE)
        return os.environ[variable]
    if file is None:
        return None
    text = _read_private(file.expanduser()).decode("utf-8").rstrip("\r\n")
    if not text:
        raise Stop(f"{file} has no passphrase", USAGE)
    return text


def load_private(path: Path, passphrase: str | None = None) -> Any:
    """Raises Stop 2 for a file others may read, no elliptic-curve key, or a passphrase that does not open it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    data = _read_private(path)
    try:
        key = serialization.load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except TypeError:
        said = "needs its passphrase" if not passphrase else "has no passphrase, yet one was given"
        raise Stop(f"{path} {said}; see signing in configs/project.yaml", USAGE) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Stop(f"{path} is no private key in PEM, or the passphrase is wrong", USAGE) from None
    return _on_a_known_curve(key, path)


def load_public(path: Path) -> Any:
    """Raises Stop 2 when `path` is no public elliptic-curve key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}. Name the public key that fab package.keygen wrote.", USAGE) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Stop(f"{path} is no public key in PEM. Name the .pub.pem that fab package.keygen wrote.", USAGE) from None
    return _on_a_known_curve(key, path)


def sign(package: Path, private_key: Path, name: str, passphrase: str | None = None) -> Path:
    """Writes model.sig over every other file of `package`, manifest.json included; `name` is shown in the statement.

    Raises Stop 65 for a link or a hidden name: model-signing's own verifier ignores .git, .gitignore and the like.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from google.protobuf import json_format
    from model_signing import hashing
    from model_signing._signing import sign_ec_key, sign_sigstore_pb, signing
    from sigstore_models import intoto
    from sigstore_models.bundle import v1 as bundles
    from sigstore_models.common import v1 as common

    key = load_private(private_key, passphrase)
    if hidden := sorted(path for path in package.rglob(".*")):
        raise Stop(f"{hidden[0]} is hidden; a signed package has no such file. Remove it.", DATA)
    try:
        hashed = hashing.Config().set_ignored_paths(paths=[NAME], ignore_git_paths=False).hash(package)
    except ValueError as error:
        raise Stop(f"{package} cannot be signed: {error}", DATA) from None
    statement = signing.Payload(hashed).statement.pb
    # the folder's name is that of a package being built
    statement.subject[0].name = name
    # protobuf's maps have no order of their own
    payload = json.dumps(json.loads(json_format.MessageToJson(statement)), sort_keys=True).encode()
    how = ec.ECDSA(sign_ec_key.get_ec_key_hash(key.public_key()), deterministic_signing=True)
    signature = base64.b64encode(key.sign(sign_sigstore_pb.pae(payload), how))
    hint = common.PublicKeyIdentifier(hint=hashlib.sha256(_public_pem(key.public_key())).hexdigest())
    bundle = bundles.Bundle(
        media_type="application/vnd.dev.sigstore.bundle.v0.3+json",
        verification_material=bundles.VerificationMaterial(public_key=hint, tlog_entries=[]),
        dsse_envelope=intoto.Envelope(
            payload=base64.b64encode(payload),
            payload_type=signing._IN_TOTO_JSON_PAYLOAD_TYPE,
            signatures=[intoto.Signature(sig=signature, keyid="")],
        ),
    )
    write_text(package / NAME, bundle.to_json())
    return package / NAME


def can_sign() -> bool:
    """Whether signing.private_key is set and on this machine."""
    named = project.load_project().signing.private_key
    return named is not None and Path(named).expanduser().is_file()


def sign_as_configured(package: Path, name: str) -> str:
    """Signs with signing.private_key of configs/project.yaml when that key is on this machine; says what was done."""
    settings = project.load_project().signing
    if settings.private_key is None:
        return "not signed: no signing.private_key in configs/project.yaml (fab package.keygen makes one)"
    key = Path(settings.private_key).expanduser()
    if not key.is_file():
        return f"not signed: {key} is not on this machine. Fetch the run to where it is and export it there"
    file = Path(settings.passphrase_file) if settings.passphrase_file else None
    sign(package, key, name, passphrase_from(file, settings.passphrase_env))
    return f"signed with {key}"


def check(package: Path, sha256: dict[str, str], public_key: Path | None) -> list[str]:
    """What is wrong with model.sig, given the sha256 of every other file of the package by its path.

    Without `public_key` only whether it states those files; anybody can write such a file.
    """
    path = package / NAME
    if path.is_symlink() or not path.is_file():
        return ["is missing: the package is not signed"] if public_key else []
    if path.stat().st_size > MAX_BYTES:
        return ["is larger than any signature"]
    try:
        signed = _signed(path, public_key)
    except BadHeader as error:
        return [str(error)]
    except Exception as error:  # hostile bytes end in any error of the libraries' readers
        whose = " by the given key" if public_key else ""
        return [f"is not a signature of this package{whose} ({type(error).__name__})"]
    wrong = sorted(name for name in signed.keys() | sha256.keys() if signed.get(name) != sha256.get(name))
    return [f"does not vouch for {', '.join(wrong[:5])}{' and others' if wrong[5:] else ''}"] if wrong else []


def _signed(path: Path, public_key: Path | None) -> dict[str, str]:
    """The sha256 of each file that the signature states."""
    from model_signing._signing import sign_ec_key, sign_sigstore_pb, signing

    signature = sign_sigstore_pb.Signature.read(path)
    # else a changed byte could go unnoticed, in a blank or in a key that the library does not know
    if signature.bundle.to_json() != path.read_text(encoding="utf-8"):
        raise BadHeader("was changed: it is not in the form in which it was written")
    material, envelope = signature.bundle.verification_material, signature.bundle.dsse_envelope
    if envelope is None or len(envelope.signatures) != 1:
        raise BadHeader("has not exactly one signature in it")
    # without the hint the library would print a warning and go on
    if material.public_key is None or not material.public_key.hint:
        raise BadHeader("does not say by which key it is")
    if public_key is None:
        listed = signing.dsse_payload_to_manifest(json.loads(envelope.payload))
    else:
        listed = sign_ec_key.Verifier(public_key).verify(signature)
    wanted = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [NAME]}
    if listed.serialization_type != wanted:
        raise BadHeader("leaves files out, or hashes them in another way than sha256 of each")
    return {item.identifier: item.digest.digest_hex for item in listed.resource_descriptors()}


def _checkout_of(folder: Path) -> Path | None:
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def _on_a_known_curve(key: Any, path: Path) -> Any:
    if getattr(getattr(key, "curve", None), "name", None) not in CURVES:
        raise Stop(f"{path} is no elliptic-curve key (P-256). fab package.keygen makes one.", USAGE)
    return key


def _public_pem(public_key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read_private(path: Path) -> bytes:
    """A file that nobody but its owner may read. The mode is asked of the open file, so it is that of these bytes."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Stop(f"{path} is no regular file", USAGE)
            if found.st_mode & 0o077:
                raise Stop(f"{path} can be read by others ({stat.filemode(found.st_mode)}). chmod 600 {path}", USAGE)
            return file.read(MAX_BYTES)
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}. fab package.keygen makes a key.", USAGE) from None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, and never over another file: a link fails where a rename would replace."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
