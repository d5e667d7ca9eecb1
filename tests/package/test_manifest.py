import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from potstill import headers, manifest
from scripts.package import verify

RUN = "batfit-tiny"


@pytest.fixture
def package(copied: Path) -> Path:
    folder = copied / "models" / RUN / "package"
    assert manifest.verify(folder) == []
    return folder


def named(folder: Path) -> str:
    return "\n".join(str(problem) for problem in manifest.verify(folder))


def test_any_flipped_byte_is_found_and_its_file_named(package: Path) -> None:
    generator = random.Random(7)
    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for _ in range(6):
            at = generator.randrange(len(whole))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << generator.randrange(8))]) + whole[at + 1 :])
            assert path.relative_to(package).as_posix() in named(package), (path, at)
        path.write_bytes(whole)
    assert manifest.verify(package) == []


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: (p / "bf16/config.json").unlink(), "bf16/config.json: is missing"),
    "extra": (lambda p: (p / "bf16/notes.txt").write_text("x"), "bf16/notes.txt: is not in the manifest"),
    "longer": (lambda p: append(p / "bf16/tokenizer.json"), "bf16/tokenizer.json: has"),
    "empty": (lambda p: (p / "bf16/model.safetensors").write_bytes(b""), "bf16/model.safetensors: has 0 bytes"),
    "renamed": (lambda p: (p / "gguf-f16").rename(p / "gguf-f32"), "gguf-f16/Modelfile: is missing"),
    "swapped": (
        lambda p: shutil.copy(p / "gguf-f16" / f"{RUN}.F16.gguf", p / "gguf-q8_0" / f"{RUN}.Q8_0.gguf"),
        f"gguf-q8_0/{RUN}.Q8_0.gguf: has",
    ),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "manifest.json: is missing"),
    "manifest no JSON": (lambda p: (p / "manifest.json").write_text("{"), "manifest.json: is not JSON"),
    "manifest is a list": (lambda p: (p / "manifest.json").write_text("[]"), "manifest.json: "),
    "manifest reformatted": (lambda p: append(p / "manifest.json"), "manifest.json: was changed"),
    "manifest a folder": (
        lambda p: ((p / "manifest.json").unlink(), (p / "manifest.json").mkdir()),
        "manifest.json: is no regular file",
    ),
    "link to a file": (
        lambda p: ((p / "bf16/config.json").rename(p / "../c"), (p / "bf16/config.json").symlink_to(p / "../c")),
        "bf16/config.json: is a symbolic link",
    ),
    "link to a folder": (lambda p: (p / "bf16/more").symlink_to("/etc"), "bf16/more: is a symbolic link"),
    "pipe": (lambda p: os.mkfifo(p / "bf16/pipe.json"), "bf16/pipe.json: is no regular file"),
    "pickle": (lambda p: (p / "bf16/pytorch_model.bin").write_bytes(b"\x80\x04."), "is a .bin file"),
    "code": (lambda p: (p / "bf16/modeling.py").write_text("import os"), "is a .py file"),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_a_tampered_package_is_refused_by_name(package: Path, what: str) -> None:
    tamper, wanted = TAMPERINGS[what]
    tamper(package)
    assert wanted in named(package)
    assert verify.main(["-r", RUN]) == 65


