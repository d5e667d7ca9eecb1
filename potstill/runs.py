"""What is known of one training run: models/<run>/run.json and config.yaml, written by train.prepare."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from potstill import config
from potstill.config import Config
from potstill.project import CONFIGS, run_folder
from potstill.records import Record, parse_row
from potstill.snapshots import Snapshot
from potstill.stop import DATA, Stop


class Base(Record):
    """`path` is the local folder, downloaded by train.prepare when `name` is a hub id; `sha256` that of its weights."""

    name: str
    path: str
    revision: str | None
    sha256: str


class Vocabulary(Record):
    """How the base's vocabulary was trimmed: `base` is then a folder of the run, and `original` what it was made from.

    The new id of a token is the position of its original id in the base's vocabulary.json; `kept_sha256` is of that
    list as compact JSON. Counts are of pieces: `used` occur in the train rows, `reserve` were added by frequency.
    """

    original: str
    original_sha256: str
    pieces_before: int
    pieces_after: int
    used: int
    reserve: int
    kept_sha256: str


class RunRecord(Record):
    run: str
    workload: str
    created_at: str
    train_config: str
    mode: Literal["full", "lora", "qlora"]
    base: Base
    snapshot: str
    snapshots: dict[str, Snapshot]
    git_commit: str | None
    git_dirty: bool
    lock_sha256: str | None
    seed: int
    device: str
    # not written where nothing was trimmed: records and manifests of such runs stay as they were, byte by byte
    vocabulary: Annotated[Vocabulary | None, Field(exclude_if=lambda value: value is None)] = None


class Lora(Config):
    """PEFT's LoraConfig keys."""

    r: Annotated[int, Field(gt=0)]
    lora_alpha: Annotated[int, Field(gt=0)]
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: list[str]


class Sft(Config):
    """TRL's SFTConfig keys; what is not here keeps TRL's default."""

    max_length: Annotated[int, Field(gt=0)]
    learning_rate: Annotated[float, Field(gt=0)]
    num_train_epochs: Annotated[float, Field(gt=0)]
    per_device_train_batch_size: Annotated[int, Field(gt=0)]
    per_device_eval_batch_size: Annotated[int, Field(gt=0)] = 32
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 1
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    # one of TRL's, or `muon`: potstill/muon.py
    optim: str = "adamw_torch"
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    max_steps: int = -1
    logging_steps: Annotated[int, Field(gt=0)] = 10
    save_steps: Annotated[int, Field(gt=0)] = 100
    # autocast; Unsloth turns it off on a CPU that would only emulate it
    bf16: bool = False
    gradient_checkpointing: bool = False
    # beside MLflow, which always has the numbers; wandb is not in the lock and sends them away
    report_to: Literal["none", "wandb"] = "none"
    seed: int = 0


class LossWeights(Config):
    """How much a token of the answer counts, by what it writes: potstill/loss_weights.py."""

    structure: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    keys: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    values: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class ValGenerate(Config):
    """Answers `rows` val rows after every `every` steps; the weights that answered best become the run's.

    With `patience`, training ends after so many times without a better one: potstill/val_generation.py.
    """

    rows: Annotated[int, Field(gt=0)] = 64
    every: Annotated[int, Field(gt=0)] = 100
    patience: Annotated[int | None, Field(gt=0)] = None


class TrainConfig(Config):
    """configs/train/<name>.yaml: one kind of run."""

    # `nano`, a local folder, or a Hugging Face id
    base: str
    revision: str | None = None
    # of the base: `keep` it whole, `trim` it to the train rows, or trim it where it has 65,536 pieces or more (`auto`)
    vocabulary: Literal["keep", "trim", "auto"] = "auto"
    # pieces that no train row has and that are kept all the same, the most frequent first
    vocabulary_reserve: Annotated[int, Field(ge=0)] = 4096
    # qlora: the base in 4 bits while an adapter is trained; needs a GPU
    mode: Literal["full", "lora", "qlora"]
    # of the weights while they are trained
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: Lora | None = None
    loss_weights: LossWeights | None = None
    val_generate: ValGenerate | None = None
    sft: Sft


def train_config(name: str, overrides: list[str] | tuple[str, ...] = ()) -> TrainConfig:
    path = CONFIGS / "train" / f"{name}.yaml"
    return checked(config.load(path, TrainConfig, overrides), path)


def checked(settings: TrainConfig, path: Path) -> TrainConfig:
    """The settings, or Stop 2 where two of them contradict each other."""
    if (settings.mode == "full") == (settings.lora is not None):
        raise Stop(f"{path}: mode {settings.mode!r} {'has no' if settings.mode == 'full' else 'needs'} section 'lora'")
    return settings


def resolved_config(run: str) -> TrainConfig:
    return config.load(run_folder(run) / "config.yaml", TrainConfig)


def read(run: str) -> RunRecord:
    path = run_folder(run) / "run.json"
    if not path.is_file():
        raise Stop(f"{path} is not there. Run fab train.prepare.", DATA)
    return parse_row(path.read_text(encoding="utf-8"), RunRecord, str(path), "Run fab train.prepare again.")


def is_trained(run: str) -> bool:
    # written last, so its existence means that the weights are complete
    return (run_folder(run) / "metrics.json").is_file()


def require_trained(run: str) -> RunRecord:
    record = read(run)
    if not is_trained(run):
        raise Stop(f"models/{run} is not trained yet. Run fab train.run -r {run}.", DATA)
    return record
