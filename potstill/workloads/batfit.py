"""BatFit: cricket talk -> the context KERN, the bat engine, works from, and which question to ask next.

Tasks: t1_parse reads talk, t2_repair mends a broken or non-conforming answer. Both answer with one `Answer` and never
with bat geometry (batfit_schema.py). `convert` reads data/samples/batfit/, or what the options or BATFIT_DATA_DIR,
BATFIT_MANIFEST and BATFIT_SYSTEM_PROMPT name; python -m scripts.dataset.samples -w batfit writes the samples
(batfit_samples.py). Which question is asked, before and after KERN's result, batfit_policy.py decides.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from potstill import corpus, workload
from potstill.records import Exemplar
from potstill.workloads import batfit_samples, batfit_schema

SCHEMA_VERSION = batfit_schema.SCHEMA_VERSION
SCHEMAS = batfit_schema.SCHEMAS
make_samples = batfit_samples.make_samples
# options of dataset.convert that are this workload's own: name -> (type, help)
CONVERT_OPTIONS: dict[str, tuple[type, str]] = {
    "data_dir": (Path, "another folder like data/samples/batfit/ (default: BATFIT_DATA_DIR)"),
    "manifest": (Path, "another manifest; its paths are relative to the data dir (default: BATFIT_MANIFEST)"),
    "system_prompt": (Path, "a file with another system text for the rows (default: BATFIT_SYSTEM_PROMPT)"),
    "tenant": (str, "the global tasks and this tenant alone; none: the global tasks alone (default: every tenant)"),
}


def convert(
    samples: Path,
    *,
    data_dir: Path | None = None,
    manifest: Path | None = None,
    system_prompt: Path | None = None,
    tenant: str | None = None,
) -> Iterator[Exemplar]:
    """Yields the exemplars of a samples folder; potstill/corpus.py says what it holds and what is raised.

    An option comes before its environment variable. What is not the default is said on stderr. Raises Stop 2 for an
    override that is not there and for a tenant the manifest lacks.
    """
    folder = workload.override("batfit", "data_dir", data_dir, folder=True) or samples
    listed = workload.override("batfit", "manifest", manifest)
    system = workload.override("batfit", "system_prompt", system_prompt)
    chosen = {"data dir": folder if folder != samples else None, "manifest": listed, "system text": system}
    said = [f"{what} {path}" for what, path in chosen.items() if path]
    said += [f"tenant {tenant}"] if tenant else []
    if said:
        print(f"batfit: {', '.join(said)}", file=sys.stderr)
    return corpus.read(folder, SCHEMAS, SCHEMA_VERSION, manifest=listed, system_prompt=system, tenant=tenant)
