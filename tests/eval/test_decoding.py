"""potstill/gemma3.py and decoding.py against transformers' own generate, on models with random weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from potstill import decoding, gemma3, models

VOCABULARY = 97
# many, so that answers end at different times
STOPS = {1, 6, *range(85, VOCABULARY)}


def model(seed: int, *, layers: int = 3, heads: int = 4, kv_heads: int = 1, window: int = 8, **changes: object):
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=window,
        layer_types=["sliding_attention"] * (layers - 1) + ["full_attention"],
        max_position_embeddings=256,
        pad_token_id=0,
        # weights as large as these give answers that differ from prompt to prompt, and no near ties
        initializer_range=0.25,
        **changes,
    )
    torch.manual_seed(seed)
    made = Gemma3ForCausalLM._from_config(config, attn_implementation="eager").eval()
    for name, parameter in made.named_parameters():
        if "norm" in name:
            parameter.data.normal_(0, 0.2)
    return made


def reference(made: Gemma3ForCausalLM, prompts: list[list[int]], most: int) -> list[list[int]]:
    """One prompt at a time, so that nothing is padded."""
    return [cut(models.by_transformers(made, [prompt], most, STOPS, [None])[0]) for prompt in prompts]


def cut(ids: list[int]) -> list[int]:
    ends = [at for at, token in enumerate(ids) if token in STOPS]
    return ids[: ends[0] + 1] if ends else ids


PROMPTS = st.lists(st.lists(st.integers(7, VOCABULARY - 1), min_size=1, max_size=40), min_size=1, max_size=7)


@settings(max_examples=25)
@given(seed=st.integers(0, 5), prompts=PROMPTS, most=st.integers(1, 24), kv_heads=st.sampled_from((1, 2, 4)))
def test_answers_are_those_of_transformers(seed: int, prompts: list[list[int]], most: int, kv_heads: int):
    made = model(seed, kv_heads=kv_heads)
    wanted = reference(made, prompts, most)
    assert decoding.answer(made, prompts, most, STOPS, [None] * len(prompts)) == wanted


def test_hidden_states_are_equal_beyond_the_window_and_with_rope_scaling():
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    made = model(3, window=8, rope_parameters=rope)
    ids = torch.randint(7, VOCABULARY, (2, 50), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = made.model(ids).last_hidden_state
        decoder = gemma3.Decoder(made)
        cache = decoder.new_cache(2, 60)
        # in pieces, as an answer grows
        parts = [
            decoder.forward(ids[:, a:b], torch.arange(a, b).expand(2, -1), cache)
            for a, b in ((0, 30), (30, 31), (31, 50))
        ]
        found = decoder.rms(torch.cat(parts, dim=1), decoder.norm)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


def test_a_guess_that_is_wrong_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    made = model(1)
    prompts = [[7, 8, 9, 10] * 6, [11, 12] * 9]
    wanted = reference(made, prompts, 20)
    monkeypatch.setattr(decoding.Row, "guess", lambda row, count: [13, 14, 15][:count])
    assert decoding.answer(made, prompts, 20, STOPS, [None] * 2) == wanted


def test_right_guesses_save_steps(monkeypatch: pytest.MonkeyPatch):
    made = model(2)
    wanted = reference(made, [[7, 8, 9]], 24)
    steps = []
    forward = gemma3.Decoder.forward
    monkeypatch.setattr(gemma3.Decoder, "forward", lambda *given: steps.append(1) or forward(*given))
    # what the model is about to say stands in the prompt already, as in a job that copies
    told = wanted[0] * 3
    monkeypatch.setattr(decoding.Row, "guess", lambda row, count: told[len(row.tokens) - row.start :][:count])
    assert decoding.answer(made, [[7, 8, 9]], 24, STOPS, [None]) == wanted
    assert len(steps) <= 2 + len(wanted[0]) / decoding.MOST_TRIED


def test_rows_that_ended_leave_the_cache(monkeypatch: pytest.MonkeyPatch):
    made = model(4)
    rows = []
    forward = gemma3.Decoder.forward
    monkeypatch.setattr(gemma3.Decoder, "forward", lambda *given: rows.append(len(given[1])) or forward(*given))
    prompts = [[7 + i, 9, 11 + i] for i in range(8)]
    answers = reference(made, prompts, 30)
    lengths = sorted(map(len, answers))
    decoding.generate(gemma3.Decoder(made), prompts, 30, STOPS, [None] * 8)
    assert lengths[0] < lengths[-1], "the answers should end at different times"
    assert rows[-1] < len(prompts)


@pytest.mark.parametrize(
    "changes", [{"attention_bias": True}, {"final_logit_softcapping": 30.0}, {"hidden_activation": "silu"}]
)
def test_other_models_are_left_to_transformers(changes: dict[str, object]):
    made = model(5, **changes)
    assert not gemma3.supports(made)


def test_what_is_supported():
    assert gemma3.supports(model(5))


def test_the_models_own_parameters_stay_what_they_were():
    made = model(6)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    gemma3.Decoder(made)
    after = made.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
