"""Finds the base model of a train config and puts it in a local folder, so that every later step is offline."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from potstill import vocab
from potstill.files import sha256_file
from potstill.project import MODELS
from potstill.runs import Base, TrainConfig, Vocabulary
from potstill.stop import DATA, UNAVAILABLE, USAGE, Stop

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", re.ASCII)
MODEL_TYPE = "gemma3_text"
WEIGHTS = "model.safetensors"
# `vocabulary: auto` trims from here on: below, the embedding is a small part of a model
AUTO_TRIM_PIECES = 65_536


def resolve(name: str, revision: str | None) -> Base:
    """`nano`, a local folder, or a Hugging Face id, which is downloaded once.

    Raises Stop 2 for what is none of these, 65 for a folder that is no Gemma 3 text model, 69 when the hub is needed
    and not to be had.
    """
    if name == "nano":
        folder = MODELS / "nano"
    elif Path(name).is_dir():
        folder = Path(name)
    elif HUB_ID.match(name):
        folder = MODELS / "hub" / name.replace("/", "--") / (revision or "main")
        if not (folder / WEIGHTS).is_file():
            _download(name, revision, folder)
    else:
        raise Stop(f"base {name!r} is neither nano, nor a folder, nor a Hugging Face id (owner/name).", USAGE)
    _check_family(folder)
    return Base(name=name, path=folder.as_posix(), revision=revision, sha256=sha256_file(folder / WEIGHTS))


def wants_trim(base: Base, settings: TrainConfig) -> bool:
    if settings.vocabulary != "auto":
        return settings.vocabulary == "trim"
    return pieces(base) >= AUTO_TRIM_PIECES


def pieces(base: Base) -> int:
    """The number of tokens that the base's embedding has."""
    return json.loads((Path(base.path) / "config.json").read_text(encoding="utf-8"))["vocab_size"]


def trimmed(base: Base, texts: Iterable[str], folder: Path, reserve: int) -> tuple[Base, Vocabulary]:
    """The base with its vocabulary trimmed to `texts`, in `folder`; see vocab.trim for what it raises."""
    report = vocab.trim(Path(base.path), texts, folder, reserve)
    gone = 1 - report.bytes_after / report.bytes_before
    print(
        f"vocabulary: {report.pieces_before:,} pieces -> {report.pieces_after:,} ({report.used:,} in the train rows, "
        f"{report.reserve:,} in reserve); weights {report.bytes_before / 1e6:,.1f} MB -> "
        f"{report.bytes_after / 1e6:,.1f} MB, {gone:.0%} less"
    )
    record = Vocabulary(
        original=base.path,
        original_sha256=base.sha256,
        **report.model_dump(exclude={"bytes_before", "bytes_after"}),
    )
    own = Base(name=base.name, path=folder.as_posix(), revision=base.revision, sha256=sha256_file(folder / WEIGHTS))
    return own, record


def _check_family(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file() or not (folder / WEIGHTS).is_file():
        raise Stop(f"{folder} holds no config.json with {WEIGHTS}; want a Hugging Face model folder.", DATA)
    found = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    if found != MODEL_TYPE:
        raise Stop(f"{config}: model_type is {found!r}; training and packaging support {MODEL_TYPE!r}.", DATA)


def _download(name: str, revision: str | None, folder: Path) -> None:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise Stop(
            f"the base {name} is not in {folder}, and the network is off. Accept its licence on the hub, then run this "
            f"again with HF_HUB_OFFLINE=0 and HF_TOKEN set, or give a folder: -o base=/path/to/folder.",
            UNAVAILABLE,
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    wanted = ["*.json", "*.safetensors", "tokenizer.model", "*.jinja", "LICENSE*", "README.md"]
    try:
        # no .bin: weights are read from safetensors only
        snapshot_download(name, revision=revision, local_dir=folder, allow_patterns=wanted)
    except GatedRepoError:
        raise Stop(
            f"{name} is behind a licence: accept it on the model's page, make a read token, and set HF_TOKEN.",
            UNAVAILABLE,
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise Stop(f"{name} could not be downloaded: {str(error).splitlines()[0]}", UNAVAILABLE) from None
