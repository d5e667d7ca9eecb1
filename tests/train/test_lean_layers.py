"""The layers that train an adapter on a CPU give transformers' numbers and gradients, from less memory."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from potstill import config, estimate, training
from potstill.lean import attention, layers
from potstill.runs import TrainConfig
from projects import REPO

SHAPE = dict(
    vocab_size=300, hidden_size=48, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4, head_dim=16,
    query_pre_attn_scalar=16, max_position_embeddings=512,
)  # fmt: skip
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PAD = 0


def models(window: int = 8, kv_heads: int = 2, targets: tuple[str, ...] = ALL) -> tuple[torch.nn.Module, ...]:
    """The same model twice: as PEFT has it, and with lean layers."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(sliding_window=window, num_key_value_heads=kv_heads, **SHAPE)
    base = Gemma3ForCausalLM._from_config(config, attn_implementation="eager")
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=list(targets)))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    lean = copy.deepcopy(model)
    layers.install(lean)
    return model.train(), lean.train()


def batch(lengths: list[int]) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 300, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(sum(lengths)))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = ids.where(mask.bool(), PAD)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask.bool(), -100)}


def learn(model: torch.nn.Module, rows: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss, and the gradients of the adapter."""
    model.zero_grad()
    loss = model(**rows, use_cache=False).loss
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found, wanted, tolerance: float) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=tolerance)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert float((found[1][name] - gradient).norm()) <= tolerance * float(gradient.norm()) + 1e-7, name


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=3),
    window=st.integers(1, 70),
    kv_heads=st.sampled_from((1, 2, 4)),
    block=st.sampled_from((1, 7, 16, 128)),
)
def test_loss_and_gradients_are_those_of_transformers_and_peft(lengths, window, kv_heads, block):
    plain, lean = models(window, kv_heads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK", block)
        assert_equal(learn(lean, batch(lengths)), learn(plain, batch(lengths)), 1e-4)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("gate_proj", "o_proj"), ("down_proj",)])
def test_an_adapter_may_leave_matrices_out(targets):
    plain, lean = models(targets=targets)
    assert_equal(learn(lean, batch([20, 31])), learn(plain, batch([20, 31])), 1e-4)


def test_half_precision_differs_by_its_rounding_only():
    plain, lean = models()
    exact = learn(plain, batch([40]))
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(learn(lean, batch([40])), exact, 0.1)


def test_what_is_made_again_changes_nothing():
    _, lean = models()
    rows = batch([33, 48])
    wanted = learn(lean, rows)
    costly, wide = (values * 4 * 96 for values in kept_values())
    found = set()
    for some in range(7):
        for whole in range(some + 1):
            layers.keep(lean, some * costly + whole * wide, 4, 96)
            kept = [layer.kept for layer in lean.get_base_model().model.layers]
            found.add(tuple(kept))
            assert kept == sorted(kept)
            assert sum(one >= layers.Keep.COSTLY for one in kept) >= some
            loss, gradients = learn(lean, rows)
            assert loss == wanted[0]
            assert all(torch.equal(gradient, wanted[1][name]) for name, gradient in gradients.items())
    assert {kept for every in found for kept in every} == set(layers.Keep)


def kept_values() -> tuple[int, int]:
    return estimate.kept_values(48, 96, 4, 2, 16)


def saved_bytes(model: torch.nn.Module, rows: dict[str, torch.Tensor]) -> int:
    """What autograd keeps for the backward pass of the layers; weights are not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        states = model.get_base_model().model(rows["input_ids"], rows["attention_mask"], use_cache=False)
    del states
    return sum(kept.values())


@pytest.mark.parametrize("kept", layers.Keep)
def test_what_is_kept_is_what_the_estimate_counts(kept):
    plain, lean = models()
    rows = batch([256])
    for layer in lean.get_base_model().model.layers:
        layer.kept = kept
    costly, wide = kept_values()
    values = 48 + (costly if kept >= layers.Keep.COSTLY else 0) + (wide if kept == layers.Keep.ALL else 0)
    # an adapter's small products come on top, and what the norm behind the layers was given
    assert saved_bytes(lean, rows) == pytest.approx(256 * 4 * (6 * values + 48), rel=0.2)
    assert saved_bytes(lean, rows) < saved_bytes(plain, rows) / 3


def test_answers_are_written_as_transformers_writes_them():
    plain, lean = models()
    rows = batch([12, 12])
    rows["input_ids"][0, :5] = PAD
    rows["attention_mask"][0, :5] = 0
    words = dict(max_new_tokens=20, do_sample=False, pad_token_id=PAD)
    inputs = {name: rows[name] for name in ("input_ids", "attention_mask")}
    wanted, found = (model.eval().generate(**inputs, **words) for model in (plain, lean))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    "other", [{"attention_bias": True}, {"use_bidirectional_attention": True}, {"attn_logit_softcapping": 30.0}]
)
def test_what_the_layers_cannot_compute_is_left_to_transformers(other):
    wanted = config.load(REPO / "configs/train/nano-lora.yaml", TrainConfig)
    shape = {"sliding_window": 8, "num_key_value_heads": 2, **SHAPE}
    models = [
        Gemma3ForCausalLM._from_config(Gemma3TextConfig(**shape, **keys), attn_implementation="eager")
        for keys in ({}, other)
    ]
    assert [training.lean(model, wanted) for model in models] == [True, False]
