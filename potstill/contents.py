"""Is each file of a package what its name claims, and nothing that could run? By its content, never by its name alone.

Nothing here unpickles, imports or executes what it reads. What only a library can judge, the chat template and the
SentencePiece model, is given to potstill/untrusted.py, a process of its own with little time, memory and no files.
"""

import json
import os
import pickletools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import headers, untrusted
from potstill.headers import BadHeader

# everything else, first of all pickles, archives and code, has no place in a package
SUFFIXES = {".safetensors", ".gguf", ".json", ".jinja", ".model", ".md", ".txt"}
BARE_NAMES = {"Modelfile", "NOTICE", "LICENSE"}
MAX_JSON_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 4 * 2**20
# a library that finds one of these imports code: transformers, diffusers, Hydra, jsonpickle
CODE_KEYS = {"auto_map", "custom_pipelines", "custom_generate", "_target_", "py/object", "py/reduce", "py/type"}
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
MODELFILE_LINE = re.compile(r'([A-Z]+)[ \t]+(?:"""(.*?)"""|([^\n]*?))[ \t]*(?:\n|\Z)', re.DOTALL)
MODELFILE_WORDS = {"FROM", "TEMPLATE", "SYSTEM", "PARAMETER", "LICENSE"}
USER_TEXT, SYSTEM_TEXT = "a user's words", "a system's words"


def check(name: str, path: Path) -> tuple[list[str], list[str]]:
    """What is wrong with one file of a package, and the chat templates found in it."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and path.name not in BARE_NAMES:
        return [f"is a {suffix or 'bare'} file; a package has only weights, tokenizer and text files"], []
    try:
        if has_zip_tail(path):
            raise BadHeader("ends like a zip archive")
        if suffix == ".safetensors":
            headers.read_safetensors(path)
        elif suffix == ".gguf":
            return [], list(_gguf_templates(path))
        elif suffix == ".json":
            return [], _check_json(headers.strict_json(_read(path, MAX_JSON_BYTES)))
        elif suffix == ".model":
            _check_pieces(_read(path, MAX_JSON_BYTES))
        else:
            text = _text(_read(path, MAX_TEXT_BYTES))
            if path.name == "Modelfile":
                _check_modelfile(text, path.parent)
            return [], [text] if suffix == ".jinja" else []
    except BadHeader as error:
        return [str(error)], []
    return [], []


def template_problem(template: str, with_system: bool) -> str | None:
    """Renders one short conversation, and one with a system text too where the package has one. None when all is well.

    A template can still do harm in a conversation that is not this one: what vouches for it is the signature.
    """
    user = {"role": "user", "content": USER_TEXT}
    conversations = [[user], [{"role": "system", "content": SYSTEM_TEXT}, user]][: 1 + with_system]
    given = json.dumps({"template": template, "conversations": conversations}).encode()
    problem, texts = _judge("template", given)
    if problem:
        return problem
    for conversation, text in zip(conversations, texts, strict=True):
        for message in conversation:
            if message["content"] not in text:
                return f"loses the {message['role']}'s text"
    return None


def pieces_problem(path: Path) -> str | None:
    """What SentencePiece says of a tokenizer.model; None when it loads."""
    problem, texts = _judge("sentencepiece", _read(path, MAX_JSON_BYTES))
    return "is a SentencePiece model without pieces" if texts == ["0"] else problem


def has_zip_tail(path: Path) -> bool:
    """Whether zip readers, Python's own among them, would open the file by the directory at its end.

    Source: PKWARE's APPNOTE 4.3.16. The record's last field is the length of a comment that ends with the file.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_557))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if len(tail) - at >= 22 and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return False


