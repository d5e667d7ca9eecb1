"""Coach: an athlete's form, plan and message -> a change to the plan, a weekly plan, or a short answer.

The model decides, code does the rest: build_context shows it an athlete of a DuckDB as text, and apply checks its
decision against the safety rules and writes it to the plan, or refuses with every reason. generate writes exemplars
from a seed with the policy of coach_policy.py. python -m scripts.dataset.samples -w coach writes the committed samples.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from potstill import corpus, project
from potstill.files import canonical_json, write_text
from potstill.records import Exemplar
from potstill.workloads import coach_load, coach_writer
from potstill.workloads.coach_levels import LEVELS
from potstill.workloads.coach_state import Modification, Talk, Week
from potstill.workloads.coach_store import Applied, Refused, apply, apply_week, build_context, create

__all__ = ["LEVELS", "SCHEMAS", "Applied", "Refused", "apply", "apply_week", "build_context", "convert", "create"]
__all__ += ["generate", "make_samples"]

SCHEMA_VERSION = "1"
SCHEMAS = {"plan_modification": Modification, "weekly_plan": Week, "conversation": Talk}
# rows of each task in the committed samples, for each family
ROWS_PER_FAMILY = {"plan_modification": 150, "weekly_plan": 60, "conversation": 45}


def convert(samples: Path) -> Iterator[Exemplar]:
    """Yields the exemplars of a samples folder; potstill/corpus.py says what it holds and what is raised."""
    return corpus.read(samples, SCHEMAS, SCHEMA_VERSION)


def generate(count: int, seed: int) -> Iterator[Exemplar]:
    """Yields `count` exemplars, each from a seed of its own: the first ones of a longer list are those of a shorter."""
    folder = project.SAMPLES / "coach"
    book = coach_writer.load(folder / "phrases.yaml")
    rules = coach_load.load_rules(folder / "rules.yaml")
    families = sorted(book.families)
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        task = rng.choices(list(ROWS_PER_FAMILY), list(ROWS_PER_FAMILY.values()))[0]
        row = coach_writer.write(book, task, rng.choice(families), rules, rng)
        yield Exemplar(
            id=f"coach-{seed}-{number}",
            task=task,
            prompt_text=row.prompt,
            response_strong=canonical_json(row.answer.model_dump(mode="json")),
            metadata={"group": row.family, "language": "en", "schema_version": SCHEMA_VERSION},
        )


def make_samples(out: Path, seed: int) -> list[Path]:
    """Writes the rows of `out`; its *.yaml and *.txt are written by hand. The same seed gives the same bytes."""
    book = coach_writer.load(out / "phrases.yaml")
    rules = coach_load.load_rules(out / "rules.yaml")
    written = []
    for task, count in ROWS_PER_FAMILY.items():
        rows = []
        for family in sorted(book.families):
            rng = random.Random(f"{seed} {task} {family}")
            for _ in range(count):
                row = coach_writer.write(book, task, family, rules, rng)
                rows.append({"input": row.prompt, "output": row.answer.model_dump(mode="json"), "group": family})
        random.Random(f"{seed} {task}").shuffle(rows)
        written.append(out / task / "rows.jsonl")
        write_text(written[-1], "".join(canonical_json(row) + "\n" for row in rows))
    return written
