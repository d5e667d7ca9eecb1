"""Files that would run, or break what reads them, made at test time; and how a package is made to fit them.

A payload makes the folder `marker` when it is unpickled or imported: where that folder is missing, nothing ran.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from potstill import manifest
from potstill.runs import RunRecord

RUN = "batfit-tiny"
GGUF = f"gguf-f16/{RUN}.F16.gguf"


class Payload:
    """Unpickling one makes the folder at `path`."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def raw(marker: Path, protocol: int) -> bytes:
    return pickle.dumps(Payload(marker), protocol)


def without_stop(marker: Path) -> bytes:
    """Runs and only then fails: an unpickler follows opcodes as it reads them."""
    return raw(marker, 0)[:-1]


def torch_zip(marker: Path) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({"weight": Payload(marker)}, file)
    return file.getvalue()


def torch_legacy(marker: Path) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({"weight": Payload(marker)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def joblib_file(marker: Path) -> bytes:
    import joblib

    file = io.BytesIO()
    joblib.dump(Payload(marker), file)
    return file.getvalue()


def numpy_objects(marker: Path) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.save(file, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    return file.getvalue()


def archive(marker: Path, kind: str) -> bytes:
    data = raw(marker, 4)
    if kind in ("gzip", "bz2", "xz"):
        return {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](data)
    if kind == "7z":
        return b"7z\xbc\xaf\x27\x1c\x00\x04" + data
    file = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=file, mode="w") as tar:
            entry = tarfile.TarInfo("data.pkl")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    else:
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("__main__.py", f"import os; os.mkdir({str(marker)!r})")
            made.writestr("archive/data.pkl", data)
    return file.getvalue()


def safetensors(header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: Any, start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    """A key of GGUF metadata with a value that is already packed."""
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: list[int], kind: int = 0, start: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, start)


def gguf(
    pairs: list[bytes], tensors: list[bytes], data: bytes, keys: int | None = None, count: int | None = None
) -> bytes:
    """A GGUF v3 file; `keys` and `count` are what its header claims."""
    head = struct.pack("<IQQ", 3, len(tensors) if count is None else count, len(pairs) if keys is None else keys)
    head = b"GGUF" + head + b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def copy_of(exported: Path, folder: Path) -> Path:
    """The package of the `exported` project, to be broken."""
    return Path(shutil.copytree(exported / "models" / RUN / "package", folder / "package"))


def values_of(package: Path) -> dict[str, Any]:
    """What manifest.write wants besides the folder, as the package's own manifest has it."""
    values = json.loads((package / manifest.NAME).read_text())
    for key in ("manifest_version", "files", "sha256"):
        values.pop(key)
    values["run"] = RunRecord.model_validate(values["run"])
    return values


def refit(package: Path, **changes: Any) -> None:
    """Makes every hash fit what was done to the package, as somebody without the key can."""
    values = values_of(package)
    run = values["run"].model_copy(update=changes.pop("run", {}))
    manifest.write(package, **{**values, **changes, "run": run})


def refused(package: Path) -> str:
    """The problems that are left once the manifest fits."""
    refit(package)
    return "\n".join(str(problem) for problem in manifest.verify(package))
