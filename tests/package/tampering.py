"""What somebody without the key can do to a signed package, and what verify says. `keys/` lies beside the package."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import poison
from poison import GGUF, RUN

from potstill import manifest, signing

WEIGHTS = "bf16/model.safetensors"


def bundle(package: Path) -> dict:
    return json.loads((package / "model.sig").read_text())


def write_bundle(package: Path, values: dict) -> None:
    (package / "model.sig").write_text(json.dumps(values, separators=(",", ":")))


def change_bundle(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def tamper(package: Path) -> None:
        values = bundle(package)
        change(values)
        write_bundle(package, values)

    return tamper


def write(name: str, data: bytes = b"{}") -> Callable[[Path], None]:
    def tamper(package: Path) -> None:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(data)

    return tamper


def flip(name: str) -> Callable[[Path], None]:
    def tamper(package: Path) -> None:
        data = (package / name).read_bytes()
        (package / name).write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])

    return tamper


def then_refit(*first: Callable[[Path], object]) -> Callable[[Path], None]:
    """The tampering, and then every hash of the manifest made to fit it: only the signature can tell."""

    def tamper(package: Path) -> None:
        for step in first:
            step(package)
        poison.refit(package)

    return tamper


def sign_with(name: str) -> Callable[[Path], object]:
    return lambda package: signing.sign(package, package.parent / f"keys/{name}.pem", RUN)


def their_hint(package: Path) -> None:
    """Signed by another key that says it is ours."""
    hint = bundle(package)["verificationMaterial"]
    sign_with("theirs")(package)
    write_bundle(package, bundle(package) | {"verificationMaterial": hint})


def old_payload(package: Path) -> None:
    """Another statement under the signature of the old one."""
    before = bundle(package)
    then_refit(flip("bf16/chat_template.jinja"), sign_with("theirs"))(package)
    payload = bundle(package)["dsseEnvelope"]["payload"]
    before["dsseEnvelope"]["payload"] = payload
    write_bundle(package, before)


def state_less(package: Path) -> None:
    """A statement that leaves a file out, under the old signature."""
    values = bundle(package)
    statement = json.loads(base64.b64decode(values["dsseEnvelope"]["payload"]))
    del statement["predicate"]["resources"][0]
    values["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    write_bundle(package, values)


def ignoring(package: Path) -> None:
    """Signed with our own key, by model-signing itself, but for a folder that the signature leaves out."""
    from model_signing import hashing
    from model_signing import signing as theirs

    config = hashing.Config().set_ignored_paths(paths=["model.sig", "bf16"])
    signer = theirs.Config().use_elliptic_key_signer(private_key=package.parent / "keys/ours.pem")
    signer.set_hashing_config(config).sign(package, package / "model.sig")


def link(name: str, to: Callable[[Path], Path | str]) -> Callable[[Path], None]:
    def tamper(package: Path) -> None:
        target = to(package)
        path = package / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return tamper


def move_out(name: str) -> Callable[[Path], None]:
    """The same bytes, but outside, by a link."""

    def tamper(package: Path) -> None:
        (package / name).rename(package.parent / "moved")
        (package / name).symlink_to(package.parent / "moved")

    return tamper


def listed(name: str) -> Callable[[Path], None]:
    """The manifest lists a path that leaves the package, with sha256 and size of what is there."""

    def tamper(package: Path) -> None:
        values = json.loads((package / "manifest.json").read_text())
        values["files"][name] = {"sha256": "0" * 64, "bytes": 1}
        made = manifest.Manifest.model_validate(values)
        values["sha256"] = manifest._own_sha256(made)
        (package / "manifest.json").write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    return tamper


def swap(a: str, b: str) -> Callable[[Path], None]:
    def tamper(package: Path) -> None:
        (package / a).rename(package / "x")
        (package / b).rename(package / a)
        (package / "x").rename(package / b)

    return tamper


Q8 = f"gguf-q8_0/{RUN}.Q8_0.gguf"
TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "extra file": (write("bf16/extra.json"), "bf16/extra.json: is not in the manifest"),
    "extra file, refitted": (then_refit(write("bf16/extra.json")), "model.sig: does not vouch for bf16/extra.json"),
    "extra folder": (lambda p: (p / "more").mkdir(), "more: is an empty folder"),
    "extra hidden file": (write("bf16/.gitignore", b"*"), "bf16/.gitignore: is hidden"),
    "extra hidden folder, refitted": (then_refit(write(".git/config.txt", b"x")), ".git: is hidden"),
    "extra copy of an artifact": (lambda p: shutil.copytree(p / "bf16", p / "fp16"), "fp16/config.json: is not in"),
    "missing file": (lambda p: (p / WEIGHTS).unlink(), f"{WEIGHTS}: is missing"),
    "missing file, refitted": (then_refit(lambda p: (p / GGUF).unlink()), f"model.sig: does not vouch for {GGUF}"),
    "missing artifact": (lambda p: shutil.rmtree(p / "gguf-q8_0"), f"{Q8}: is missing"),
    "missing bill of materials": (lambda p: (p / "bom.cdx.json").unlink(), "bom.cdx.json: is missing"),
    "missing manifest": (lambda p: (p / "manifest.json").unlink(), "manifest.json: is missing"),
    "changed weights": (flip(WEIGHTS), f"{WEIGHTS}: was changed"),
    "changed weights, refitted": (then_refit(flip(WEIGHTS)), f"model.sig: does not vouch for {WEIGHTS}"),
    "changed GGUF, refitted": (then_refit(flip(GGUF)), f"model.sig: does not vouch for {GGUF}"),
    "changed Modelfile": (flip("gguf-q8_0/Modelfile"), "gguf-q8_0/Modelfile: was changed"),
    "changed config, refitted": (
        then_refit(write("bf16/generation_config.json")),
        "model.sig: does not vouch for bf16/generation_config.json, manifest.json",
    ),
    "changed scores": (
        lambda p: poison.refit(p, licence="mit"),
        "model.sig: does not vouch for manifest.json",
    ),
    "changed manifest": (flip("manifest.json"), "manifest.json: "),
    "manifest is a link": (move_out("manifest.json"), "manifest.json: is no regular file"),
    "cut": (lambda p: os.truncate(p / Q8, 4096), f"{Q8}: has 4096 bytes"),
    "longer": (lambda p: os.truncate(p / Q8, (p / Q8).stat().st_size + 32), f"{Q8}: has "),
    "empty": (write("bf16/tokenizer.model", b""), "bf16/tokenizer.model: has 0 bytes"),
    "a folder in a file's place": (
        lambda p: ((p / WEIGHTS).unlink(), (p / WEIGHTS / "x").mkdir(parents=True)),
        f"{WEIGHTS}: is missing",
    ),
    "renamed file": (lambda p: (p / Q8).rename(p / "gguf-q8_0/model.gguf"), f"{Q8}: is missing"),
    "renamed by case": (lambda p: (p / WEIGHTS).rename(p / "bf16/MODEL.safetensors"), f"{WEIGHTS}: is missing"),
    "renamed artifact": (lambda p: (p / "bf16").rename(p / "fp32"), "bf16/config.json: is missing"),
    "swapped artifacts": (swap("gguf-f16", "gguf-q8_0"), "gguf-f16/"),
    "link to the same bytes outside": (move_out(WEIGHTS), f"{WEIGHTS}: is a symbolic link"),
    "link inside": (link("bf16/config.json", lambda p: p / "bf16/tokenizer.json"), "bf16/config.json: is a symbolic"),
    "link to a folder": (link("gguf-q8_0", lambda p: p / "gguf-f16"), "gguf-q8_0: is a symbolic link"),
    "link to nothing": (link("bf16/config.json", lambda p: "nowhere"), "bf16/config.json: is a symbolic link"),
    "signature is a link": (move_out("model.sig"), "model.sig: is a symbolic link"),
    "pipe": (lambda p: os.mkfifo(p / "bf16/pipe.txt"), "bf16/pipe.txt: is no regular file"),
    "executable": (lambda p: (p / "bf16/config.json").chmod(0o755), "bf16/config.json: is executable"),
    "setuid": (lambda p: (p / "bf16/config.json").chmod(0o4644), "bf16/config.json: is executable"),
    "listed above": (listed("../keys/ours.pem"), "manifest.json: lists '../keys/ours.pem', which is no path inside"),
    "listed absolute": (listed("/etc/passwd"), "manifest.json: lists '/etc/passwd', which is no path inside"),
    "listed through a folder": (listed("bf16/../../x"), "manifest.json: lists 'bf16/../../x'"),
    "signature lists itself": (listed("model.sig"), "manifest.json: lists 'model.sig'"),
    "name that is no UTF-8": (lambda p: Path(os.fsdecode(os.fsencode(p) + b"/\xff.txt")).touch(), "is hidden or has"),
    "unsigned": (lambda p: (p / "model.sig").unlink(), "model.sig: is missing: the package is not signed"),
    "signature in another folder": (lambda p: (p / "model.sig").rename(p / "bf16/model.sig"), "is not signed"),
    "empty signature": (write("model.sig", b""), "model.sig: is not a signature"),
    "signature that is no JSON": (write("model.sig", b"\x80\x04."), "model.sig: is not a signature"),
    "signature nested deep": (write("model.sig", b"[" * 100_000), "model.sig: is not a signature"),
    "signature of 1 GB": (lambda p: os.truncate(p / "model.sig", 10**9), "model.sig: is larger than any signature"),
    "signature with a blank": (lambda p: write("model.sig", (p / "model.sig").read_bytes() + b" ")(p), "was changed"),
    "signature with more keys": (change_bundle(lambda b: b.update(more=1)), "model.sig: "),
    "signature of another kind": (change_bundle(lambda b: b.update(mediaType="x")), "model.sig: is not a signature"),
    "two signatures": (
        change_bundle(lambda b: b["dsseEnvelope"]["signatures"].append(b["dsseEnvelope"]["signatures"][0])),
        "model.sig: has not exactly one signature in it",
    ),
    "no signature in it": (
        change_bundle(lambda b: b["dsseEnvelope"]["signatures"].clear()),
        "model.sig: has not exactly one signature in it",
    ),
    "no hint": (
        change_bundle(lambda b: b["verificationMaterial"].update(publicKey={"hint": ""})),
        "model.sig: does not say by which key it is",
    ),
    "statement leaves a file out": (state_less, "model.sig: is not a signature of this package by the given key"),
    "another statement": (old_payload, "model.sig: is not a signature of this package by the given key"),
    "wrong key": (sign_with("theirs"), "model.sig: is not a signature of this package by the given key"),
    "wrong key, refitted": (then_refit(flip(WEIGHTS), sign_with("theirs")), "model.sig: is not a signature of this"),
    "wrong key under our hint": (their_hint, "model.sig: is not a signature of this package by the given key"),
    "signature that leaves files out": (ignoring, "model.sig: leaves files out"),
    "signature of another package": (
        then_refit(write("bf16/special_tokens_map.json")),
        "model.sig: does not vouch for bf16/special_tokens_map.json, manifest.json",
    ),
}
