"""Hostile headers of safetensors and GGUF: refused by name, and no size in them is allocated before it is believed."""

import contextlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import poison
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from poison import GGUF, entry, gguf, pair, refused, safetensors, tensor, text

from potstill import headers

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    return poison.copy_of(exported, tmp_path)


ONE = {"a": entry("F32", [2], 0, 8)}
DEEP = b"[" * 100_000
SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "length 2^63": (safetensors(ONE, b"\0" * 8, 1 << 63), "the header says"),
    "length of 2 GiB": (safetensors(ONE, b"\0" * 8, 2 << 30), "the header says"),
    "length of one byte more": (safetensors(ONE, b"", 1 + len(json.dumps(ONE))), "the header says"),
    "no header": (b"\1\0", "the file ends inside its header"),
    "not JSON": (safetensors(b"{]"), "the header is not JSON"),
    "not an object": (safetensors(b"[1]"), "the header is not a JSON object"),
    "blanks first": (safetensors(b"  " + json.dumps(ONE).encode(), b"\0" * 8), "the header is not a JSON object"),
    "nested deep": (safetensors(DEEP), "the header is not JSON"),
    "a key twice": (safetensors(b'{"a":1,"a":2}'), "the header has the key 'a' twice"),
    "NaN": (safetensors(b'{"a":NaN}'), "the header has NaN"),
    "negative offset": (safetensors({"a": entry("F32", [2], -8, 0)}, b""), "tensor 'a' has no believable entry"),
    "offsets turned round": (safetensors({"a": entry("F32", [2], 8, 0)}, b"\0" * 8), "tensor 'a' is [2] F32"),
    "overlap": (safetensors(ONE | {"b": entry("F32", [2], 4, 12)}, b"\0" * 12), "tensor 'b' starts at byte 4"),
    "same bytes twice": (safetensors(ONE | {"b": entry("F32", [2], 0, 8)}, b"\0" * 8), "starts at byte 0, want 8"),
    "gap": (safetensors({"a": entry("F32", [2], 8, 16)}, b"\0" * 16), "tensor 'a' starts at byte 8"),
    "beyond the end": (safetensors({"a": entry("F32", [4], 0, 16)}, b"\0" * 8), "the tensors have 16 bytes"),
    "bytes left over": (safetensors(ONE, b"\0" * 9), "the tensors have 8 bytes"),
    "unknown dtype": (safetensors({"a": entry("OBJ", [2], 0, 8)}, b"\0" * 8), "tensor 'a' has no believable entry"),
    "a text as a size": (safetensors({"a": entry("F32", ["x" * 1000, 10**12], 0, 8)}, b"\0" * 8), "no believable"),
    "2^48 rows": (safetensors({"a": entry("F32", [1 << 48, 1 << 48], 0, 8)}, b"\0" * 8), "no believable entry"),
    "a true size": (safetensors({"a": entry("F32", [True, 2], 0, 8)}, b"\0" * 8), "no believable entry"),
    "more keys": (safetensors({"a": {**entry("F32", [2], 0, 8), "py": "x"}}, b"\0" * 8), "no believable entry"),
    "metadata that is no text": (safetensors({"__metadata__": {"a": [1]}}), "__metadata__ is not texts by name"),
    "a million tensors": (
        safetensors({str(i): entry("F32", [0], 0, 0) for i in range(10_001)}),
        "10001 tensors are not believable",
    ),
}


@pytest.mark.parametrize("what", SAFETENSORS)
def test_a_hostile_safetensors_header_is_refused(package: Path, what: str) -> None:
    data, said = SAFETENSORS[what]
    (package / "bf16/model.safetensors").write_bytes(data)
    found = refused(package)
    assert "bf16/model.safetensors: " in found
    assert said in found


