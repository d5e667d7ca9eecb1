"""Under which licence a package is, and the files that go with it."""

import shutil
from pathlib import Path

from potstill.files import write_text
from potstill.runs import RunRecord

SHOWN = {
    "gemma": "Gemma Terms of Use (NOTICE in this package)",
    "apache-2.0": "Apache-2.0 (LICENSE in this package)",
}
UNKNOWN = "as its base; not known to Potstill, so ask whoever made the base"
GEMMA_NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

The model in this package is a Model Derivative of {base} in the sense of those terms: its weights were changed by
fine-tuning. Whoever receives it is bound by the use restrictions of the Gemma Prohibited Use Policy
(ai.google.dev/gemma/prohibited_use_policy), and whoever passes it on passes on this notice and a copy of the terms.
"""
# the nano base and what is made of it are the project's own
OWN = Path(__file__).resolve().parents[1] / "LICENSE"


def of(record: RunRecord) -> str:
    """gemma, apache-2.0, or other: anything unknown is for the user to say."""
    name = record.base.name.lower()
    return "gemma" if "gemma" in name else "apache-2.0" if name.rstrip("/").endswith("nano") else "other"


def write(package: Path, licence: str, record: RunRecord) -> None:
    """NOTICE, and the terms where the base brought them, for Gemma; LICENSE for the project's own."""
    if licence == "gemma":
        write_text(package / "NOTICE", GEMMA_NOTICE.format(base=record.base.name))
        terms = Path(record.vocabulary.original if record.vocabulary else record.base.path) / "LICENSE"
        if terms.is_file():
            shutil.copyfile(terms, package / "LICENSE")
    elif licence == "apache-2.0":
        shutil.copyfile(OWN, package / "LICENSE")
