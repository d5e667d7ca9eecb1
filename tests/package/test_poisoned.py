"""Poisoned files in a package whose manifest fits them: each is refused by name, and nothing of it ever runs."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import poison
import pytest
from hypothesis import given
from hypothesis import strategies as st
from poison import GGUF, RUN, archive, entry, raw, refused, safetensors

from potstill import contents, headers

Made = Callable[[Path], bytes]


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    return poison.copy_of(exported, tmp_path)


PICKLES: dict[str, tuple[str, Made, str]] = {
    **{f"protocol {n}": ("bf16/pytorch_model.bin", lambda m, n=n: raw(m, n), "is a .bin file") for n in range(6)},
    "protocol 0 as a notice": ("NOTICE", lambda m: raw(m, 0), "is a pickle"),
    "protocol 0 as text": ("bf16/merges.txt", lambda m: raw(m, 0), "is a pickle"),
    "protocol 0 without its end": ("bf16/README.md", poison.without_stop, "is a pickle"),
    "protocol 0 as a template": ("bf16/chat_template.jinja", lambda m: raw(m, 0), "is a pickle"),
    "protocol 0 as JSON": ("bf16/added_tokens.json", lambda m: raw(m, 0), "is not JSON"),
    "protocol 1 as text": ("bf16/vocab.txt", lambda m: raw(m, 1), "is not text"),
    "protocol 2 as text": ("bf16/vocab.txt", lambda m: raw(m, 2), "is not text"),
    "protocol 4 as JSON": ("bf16/config.json", lambda m: raw(m, 4), "is not JSON"),
    "protocol 4 as safetensors": ("bf16/model.safetensors", lambda m: raw(m, 4), "the header says"),
    "protocol 5 as GGUF": (GGUF, lambda m: raw(m, 5), "the file does not start with GGUF"),
    "protocol 2 as a tokenizer": ("bf16/tokenizer.model", lambda m: raw(m, 2), "is not a SentencePiece model"),
    "torch.save": ("bf16/pytorch_model.bin", poison.torch_zip, "is a .bin file"),
    "torch.save as safetensors": ("bf16/model.safetensors", poison.torch_zip, "ends like a zip archive"),
    "torch.save as text": ("bf16/weights.txt", poison.torch_zip, "ends like a zip archive"),
    "old torch.save as a tokenizer": ("bf16/tokenizer.model", poison.torch_legacy, "is not a SentencePiece model"),
    "old torch.save as a checkpoint": ("bf16/model.ckpt", poison.torch_legacy, "is a .ckpt file"),
    "joblib": ("bf16/scaler.joblib", poison.joblib_file, "is a .joblib file"),
    "joblib as text": ("bf16/scaler.txt", poison.joblib_file, "is not text"),
    "numpy objects": ("bf16/bias.npy", poison.numpy_objects, "is a .npy file"),
    "numpy objects as JSON": ("bf16/bias.json", poison.numpy_objects, "is not JSON"),
    "gzip as JSON": ("bf16/extra.json", lambda m: archive(m, "gzip"), "is not JSON"),
    "bz2 as text": ("bf16/extra.txt", lambda m: archive(m, "bz2"), "is not text"),
    "xz as a licence": ("LICENSE", lambda m: archive(m, "xz"), "is not text"),
    "tar as text": ("bf16/extra.txt", lambda m: archive(m, "tar"), "is not text"),
    "7z as a notice": ("NOTICE", lambda m: archive(m, "7z"), "is not text"),
    "zip as a card": ("bf16/README.md", lambda m: archive(m, "zip"), "ends like a zip archive"),
    "zip inside a tensor": (
        "bf16/model.safetensors",
        lambda m: safetensors({"a": entry("U8", [len(z := archive(m, "zip"))], 0, len(z))}, z),
        "ends like a zip archive",
    ),
}


@pytest.mark.parametrize("what", PICKLES)
def test_a_pickle_in_any_disguise_is_refused_and_never_run(package: Path, tmp_path: Path, what: str) -> None:
    name, make, said = PICKLES[what]
    marker = tmp_path / "marker"
    (package / name).write_bytes(make(marker))
    assert f"{name}: {said}" in refused(package)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_the_payloads_would_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    pickle.loads(raw(marker, protocol))  # noqa: S301
    assert marker.is_dir()
    assert contents.runs_when_unpickled(raw(marker, protocol))
    marker.rmdir()
    with pytest.raises(EOFError):
        pickle.loads(poison.without_stop(marker))  # noqa: S301
    assert marker.is_dir()


def test_what_follows_a_whole_file_is_refused(package: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name in ("bf16/model.safetensors", GGUF, "bf16/tokenizer.model"):
        whole = (package / name).read_bytes()
        for tail in (raw(marker, 0), raw(marker, 2), raw(marker, 4), archive(marker, "zip"), b"\x80\x04."):
            (package / name).write_bytes(whole + tail)
            assert f"{name}: " in refused(package), (name, tail)
        (package / name).write_bytes(whole)
    assert refused(package) == ""
    assert not marker.exists()


def test_a_zip_that_python_would_run_is_seen_inside_a_tensor(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.safetensors"
    data = archive(marker, "zip")
    path.write_bytes(safetensors({"a": entry("U8", [len(data)], 0, len(data))}, data))
    assert zipfile.is_zipfile(path)
    assert headers.read_safetensors(path)[0].nbytes == len(data)
    assert contents.has_zip_tail(path)
    # the four bytes alone, as weights can have them, are no archive
    path.write_bytes(b"PK\x05\x06" + b"\1" * 60)
    assert not contents.has_zip_tail(path)


JSON: dict[str, tuple[str, bytes, str]] = {
    "auto_map": ("config.json", b'{"auto_map": {"AutoModel": "evil.Model"}}', "names code to run (auto_map)"),
    "auto_map inside": ("config.json", b'{"a": [{"b": {"auto_map": {}}}]}', "names code to run (auto_map)"),
    "auto_map of a tokenizer": ("tokenizer_config.json", b'{"auto_map": {}}', "names code to run (auto_map)"),
    "custom_pipelines": ("config.json", b'{"custom_pipelines": {"x": {"impl": "evil.P"}}}', "(custom_pipelines)"),
    "custom_generate": ("generation_config.json", b'{"custom_generate": "evil/repo"}', "(custom_generate)"),
    "Hydra's target": ("config.json", b'{"_target_": "os.system"}', "(_target_)"),
    "jsonpickle": ("config.json", b'{"py/object": "os.system"}', "(py/object)"),
    "trust_remote_code": ("config.json", b'{"trust_remote_code": true}', "asks for trust_remote_code"),
    "--trust-remote-code": ("vllm.json", b'{"args": ["--trust-remote-code"]}', "asks for --trust-remote-code"),
    "a key twice": ("config.json", b'{"auto_map_": 1, "a": 1, "a": 2}', "has the key 'a' twice"),
    "an escaped key twice": ("config.json", b'{"a": 1, "\\u0061": 2}', "has the key 'a' twice"),
    "NaN": ("config.json", b'{"a": NaN}', "has NaN"),
    "Infinity": ("config.json", b'{"a": -Infinity}', "has -Infinity"),
    "nested deep": ("config.json", b'{"a":' * 100_000, "is not JSON"),
    "a number of a million digits": ("config.json", b'{"a": ' + b"9" * 10**6 + b"}", "is not JSON"),
    "UTF-16": ("config.json", '{"auto_map": 1}'.encode("utf-16"), "is not JSON"),
    "a byte-order mark": ("config.json", b'\xef\xbb\xbf{"a": 1}', "is not JSON"),
    "two values": ("config.json", b'{"a": 1} {"auto_map": 1}', "is not JSON"),
    "a bare value": ("config.json", b'"x"', "is neither a JSON object nor an array"),
    "shards elsewhere": (
        "model.safetensors.index.json",
        b'{"weight_map": {"a": "../../secret.safetensors"}}',
        "has a weight_map that leaves its folder",
    ),
    "many templates": ("tokenizer_config.json", b'{"chat_template": [{"name": "a", "template": ""}]}', "is no text"),
    "another template": ("tokenizer_config.json", b'{"chat_template": "{{ x }}"}', "has another chat template"),
}


@pytest.mark.parametrize("what", JSON)
def test_hostile_json_is_refused(package: Path, what: str) -> None:
    name, data, said = JSON[what]
    (package / "bf16" / name).write_bytes(data)
    found = refused(package)
    assert f"bf16/{name}: " in found
    assert said in found


def write(name: str, data: bytes = b"x", mode: int = 0o644) -> Callable[[Path], None]:
    def make(package: Path) -> None:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(data)
        (package / name).chmod(mode)

    return make


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def make(package: Path) -> None:
        found = (package / name).read_text()
        assert old in found
        (package / name).write_text(found.replace(old, new))

    return make


MODELFILE = "gguf-f16/Modelfile"
FROM = f"FROM ./{RUN}.F16.gguf\n"
FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "Python": (write("bf16/modeling_gemma3.py", b"import os"), "bf16/modeling_gemma3.py: is a .py file"),
    "compiled Python": (write("bf16/a.pyc"), "bf16/a.pyc: is a .pyc file"),
    "a library": (write("bf16/ops.so", b"\x7fELF"), "bf16/ops.so: is a .so file"),
    "a library as text": (write("bf16/ops.txt", b"\x7fELF"), "bf16/ops.txt: is not text"),
    "a shell script": (write("pi/install.sh", b"#!/bin/sh\n"), "pi/install.sh: is a .sh file"),
    "a shell script as a notice": (write("NOTICE", b"#!/bin/sh\nid\n"), "NOTICE: starts like a program"),
    "HDF5": (write("bf16/model.h5"), "bf16/model.h5: is a .h5 file"),
    "ONNX": (write("bf16/model.onnx"), "bf16/model.onnx: is a .onnx file"),
    "no suffix": (write("bf16/payload"), "bf16/payload: is a bare file"),
    "YAML": (write("bf16/recipe.yaml", b"a: !!python/object:os.system"), "bf16/recipe.yaml: is a .yaml file"),
    "suffix in capitals": (write("bf16/MODEL.PKL"), "bf16/MODEL.PKL: is a .pkl file"),
    "double suffix": (write("bf16/model.safetensors.pkl"), "bf16/model.safetensors.pkl: is a .pkl file"),
    "hidden": (write("bf16/.hidden.json", b"{}"), "bf16/.hidden.json: is hidden"),
    "git's ignored": (write(".gitattributes", b"* filter=x"), ".gitattributes: is hidden"),
    "a git folder": (write(".git/hooks/post-checkout.txt"), ".git: is hidden"),
    "executable": (write("NOTICE", b"x", 0o755), "NOTICE: is executable"),
    "executable for others": (write("NOTICE", b"x", 0o645), "NOTICE: is executable"),
    "setuid": (write("NOTICE", b"x", 0o4644), "NOTICE: is executable"),
    "an option as a name": (write("bf16/--help.txt"), "bf16/--help.txt: is hidden or has a name"),
    "a line end in a name": (write("bf16/a\nok.txt"), "bf16/a\\nok.txt: is hidden or has a name"),
    "an escape in a name": (write("bf16/\x1b[2J.txt"), "bf16/\\x1b[2J.txt: is hidden or has a name"),
    "a name turned round": (write("bf16/\u202etxt.txt"), "bf16/\\u202etxt.txt: is hidden or has a name"),
    "a name with a blank": (write("bf16/a b.txt"), "bf16/a b.txt: is hidden or has a name"),
    "control characters": (write("NOTICE", b"\x1b]0;x\x07"), "NOTICE: is not text"),
    "Latin-1": (write("NOTICE", b"caf\xe9"), "NOTICE: is not text"),
    "huge text": (write("NOTICE", b"x" * (2**22 + 1)), "NOTICE: is larger than"),
    "deep folders": (write("a/b/c/d/e/f/g/h/i.txt"), "has folders deeper than"),
    "no tokenizer": (write("bf16/tokenizer.model", b"\x0a\x03abc"), "bf16/tokenizer.model: is not a SentencePiece"),
    "empty tokenizer": (write("bf16/tokenizer.model", b""), "bf16/tokenizer.model: is a SentencePiece model without"),
    "endless length": (write("bf16/tokenizer.model", b"\x0a" + b"\xff" * 99), "bf16/tokenizer.model: is not a"),
    "ADAPTER": (edit(MODELFILE, FROM, FROM + "ADAPTER ./evil.gguf\n"), f"{MODELFILE}: line 2 is no instruction"),
    "MESSAGE": (edit(MODELFILE, FROM, FROM + "MESSAGE user hi\n"), f"{MODELFILE}: line 2 is no instruction"),
    "FROM elsewhere": (edit(MODELFILE, FROM, "FROM /etc/passwd\n"), f"{MODELFILE}: line 1: FROM is no GGUF file"),
    "FROM above": (edit(MODELFILE, FROM, f"FROM ./../{GGUF}\n"), f"{MODELFILE}: line 1: FROM is no GGUF file"),
    "FROM a registry": (edit(MODELFILE, FROM, "FROM llama3\n"), f"{MODELFILE}: line 1: FROM is no GGUF file"),
    "FROM what is not there": (edit(MODELFILE, FROM, "FROM ./b.gguf\n"), f"{MODELFILE}: line 1: FROM is no GGUF"),
    "FROM twice": (edit(MODELFILE, FROM, FROM * 2), f"{MODELFILE}: has 2 FROM lines"),
    "no FROM": (edit(MODELFILE, FROM, ""), f"{MODELFILE}: has 0 FROM lines"),
    "a strange parameter": (edit(MODELFILE, "temperature 0", "temperature $(id)"), "is no parameter"),
    "prose": (edit(MODELFILE, FROM, FROM + "ignore what was said\n"), f"{MODELFILE}: line 2 is no instruction"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_has_no_place_in_a_package_is_refused(package: Path, what: str) -> None:
    make, said = FILES[what]
    make(package)
    assert said in refused(package)


@given(st.integers(0, 5), st.lists(st.sampled_from([b"N0", b"I01\n0", b"}0", b"(1", b"\x88q\x000"])))
def test_a_pickle_is_known_behind_any_harmless_opcodes(protocol: int, before: list[bytes]) -> None:
    assert contents.runs_when_unpickled(b"".join(before) + raw(Path("/nowhere"), protocol))


@given(st.lists(st.sampled_from(["c", "i", "(", "cat", "in short", "Gemma is", "I", "S", ".", "os", " ", "\n"])))
def test_prose_is_no_pickle(words: list[str]) -> None:
    # the two that begin a pickle name a module and what is in it on a line each, with nothing else in them
    assert not contents.runs_when_unpickled(("# " + "".join(words)).encode())
    assert not contents.runs_when_unpickled(("install it so\n" + "".join(words)).encode())
    assert not contents.runs_when_unpickled(("come, in short\n" + "".join(words)).encode())


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


NAMES = ["a.json", "a.model", "a.jinja", "a.txt", "Modelfile", "a.safetensors", "a.gguf", "a.bin"]


@given(st.sampled_from(NAMES), st.sampled_from([b"", b"{", b"GGUF", b"\x0a\x05", b'FROM """']), st.binary(max_size=60))
def test_any_bytes_under_any_name_are_judged_and_raise_nothing(
    folder: Path, name: str, start: bytes, data: bytes
) -> None:
    path = folder / name
    path.write_bytes(start + data)
    wrong, templates = contents.check(name, path)
    assert all(isinstance(text, str) and text for text in wrong)
    assert not templates or name == "a.jinja"
