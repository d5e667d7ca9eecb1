"""Learning from the two halves of a batch at once, or piece by piece, gives the gradient of the whole batch."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from potstill.batches import in_halves, in_pieces
from potstill.rows import IGNORED

NANO = Path(__file__).resolve().parents[2] / "models/nano"


def rows(count: int) -> list[dict[str, torch.Tensor]]:
    """Rows of one length, of which very different shares are trained on."""
    made = []
    draw = torch.Generator().manual_seed(7)
    for number in range(count):
        ids = torch.randint(7, 4096, (24,), generator=draw)
        labels = ids.clone()
        labels[: 4 * number] = IGNORED
        made.append({"input_ids": ids, "labels": labels})
    return made


def padded_rows() -> list[dict[str, torch.Tensor]]:
    """Rows of five lengths, of which at most two fit into a piece of 80 tokens."""
    lengths = torch.tensor([40, 37, 35, 24, 20])
    ids = torch.randint(7, 4096, (5, 40), generator=torch.Generator().manual_seed(7))
    inside = torch.arange(40) < lengths[:, None]
    return [
        {"input_ids": row, "labels": row.where(mask, IGNORED), "attention_mask": mask.long()}
        for row, mask in zip(ids, inside, strict=True)
    ]


def test_pieces_have_the_gradient_of_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("potstill.batches.PIECE", 80)
    told: list[int] = []
    whole_loss, whole = gradients(Trainer, tmp_path, 5, padded_rows())
    loss, pieced = gradients(in_pieces(Trainer, told.append), tmp_path, 5, padded_rows())
    assert sorted(told) == [48, 48, 48, 64]
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for one, other in zip(whole, pieced, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def gradients(trainer_class, tmp_path, count: int, dataset=None) -> tuple[float, list[torch.Tensor]]:
    model = AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32, attn_implementation="eager")
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", per_device_train_batch_size=count, bf16=False
    )
    trainer = trainer_class(model=model, args=arguments, train_dataset=dataset or rows(count))
    batches, items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    # what the trainer does before its first step
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.training_step(model, batches[0], items)
    return float(loss), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_gradient_is_that_of_the_whole_batch(tmp_path, count):
    whole_loss, whole = gradients(Trainer, tmp_path, count)
    loss, halved = gradients(in_halves(Trainer), tmp_path, count)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for one, other in zip(whole, halved, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_the_order_in_which_the_halves_end_does_not_matter(tmp_path):
    first_loss, first = gradients(in_halves(Trainer), tmp_path, 4)
    for _ in range(3):
        loss, again = gradients(in_halves(Trainer), tmp_path, 4)
        assert loss == first_loss
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
