"""Makes the nano base: a tokenizer from a word list, weights from synthetic documents; writes models/nano/.

Run: python -m scripts.train.pretrain -c nano_pretrain      (again, after Ctrl-C, to go on where it stopped)
Step k learns from documents that depend on the seed and k alone, so an interrupted run sees the same ones.
"""

import json
import os
import random
import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from potstill import cli, config, files, project
from potstill.config import Config
from potstill.nano import documents, material, supervision, tokenizer
from potstill.nano.supervision import Row
from potstill.progress import track
from potstill.stop import DATA, Stop

Count = Annotated[int, Field(gt=0)]


class Pretrain(Config):
    """configs/train/nano_pretrain.yaml"""

    seed: int
    out: str
    words: str
    state: str
    vocabulary: Annotated[int, Field(ge=1024)]
    model: dict[str, int]
    steps: Annotated[int, Field(ge=0)]
    tokens_per_step: Count
    max_length: Count
    warmup_steps: Count
    decay: Annotated[float, Field(gt=0, le=1)]
    muon_lr: float
    adamw_lr: float
    weight_decay: float
    copy_first_steps: int
    checkpoint_every: Count
    eval_documents: Count
    threads: Count
    bf16_autocast: bool


def main(argv: list[str] | None = None) -> int | None:
    arguments = cli.parser(__doc__, workload=False, config="nano_pretrain").parse_args(argv)
    settings = config.load(project.CONFIGS / "train" / f"{arguments.config}.yaml", Pretrain, arguments.override)
    out, state = Path(settings.out), Path(settings.state)
    with files.stage_lock(state, "pretrain"):
        words = material.read_words(Path(settings.words))
        pieces = tokenizer.train(tokenizer.weights(words), settings.vocabulary)
        written = tokenizer.write(pieces, out)
        encode = tokenizer.huggingface_tokenizer(pieces)
        model = new_model(settings, len(pieces))
        optimizers = new_optimizers(settings, model)
        train(settings, words, encode, model, optimizers, state)
        written += save_model(model, out)
        report = evaluate(settings, words, encode, model)
        files.write_json(state / "report.json", report)
        for kind, row in report.items():
            print(f"{kind:16} loss {row['loss']:.3f}  exact {row['exact']:.2f}")
    cli.done([*written, state / "report.json"], "fab demo")
    return None


