"""Answers a few val rows with the weights as they are in the midst of training, and scores them by rule.

Loss says how well a model foretells the reference's next token, not how often its own answer is right: the weights that
answer best are kept, and are the run's in the end. Answering draws no random number and changes no weight, so a run
with it has the losses of a run without.
"""

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from potstill import answers, grading, models, prompt, slots, workload
from potstill.checkpoints import forget_after
from potstill.files import sha256_text
from potstill.project import CONFIGS
from potstill.records import Example
from potstill.runs import ValGenerate
from potstill.workload import Workload

# folders beside the checkpoints: best-<step>
BEST = "best-"


class Scores(NamedTuple):
    """Shares from 0 to 1; `slot_accuracy` is over the slots that a rule decides."""

    slot_accuracy: float
    json_validity: float
    schema_validity: float


def sample(examples: Sequence[Example], rows: int, seed: int) -> list[Example]:
    """The same `rows` examples whatever their order; those of a slice are left out, as in a report's headline."""
    headline = [e for e in examples if not e.metadata.get("slice")] or list(examples)
    return sorted(headline, key=lambda e: sha256_text(f"{seed}:{e.id}"))[:rows]


def score(job: Workload, examples: Sequence[Example], outputs: Sequence[str]) -> Scores:
    """Scores answers as eval.judge does where no judge is asked; a slot that only a judge decides is left out."""
    levels = slots.load_levels(CONFIGS / "judge_slots.yaml")
    passed = scored = valid = fits = 0
    for example, output in zip(examples, outputs, strict=True):
        prediction = answers.uncounted(job, example, output, "training")
        valid += prediction.valid_json
        fits += prediction.valid_schema
        for grade in grading.grade(example, prediction, levels, job.levels):
            if grade.decided is not None and grade.decided.status == "scored":
                scored += 1
                passed += bool(grade.decided.passed)
    return Scores(passed / scored if scored else 0.0, valid / len(examples), fits / len(examples))


def twin(model: Any) -> Any:
    """What answers like the model as it is: on a CPU a copy in float32, adapters merged, for the lean decoder."""
    if model.device.type != "cpu":
        # the trainer puts it back into training mode at the next step
        return model.eval()
    found = copy.deepcopy(model)
    if hasattr(found, "merge_and_unload"):
        found = found.merge_and_unload()
    return found.float().eval()


class ValGeneration:
    """Asks, scores, and keeps the best weights; models/<run>/val.jsonl has one row per time.

    What was found before a run was interrupted is read back, up to the checkpoint's step.
    """

    def __init__(self, settings: ValGenerate, folder: Path, tokenizer: Any, examples: Sequence[Example], job: str):
        self.settings, self.folder, self.tokenizer, self.examples = settings, folder, tokenizer, examples
        self.job = workload.load(job)
        self.rows: list[dict[str, Any]] = []

    @property
    def path(self) -> Path:
        return self.folder / "val.jsonl"

    def take_up(self, step: int) -> None:
        """Goes back to what was known at `step`."""
        forget_after(self.path, step)
        self.reload()
        for path in (self.folder / "checkpoints").glob(f"{BEST}*"):
            if int(path.name.removeprefix(BEST)) > step:
                shutil.rmtree(path, ignore_errors=True)

    def reload(self) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        self.rows = [json.loads(line) for line in lines]

    def best(self) -> dict[str, Any] | None:
        """The row of the best slot accuracy; of equal ones the earliest."""
        return max(self.rows, key=lambda row: (row["slot_accuracy"], -row["step"]), default=None)

    def best_weights(self) -> Path | None:
        row = self.best()
        return self.folder / "checkpoints" / f"{BEST}{row['step']}" if row else None

    def exhausted(self) -> bool:
        """Whether `patience` times in a row brought nothing better."""
        row = self.best()
        if self.settings.patience is None or row is None:
            return False
        return len(self.rows) - 1 - self.rows.index(row) >= self.settings.patience

    def ask(self, model: Any, step: int) -> Scores:
        """Answers the sample and notes the scores."""
        own = twin(model)
        ids = [prompt.prompt_ids(e.system, e.prompt, self.tokenizer) for e in self.examples]
        most = max(self.job.settings.tasks[e.task].max_new_tokens for e in self.examples)
        outputs = [""] * len(ids)
        for found in models.generate(own, self.tokenizer, ids, most):
            outputs[found.index] = self.tokenizer.decode(found.ids, skip_special_tokens=True)
        scores = score(self.job, self.examples, outputs)
        self.rows.append({"step": step, **scores._asdict()})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        return scores

    def prune(self) -> None:
        """Leaves the best weights alone. Called after a checkpoint: until then the one before may need the others."""
        for path in (self.folder / "checkpoints").glob(f"{BEST}*"):
            if path != self.best_weights():
                shutil.rmtree(path, ignore_errors=True)


def put_back(model: Any, folder: Path) -> None:
    """Gives a model, or its adapter, the weights that were saved in `folder`."""
    from safetensors.torch import load_file

    adapter = folder / "adapter_model.safetensors"
    if adapter.is_file():
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, load_file(adapter))
        return
    # tied weights are saved once
    missing = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"lm_head.weight"}:
        raise ValueError(f"{folder} holds other weights than the model has")