TEMPLATE = pair("tokenizer.chat_template", 8, text("{{ messages }}"))
A = tensor("a", [8])
ZEROS = b"\0" * 32
HOSTILE_GGUF: dict[str, tuple[bytes, str]] = {
    "2^40 keys": (gguf([TEMPLATE], [A], ZEROS, keys=1 << 40), "are not believable"),
    "2^40 tensors": (gguf([TEMPLATE], [A], ZEROS, count=1 << 40), "are not believable"),
    "one key more": (gguf([TEMPLATE], [A], ZEROS, keys=3), ""),
    "version 2": (b"GGUF" + struct.pack("<I", 2) + gguf([TEMPLATE], [A], ZEROS)[8:], "version 2"),
    "other byte order": (b"GGUF" + struct.pack(">I", 3) + gguf([TEMPLATE], [A], ZEROS)[8:], "version 50331648"),
    "string of 2^60 bytes": (gguf([struct.pack("<Q", 1 << 60)], [A], ZEROS), "a string of"),
    "string beyond the end": (gguf([struct.pack("<Q", 1 << 19)], [], b""), "the file ends inside its header"),
    "array of 2^50": (gguf([pair("a", 9, struct.pack("<IQ", 4, 1 << 50))], [A], ZEROS), "an array of"),
    "array beyond the end": (gguf([pair("a", 9, struct.pack("<IQ", 10, 1 << 20))], [A], ZEROS), "ends inside"),
    "arrays in arrays": (gguf([pair("a", 9, struct.pack("<IQ", 9, 1) * 50)], [A], ZEROS), "an array of"),
    "unknown value type": (gguf([pair("a", 99, b"")], [A], ZEROS), "unknown type 99"),
    "a key twice": (gguf([TEMPLATE, TEMPLATE], [A], ZEROS), "is repeated"),
    "a key that is no name": (gguf([pair("a\x1b[2Jb", 4, b"\0" * 4)], [A], ZEROS), "is no name"),
    "alignment 0": (gguf([TEMPLATE, pair("general.alignment", 4, b"\0" * 4)], [A], ZEROS), "an alignment of 0"),
    "alignment 24": (gguf([pair("general.alignment", 4, struct.pack("<I", 24))], [A], ZEROS), "an alignment of 24"),
    "alignment 2^31": (gguf([pair("general.alignment", 4, struct.pack("<I", 1 << 31))], [A], ZEROS), "an alignment"),
    "alignment is a text": (gguf([pair("general.alignment", 8, text("32"))], [A], ZEROS), "an alignment of '32'"),
    "tensor beyond the end": (gguf([TEMPLATE], [tensor("a", [800])], ZEROS), "need"),
    "tensor that starts late": (gguf([TEMPLATE], [tensor("a", [8], 0, 1 << 40)], ZEROS), "starts at byte"),
    "tensors that overlap": (gguf([TEMPLATE], [A, tensor("b", [8])], ZEROS * 2), "starts at byte 0, want 32"),
    "tensor twice": (gguf([TEMPLATE], [A, tensor("a", [8], 0, 32)], ZEROS * 2), "a tensor is repeated"),
    "unknown tensor type": (gguf([TEMPLATE], [tensor("a", [8], 4242)], ZEROS), "unknown type 4242"),
    "no dimensions": (gguf([TEMPLATE], [tensor("a", [])], ZEROS), "has 0 dimensions"),
    "9 dimensions": (gguf([TEMPLATE], [tensor("a", [1] * 9)], ZEROS), "has 9 dimensions"),
    "2^62 columns": (gguf([TEMPLATE], [tensor("a", [1 << 62, 4])], ZEROS), "unbelievable shape"),
    "no rows hide 2^62": (gguf([TEMPLATE], [tensor("a", [0, 1 << 62])], b""), "unbelievable shape"),
    "half a block": (gguf([TEMPLATE], [tensor("a", [33], 8)], ZEROS * 2), "unbelievable shape [33]"),
    "a name of 64 bytes": (gguf([TEMPLATE], [tensor("a" * 64, [8])], ZEROS), "llama.cpp does not take"),
    "part of a split": (gguf([TEMPLATE, pair("split.count", 2, b"\2\0")], [A], ZEROS), "part of a split model"),
    "no template": (gguf([], [A], ZEROS), "has no chat template"),
    "another template": (gguf([TEMPLATE], [A], ZEROS), "has another chat template"),
    "a second template": (
        gguf([TEMPLATE, pair("tokenizer.chat_template.tool_use", 8, text("{{ x }}"))], [A], ZEROS),
        "has another chat template",
    ),
    "a template that is a number": (gguf([pair("tokenizer.chat_template", 4, b"\0" * 4)], [A], ZEROS), "is no text"),
}


@pytest.mark.parametrize("what", HOSTILE_GGUF)
def test_a_hostile_gguf_header_is_refused(package: Path, what: str) -> None:
    data, said = HOSTILE_GGUF[what]
    (package / GGUF).write_bytes(data)
    found = refused(package)
    assert f"{GGUF}: " in found
    assert said in found


GOOD_HEADERS = ("part of a split", "no template", "another template", "a second template")
GOOD_HEADERS += ("a template that is a number",)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def test_hostile_headers_cost_neither_time_nor_memory(tmp_path: Path) -> None:
    """Read by a process that may take 256 MiB more: no size in a header is allocated before it is believed."""
    for number, (data, _) in enumerate([*SAFETENSORS.values(), *HOSTILE_GGUF.values()]):
        (tmp_path / f"{number}{'.safetensors' if number < len(SAFETENSORS) else '.gguf'}").write_bytes(data)
    code = (
        "import resource, sys; from pathlib import Path; import gguf; from potstill import headers\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: (headers.read_gguf if path.suffix == '.gguf' else headers.read_safetensors)(path)\n"
        "    except headers.BadHeader: continue\n"
        "    print(path.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # whole files: only their templates, or the split, are wrong, which is not the header's reader's to say
    known = [f"{len(SAFETENSORS) + list(HOSTILE_GGUF).index(what)}.gguf" for what in GOOD_HEADERS]
    assert sorted(done.stdout.split()) == sorted(known)


@settings(max_examples=300)
@given(st.sampled_from([".gguf", ".safetensors"]), st.integers(0, 90), st.binary(min_size=1, max_size=9))
def test_a_header_with_any_bytes_in_it_is_read_or_refused(folder: Path, suffix: str, at: int, data: bytes) -> None:
    whole = gguf([TEMPLATE], [A], ZEROS) if suffix == ".gguf" else safetensors(ONE, b"\0" * 8)
    path = folder / f"fuzzed{suffix}"
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    with contextlib.suppress(headers.BadHeader):
        found = headers.read_gguf(path)[1] if suffix == ".gguf" else headers.read_safetensors(path)
        assert sum(tensor.nbytes for tensor in found) <= path.stat().st_size