def runs_when_unpickled(data: bytes) -> bool:
    """Whether `data` begins with a pickle that would import or call something. Reads its opcodes and follows none.

    Pickles of protocol 0 are plain text. Words that only look like opcodes name no module, so prose is none.
    """
    named = marked = False
    try:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in ("GLOBAL", "INST"):
                if not all(part.isidentifier() for word in str(argument).split(" ") for part in word.split(".")):
                    return False
                named = name == "GLOBAL" or marked
            named = named or name == "STACK_GLOBAL"
            marked = marked or name == "MARK"
            if named and name in ("INST", "REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "STOP"):
                return True
    except (ValueError, IndexError, OverflowError):
        return False
    return False


def _gguf_templates(path: Path) -> Iterator[str]:
    values = headers.read_gguf(path)[0]
    if values.get("split.count", 1) != 1:
        raise BadHeader("is a part of a split model, whose other parts llama.cpp would look for")
    if "tokenizer.chat_template" not in values:
        raise BadHeader("has no chat template")
    for key, value in values.items():
        # llama.cpp takes others by name: tokenizer.chat_template.tool_use
        if key.startswith("tokenizer.chat_template"):
            if not isinstance(value, str):
                raise BadHeader(f"{key} is no text")
            yield value


def _check_json(value: Any) -> list[str]:
    if not isinstance(value, dict | list):
        raise BadHeader("is neither a JSON object nor an array")
    for item in _inside(value):
        if isinstance(item, dict):
            if keys := CODE_KEYS & item.keys():
                raise BadHeader(f"names code to run ({min(keys)}); that is refused")
            if item.get("trust_remote_code"):
                raise BadHeader("asks for trust_remote_code; that is refused")
        elif isinstance(item, str) and item.startswith("--trust-remote-code"):
            raise BadHeader("asks for --trust-remote-code; that is refused")
    if isinstance(value, list):
        return []
    shards = value.get("weight_map", {})
    if not isinstance(shards, dict) or not all(isinstance(s, str) and "/" not in s for s in shards.values()):
        raise BadHeader("has a weight_map that leaves its folder")
    template = value.get("chat_template")
    if template is not None and not isinstance(template, str):
        raise BadHeader("has a chat_template that is no text")
    return [] if template is None else [template]


def _inside(value: Any) -> Iterator[Any]:
    rest = [value]
    while rest:
        item = rest.pop()
        yield item
        if isinstance(item, dict):
            rest += item.values()
        elif isinstance(item, list):
            rest += item


def _check_pieces(data: bytes) -> None:
    """Fields 1 to 5 of sentencepiece_model.proto and nothing between them.

    SentencePiece itself would take foreign bytes after the model for a field that it does not know.
    """
    at = 0
    while at < len(data):
        tag, at, shift, length = data[at], at + 1, 0, 0
        while at < len(data) and shift < 35:
            byte = data[at]
            length |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
        at += length
        if tag not in (0x0A, 0x12, 0x1A, 0x22, 0x2A) or at > len(data):
            raise BadHeader("is not a SentencePiece model")


def _check_modelfile(text: str, folder: Path) -> None:
    """The instructions that potstill/modelfile.py writes, and FROM only a GGUF file beside the Modelfile."""
    at, froms = 0, 0
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        end = text.find("\n", at) + 1 or len(text)
        if not text[at:end].strip() or text[at] == "#":
            at = end
            continue
        match = MODELFILE_LINE.match(text, at)
        if not match or match[1] not in MODELFILE_WORDS:
            raise BadHeader(f"line {line} is no instruction of ours: {text[at:end].strip()[:40]!r}")
        at, value = match.end(), match[3]
        if match[1] == "FROM":
            froms += 1
            if value is None or not re.fullmatch(r"\./[A-Za-z0-9._-]+\.gguf", value) or not (folder / value).is_file():
                raise BadHeader(f"line {line}: FROM is no GGUF file beside it")
        elif match[1] == "PARAMETER" and not re.fullmatch(r'stop ".*"|[a-z_]+ -?[0-9.]+', value or ""):
            raise BadHeader(f"line {line} is no parameter")
    if froms != 1:
        raise BadHeader(f"has {froms} FROM lines, want 1")


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadHeader("is not text") from None
    if found := CONTROL.search(text):
        raise BadHeader(f"is not text: it has the character {found[0]!r}")
    if text.startswith("#!"):
        raise BadHeader("starts like a program")
    if runs_when_unpickled(data):
        raise BadHeader("is a pickle")
    return text


def _read(path: Path, limit: int) -> bytes:
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadHeader(f"is larger than any such file, more than {limit} bytes")
    return data


def _judge(kind: str, data: bytes) -> tuple[str | None, list[str]]:
    command = [sys.executable, "-I", untrusted.__file__, kind]
    # no secret of this process's environment goes along
    environment = {key: value for key, value in os.environ.items() if key == "LD_LIBRARY_PATH"}
    try:
        done = subprocess.run(command, input=data, capture_output=True, env=environment, timeout=60)
        said = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # stopped at a limit, it says nothing
        return f"takes more than {untrusted.CPU_S} s or crashes what reads it", []
    return said["problem"], said["texts"]