def remade(package: Path, change: Callable[[dict], object] = lambda values: None) -> str:
    """The problems left when somebody makes the hashes fit what they did to the package."""
    values = json.loads((package / "manifest.json").read_text())
    for key in ("manifest_version", "files", "sha256"):
        values.pop(key)
    values["run"] = manifest.RunRecord.model_validate(values["run"])
    (package / "manifest.json").unlink()
    made = manifest.write(package, **values).model_dump()
    change(made)
    made["sha256"] = manifest._own_sha256(manifest.Manifest.model_validate(made))
    (package / "manifest.json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    return named(package)


def test_a_fitting_manifest_does_not_excuse_what_a_package_must_not_hold(package: Path) -> None:
    assert remade(package) == ""
    (package / "bf16/pytorch_model.bin").write_bytes(b"\x80\x04.")
    (package / "bf16/a.txt").write_bytes(b"\x80\x04.")
    (package / "bf16/b.txt").write_bytes(b"PK\x03\x04")
    config = json.loads((package / "bf16/config.json").read_text())
    config["vision"] = {"auto_map": {"AutoModel": "evil.Model"}}
    (package / "bf16/config.json").write_text(json.dumps(config))
    (package / "bf16/chat_template.jinja").write_text("{{ messages[0].content }}")
    (package / "bf16/tokenizer_config.json").write_text('{"chat_template": "{{ cycler.__init__.__globals__ }}"}')
    found = remade(package)
    for line in (
        "pytorch_model.bin: is a .bin file",
        "a.txt: is not text",
        "b.txt: is not text",
        "config.json: names code to run (auto_map)",
        "chat_template.jinja: has another chat template",
        "tokenizer_config.json: has another chat template",
    ):
        assert line in found


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "bf16/../../run.json", "bf16\\x.json", "./bf16/x", ""])
def test_a_path_that_leaves_the_package_is_refused_and_not_read(package: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    found = remade(package, lambda made: made["files"].update({name: entry}))
    assert f"manifest.json: lists {name!r}, which is no path inside the package" in found


@pytest.mark.parametrize(
    "change",
    [
        {"manifest_version": 2},
        {"licence": None},
        {"surprise": 1},
        {"sha256": "x"},
        {"num_ctx": "1024"},
        {"files": {"bf16/config.json": {"sha256": "0" * 64}}},
    ],
)
def test_a_manifest_that_breaks_its_schema_is_refused(package: Path, change: dict) -> None:
    path = package / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change, indent=2))
    assert named(package).startswith(f"manifest.json: {next(iter(change))}")


def test_headers_that_lie_about_sizes_are_refused_without_reading_them(package: Path, tmp_path: Path) -> None:
    weights = (package / "bf16/model.safetensors").read_bytes()
    model = (package / "gguf-f16" / f"{RUN}.F16.gguf").read_bytes()
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    length = len(header).to_bytes(8, "little")
    hostile = {
        "length.safetensors": (1 << 62).to_bytes(8, "little") + weights[8:],
        "cut.safetensors": weights[:-1],
        "grown.safetensors": weights + b"\0",
        "json.safetensors": (8).to_bytes(8, "little") + b"[[[[[[[[",
        "deep.safetensors": (200_000).to_bytes(8, "little") + b"[" * 200_000,
        "shape.safetensors": length + header.replace(b"[2]", b"[3]") + b"\0" * 8,
        "negative.safetensors": length + header.replace(b"[0, 8]", b"[8, 0]") + b"\0" * 8,
        "short.safetensors": b"\1",
        "magic.gguf": b"GGML" + model[4:],
        "version.gguf": model[:4] + b"\x09" + model[5:],
        "tensors.gguf": model[:8] + b"\xff" * 8 + model[16:],
        "keys.gguf": model[:16] + b"\xff" * 8 + model[24:],
        "string.gguf": model[:24] + b"\xff" * 8 + model[32:],
        "cut.gguf": model[:-1],
        "head.gguf": model[:100],
        "grown.gguf": model + b"\0" * 32,
    }
    for name, data in hostile.items():
        path = tmp_path / name
        path.write_bytes(data)
        read = headers.read_gguf if path.suffix == ".gguf" else headers.read_safetensors
        with pytest.raises(headers.BadHeader):
            read(path)


def test_headers_agree_with_the_libraries(package: Path) -> None:
    from gguf import GGUFReader
    from safetensors import safe_open

    path = package / "bf16/model.safetensors"
    with safe_open(path, "pt") as file:
        wanted = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert {t.name: t.shape for t in headers.read_safetensors(path)} == wanted
    path = package / "gguf-q8_0" / f"{RUN}.Q8_0.gguf"
    wanted = {t.name: (t.tensor_type.name, list(map(int, t.shape)), int(t.n_bytes)) for t in GGUFReader(path).tensors}
    assert {t.name: (t.dtype, t.shape, t.nbytes) for t in headers.read_gguf(path)[1]} == wanted


def test_verify_prints_a_line_per_problem_or_what_is_there(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["-r", RUN]) == 0
    assert "gguf-q8_0" in capsys.readouterr().out
    (package / "bf16/config.json").unlink()
    (package / "x.txt").write_text("")
    assert verify.main(["--folder", str(package)]) == 65
    said = capsys.readouterr().out
    assert "bf16/config.json: is missing" in said
    assert "x.txt: is not in the manifest" in said
    assert "2 problems" in said
