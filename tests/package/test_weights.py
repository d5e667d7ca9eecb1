import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from potstill import models, weights
from potstill.stop import Stop

DOWN = "model.layers.2.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def model(tiny: Path) -> torch.nn.Module:
    return models.load_folder(tiny, torch.float32)[0]


def planted(tiny: Path, tmp_path: Path, value: float) -> Path:
    """A copy of the model folder with one value changed."""
    folder = tmp_path / "planted"
    shutil.copytree(tiny, folder)
    tensors = load_file(tiny / "model.safetensors")
    tensors[DOWN][3, 5] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_model_and_its_folder_are_measured_alike(tiny: Path, model: torch.nn.Module) -> None:
    stored = load_file(tiny / "model.safetensors")
    found = weights.check_range(tiny)
    assert found.values == sum(t.numel() for t in stored.values())
    assert found.largest == max(float(t.abs().max()) for t in stored.values())
    assert found.largest == float(stored[found.tensor].abs().max())
    # the head is the embedding, which a loaded model names twice
    loaded = weights.check_range(model)
    assert loaded.values == found.values + stored["model.embed_tokens.weight"].numel()
    assert (loaded.largest, loaded.tensor) == (found.largest, found.tensor)


@pytest.mark.parametrize(("value", "said"), [(65520.0, "65520"), (-1e38, "1e\\+38"), (float("nan"), "no number")])
def test_a_weight_beyond_float16_is_refused_by_name(tiny: Path, tmp_path: Path, value: float, said: str) -> None:
    with pytest.raises(Stop, match=f"{DOWN} .*{said}.*bf16") as stopped:
        weights.check_range(planted(tiny, tmp_path, value))
    assert stopped.value.code == 65


@pytest.mark.parametrize(
    ("value", "zeroed", "subnormal"),
    # 65519 is rounded to 65504; 2**-25 is half way to the smallest subnormal, and ties go to the even 0
    [(65519.0, 0, 0), (2.0**-14, 0, 0), (2.0**-15, 0, 1), (2.0**-24, 0, 1), (2.0**-25, 1, 0), (0.0, 0, 0)],
)
def test_what_float16_makes_of_a_value(value: float, zeroed: int, subnormal: int) -> None:
    class One:
        def state_dict(self) -> dict[str, torch.Tensor]:
            return {"one": torch.tensor([value, 1.0]), "ids": torch.tensor([70_000])}

    found = weights.check_range(One())
    assert (found.zeroed, found.subnormal, found.values) == (zeroed, subnormal, 2)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_refused_is_what_the_cast_makes_infinite(value: float) -> None:
    class One:
        def state_dict(self) -> dict[str, torch.Tensor]:
            return {"one": torch.tensor([value], dtype=torch.float32)}

    if torch.tensor([value]).half().isinf().any():
        with pytest.raises(Stop, match="tensor one "):
            weights.check_range(One())
    else:
        assert weights.check_range(One()).largest == abs(value)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(Stop, match=r"has no \*\.safetensors"):
        weights.check_range(tmp_path)


def test_the_largest_activation_has_a_name(model: torch.nn.Module) -> None:
    prompts = [[2, 30, 31, 32], [2, 40]]
    found = weights.check_activations(model, prompts)
    module = model.get_submodule(found.module)
    seen: list[float] = []
    handle = module.register_forward_hook(
        lambda _m, inputs, output: seen.extend(float(t.abs().max()) for t in (*inputs, output))
    )
    with torch.inference_mode():
        for ids in prompts:
            model(input_ids=torch.tensor([ids]), use_cache=False)
    handle.remove()
    assert max(seen) == found.largest
    assert not any(module._forward_hooks for module in model.modules())


def test_an_activation_beyond_float16_is_refused_by_name(tiny: Path) -> None:
    model, _ = models.load_folder(tiny, torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight *= 1e5
    # every weight fits, and what they make of a prompt does not
    assert weights.check_range(model).largest < weights.LARGEST
    with pytest.raises(Stop, match=r"model\.layers\.1\.mlp\.down_proj reach .*bf16") as stopped:
        weights.check_activations(model, [[2, 30, 31, 32]])
    assert stopped.value.code == 65
    assert not any(module._forward_hooks for module in model.modules())


def test_no_prompts_measure_nothing(model: torch.nn.Module) -> None:
    with pytest.raises(Stop, match="no prompts"):
        weights.check_activations(model, [])
