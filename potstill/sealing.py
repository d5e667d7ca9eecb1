"""The last files of a package, which speak of all its others: model card, ML-BOM, manifest and signature."""

from pathlib import Path
from typing import Any

from potstill import bases, bom, compatibility, manifest, model_card, signing, workload
from potstill.runs import RunRecord
from potstill.stop import BUG, Stop

# written by `seal`, so left out where a package is sealed anew
NAMES = (model_card.NAME, bom.NAME, manifest.NAME, signing.NAME)


def seal(package: Path, record: RunRecord, artifacts: list[str], **values: Any) -> str:
    """Writes them, and says in words whether the package was signed.

    `values` are the other keys of the manifest: train_config, scores, licence, num_ctx, chat_template_sha256 and
    system_sha256. Raises Stop 1 when what was built does not verify.
    """
    runtimes = compatibility.runtimes(bases.MODEL_TYPE, artifacts)
    schemas = workload.load(record.workload).schemas
    model_card.write(
        package,
        record,
        config=values["train_config"],
        tasks={task: schema.__doc__ or "" for task, schema in schemas.items()},
        licence=values["licence"],
        num_ctx=values["num_ctx"],
        artifacts={kind: size_of(package / kind) for kind in artifacts},
        runtimes=runtimes,
    )
    bom.write(package, record, values["licence"], values["scores"])
    # last but for its signature, so its existence means that the package is complete
    manifest.write(package, run=record, runtimes=runtimes, **values)
    said = signing.sign_as_configured(package, record.run)
    if problems := manifest.verify(package):
        raise Stop(f"the package just built is not whole: {problems[0]}. Please report this.", BUG)
    return said


def seal_anew(package: Path, old: manifest.Manifest, artifacts: list[str]) -> str:
    """Seals a folder that has `artifacts` of the package that `old` was the manifest of."""
    kept = ("train_config", "scores", "licence", "num_ctx", "chat_template_sha256", "system_sha256")
    return seal(package, old.run, artifacts, **{name: getattr(old, name) for name in kept})


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
