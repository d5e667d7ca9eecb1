import math
import mmap
from pathlib import Path

import pytest
import tiny_gemma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import models, parity_engines, parity_forced, parity_slots, prompt, runs, workload
from potstill.memory import Peak
from potstill.records import Example, Prediction, SlotSpec

RUN = "batfit-tiny"
ODDS = st.lists(st.floats(-8, 8), min_size=6, max_size=6).map(
    lambda row: torch.log_softmax(torch.tensor(row, dtype=torch.float64), -1)
)


@settings(max_examples=200, deadline=None)
@given(expected=ODDS, own=ODDS, shown=st.integers(1, 5))
def test_probabilities_of_some_tokens_never_show_more_divergence_than_all(expected, own, shown) -> None:
    whole = parity_forced.divergence(expected, own)
    wanted = sum(math.exp(p) * (p - q) for p, q in zip(expected.tolist(), own.tolist(), strict=True))
    assert whole == pytest.approx(wanted, abs=1e-8)
    some = own.topk(shown).indices
    part = parity_forced.divergence(expected[some], own[some])
    assert 0 <= part <= whole + 1e-8
    assert parity_forced.divergence(own[some], own[some]) == pytest.approx(0, abs=1e-6)


def test_the_reference_is_the_merged_model_along_an_answer(copied) -> None:
    reference = parity_forced.Reference(RUN)
    model, tokenizer = models.load_merged(RUN, torch.float32)
    asked = prompt.prompt_ids(tiny_gemma.SYSTEM, "bat, 2.5 lb", tokenizer)
    answer = [20, 33, 41]
    with torch.inference_mode():
        logits = model(torch.tensor([[*asked, *answer]])).logits[0, len(asked) - 1 :]
    wanted = torch.log_softmax(logits, -1)
    found = reference.expects(asked, answer)
    assert found.shape == (4, model.config.vocab_size)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    assert reference.expects(asked, answer) is found
    gap = reference.gap(asked, answer, 1, 50)
    assert gap == pytest.approx((wanted[1, 33] - wanted[1, 50]).item(), abs=1e-3)
    assert reference.gap(asked, answer, 3, 50) is None
    assert reference.gap(asked, answer, 1, None) is None


def test_the_base_of_a_run_is_not_asked_before_it_is_needed(copied) -> None:
    reference = parity_forced.Reference(RUN)
    assert "model" not in vars(reference)
    assert runs.read(RUN).run == RUN


def row(id: str, value: str, text: str = "x") -> Prediction:
    return Prediction(
        **{"id": id, "task": "t1_parse", "output": f'{{"a": "{value}", "b": "{text}"}}', "repaired": False},
        **{"parsed": {"a": value, "b": text}, "valid_json": True, "valid_schema": True, "latency_ms": 1.0},
        **{"prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop", "backend": "b"},
    )


def test_slots_count_where_a_rule_decides_on_both_sides() -> None:
    slots = {"a": SlotSpec(level="exact"), "b": SlotSpec(level="llm_similarity")}
    examples = [
        Example(
            **{"id": f"r{i}", "task": "t1_parse", "system": "", "prompt": "p", "response": '{"a":"1","b":"x"}'},
            **{"slots": slots, "metadata": {}, "schema_version": "1", "source_sha256": "0" * 64},
        )
        for i in range(4)
    ]
    grader = parity_slots.Grader(workload.load("batfit"), examples)
    merged = [row(f"r{i}", "1") for i in range(4)]
    own = [row("r0", "1"), row("r1", "2"), row("r2", "1", text="something else"), row("r3", "1")]
    found = grader.compare(list(zip(own, merged, strict=True)))
    # r2's b needs the judge; r1's a is wrong
    assert (found.scored, found.left_out) == (7, 1)
    assert found.merged == 1.0
    assert found.artifact == pytest.approx(6 / 7)
    assert found.drop == pytest.approx(1 / 7)
    assert grader.compare([(p, p) for p in own]).drop == 0


def test_each_artifact_has_an_engine_of_its_own() -> None:
    assert parity_engines.name_of("bf16", "transformers") == "bf16"
    assert parity_engines.name_of("bf16", "vllm") == "bf16-vllm"
    assert parity_engines.name_of("rtn-w4a16", "vllm") == "rtn-w4a16"
    assert parity_engines.name_of("gguf-q4_k_m", "ollama") == "gguf-q4_k_m-ollama"


def test_an_engine_that_is_not_there_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_VLLM_ENV", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "setup_env.sh vllm" in (parity_engines.missing("vllm", "bf16") or "")
    assert "ollama.com" in (parity_engines.missing("ollama", "gguf-f16") or "")
    assert parity_engines.missing("llama.cpp", "gguf-f16") is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    (tmp_path / "potstill-stamp").write_text("cpu 0123\n")
    assert parity_engines.missing("vllm", "rtn-w4a16") is None
    assert "on a GPU host" in (parity_engines.missing("vllm", "rtn-w8a16") or "")
    (tmp_path / "potstill-stamp").write_text("cuda 0123\n")
    assert parity_engines.missing("vllm", "rtn-w8a16") is None


def test_memory_taken_for_a_while_is_the_peak() -> None:
    # pages of its own: a list would take what an earlier test gave back
    with Peak() as peak, mmap.mmap(-1, 64 * 2**20) as taken:
        for at in range(0, len(taken), 4096):
            taken[at] = 1
    # None where the kernel does not say
    assert peak.bytes is None or 60 * 2**20 < peak.bytes < 200 * 2**20