def new_model(settings: Pretrain, vocabulary: int) -> Any:
    """A Gemma 3 with random weights drawn from the seed, in float32."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    shape = Gemma3TextConfig(
        vocab_size=vocabulary,
        pad_token_id=tokenizer.PAD,
        bos_token_id=tokenizer.BOS,
        eos_token_id=[tokenizer.EOS, tokenizer.END_OF_TURN],
        tie_word_embeddings=True,
        **settings.model,
    )
    return Gemma3ForCausalLM._from_config(shape, attn_implementation="sdpa")


def new_optimizers(settings: Pretrain, model: Any) -> list[Any]:
    """Muon for the hidden matrices, AdamW for embeddings and norms."""
    import torch

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed_tokens" in name]
    return [
        torch.optim.Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW(others, lr=settings.adamw_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(settings: Pretrain, words: Any, encode: Any, model: Any, optimizers: list[Any], state: Path) -> None:
    """The steps after the last checkpoint. An interruption loses those since the last one, and nothing else."""
    import torch

    mark = fingerprint(settings, training_rows(settings, words, encode, 0))
    first, seen = load_checkpoint(mark, model, optimizers, state) if settings.steps else (0, 0)
    losses: list[float] = []
    for step in track(range(first, settings.steps), "pretrain", settings.steps - first):
        factor = schedule(settings, step)
        for optimizer, rate in zip(optimizers, (settings.muon_lr, settings.adamw_lr), strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        rows = training_rows(settings, words, encode, step)
        supervised = sum(len(ids) - start for ids, start in rows)
        total = 0.0
        for ids, labels in supervision.batches(rows):
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16_autocast):
                logits, targets = supervision.supervised_logits(model, ids, labels)
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / supervised
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(total)
        seen += sum(len(ids) for ids, _ in rows)
        if (step + 1) % settings.checkpoint_every == 0:
            save_checkpoint(mark, model, optimizers, step + 1, seen, state)
            entry = {"step": step + 1, "tokens": seen, "loss": round(sum(losses) / len(losses), 4)}
            losses.clear()
            with open(state / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


def schedule(settings: Pretrain, step: int) -> float:
    """Learning-rate factor: linear warm-up, a plateau, a linear fall over the last `decay` of the steps."""
    left = (settings.steps - step) / max(1.0, settings.decay * settings.steps)
    return min(1.0, (step + 1) / settings.warmup_steps, left)


def training_rows(settings: Pretrain, words: Any, encode: Any, step: int) -> list[Row]:
    """The rows of one step, together about `tokens_per_step` tokens."""
    chance = random.Random(f"{settings.seed}/{step}")
    rows: list[Row] = []
    while sum(len(ids) for ids, _ in rows) < settings.tokens_per_step:
        copying = step < settings.copy_first_steps and chance.random() < 0.5
        kind = "copy_span" if copying else documents.pick_kind(chance)
        row = supervision.encode_row(documents.make(kind, chance, words), encode)
        if len(row.ids) <= settings.max_length:
            rows.append(row)
    return rows


def evaluate(settings: Pretrain, words: Any, encode: Any, model: Any) -> dict[str, dict[str, float]]:
    """Per kind of document, on unseen ones: mean loss per token, and the share a greedy decoder answers exactly."""
    report = {}
    for kind in track(documents.KINDS, "evaluate"):
        chance = random.Random(f"{settings.seed}/evaluate/{kind}")
        made = [documents.make(kind, chance, words) for _ in range(settings.eval_documents)]
        scores = [supervision.score_row(model, supervision.encode_row(document, encode)) for document in made]
        losses = [loss for row_losses, _ in scores for loss in row_losses]
        exact = sum(exact for _, exact in scores) / len(scores)
        report[kind] = {"loss": round(sum(losses) / len(losses), 4), "exact": round(exact, 3)}
    return report


def save_checkpoint(mark: str, model: Any, optimizers: list[Any], step: int, seen: int, state: Path) -> None:
    """Weights and optimizer moments in one safetensors file; its header says which step and settings they are of."""
    from safetensors.torch import save_file

    tensors = {name: value.detach() for name, value in model.named_parameters()}
    for index, optimizer in enumerate(optimizers):
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{number}.{name}": value for name, value in moments.items()}
    header = {"step": str(step), "tokens": str(seen), "settings": mark}
    temporary = state / ".checkpoint.safetensors"
    save_file(tensors, temporary, metadata=header)
    os.replace(temporary, state / "checkpoint.safetensors")


def load_checkpoint(mark: str, model: Any, optimizers: list[Any], state: Path) -> tuple[int, int]:
    """(steps done, tokens seen). Raises Stop 65 when the checkpoint is of other settings."""
    import torch
    from safetensors import safe_open

    path = state / "checkpoint.safetensors"
    if not path.is_file():
        return 0, 0
    with safe_open(path, "pt") as file:
        header = file.metadata()
        if header["settings"] != mark:
            raise Stop(f"{path} is of other settings or other words. Remove {state} to start anew.", DATA)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(tensors.pop(name))
    moments: dict[int, dict[int, dict[str, Any]]] = {0: {}, 1: {}}
    for key, value in tensors.items():
        _, index, number, name = key.split(".")
        moments[int(index)].setdefault(int(number), {})[name] = value
    for index, optimizer in enumerate(optimizers):
        optimizer.load_state_dict({"state": moments[index], "param_groups": optimizer.state_dict()["param_groups"]})
    return int(header["step"]), int(header["tokens"])


def fingerprint(settings: Pretrain, rows: list[Row]) -> str:
    """What a checkpoint depends on, `rows` being the first step's. On the plateau a run can be made longer."""
    free = {"steps", "decay", "checkpoint_every", "eval_documents", "threads", "words", "out", "state"}
    return files.sha256_text(settings.model_dump_json(exclude=free) + json.dumps(rows))


def save_model(model: Any, out: Path) -> list[Path]:
    """Writes config.json, generation_config.json and bf16 model.safetensors, each whole or not at all."""
    import copy

    import torch
    from transformers import GenerationConfig

    half = copy.deepcopy(model).to(torch.bfloat16)
    half.config.dtype = "bfloat16"
    half.generation_config = GenerationConfig(
        bos_token_id=tokenizer.BOS,
        pad_token_id=tokenizer.PAD,
        eos_token_id=[tokenizer.EOS, tokenizer.END_OF_TURN],
        do_sample=False,
    )
    written = []
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as folder:
        half.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            path.chmod(0o644)
            os.replace(path, out / path.name)
            written.append(out / path.name)
    return written


if __name__ == "__main__":
    cli.run(main)
