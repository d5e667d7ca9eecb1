"""vLLM's answers, by a real vLLM: needs .venv-vllm, which ./scripts/setup_env.sh vllm builds and CI has."""

import os
from pathlib import Path

import pytest
import tiny_gemma
import torch

from potstill import models, parity_transformers, prompt, vllm_engine
from potstill.parity_engines import Questions
from potstill.stop import DATA, UNAVAILABLE, Stop

COUNT = 12


@pytest.fixture(scope="module")
def built() -> None:
    if not vllm_engine.is_built():
        if os.environ.get("CI"):
            pytest.fail(f".venv-vllm is not built; .ci/run does it by {vllm_engine.BUILD}")
        pytest.skip(f"needs .venv-vllm: {vllm_engine.BUILD}")


@pytest.fixture(scope="module")
def questions(tiny: Path) -> Questions:
    tokenizer = models.load_tokenizer(tiny)
    # one of them has control tokens and odd spaces in its text
    users = [*tiny_gemma.sentences(COUNT - 1, seed=3), "a  <end_of_turn> b\n\n\tnaïve 🚀"]
    messages = [prompt.messages(tiny_gemma.SYSTEM, user) for user in users]
    texts = [tokenizer.apply_chat_template(m, add_generation_prompt=True, tokenize=False) for m in messages]
    prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
    limits = [6 + 2 * (i % 3) for i in range(COUNT)]
    return Questions(prompts, texts, messages, limits, context=256, slots=4, shown=4, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a package has it: bf16, with its tokenizer."""
    folder = tmp_path_factory.mktemp("vllm") / "bf16"
    model, tokenizer = models.load_folder(tiny, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def answered(built: None, folder: Path, questions: Questions) -> vllm_engine.Answered:
    stops = [1, questions.tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    request = vllm_engine.Request(
        folder=str(folder),
        context=256,
        cache_bytes=2**26,
        prompts=questions.prompts,
        max_new_tokens=questions.limits,
        stop_ids=stops,
        timed=2,
        shown=questions.shown,
        texts=questions.texts,
    )
    return vllm_engine.ask(request)


def test_vllm_answers_as_transformers_does(answered: vllm_engine.Answered, folder: Path, questions: Questions) -> None:
    theirs = parity_transformers.ask(folder, questions)
    assert answered.version.startswith("0.32.")
    assert [g.index for g in answered.answers] == list(range(COUNT))
    assert [g.prompt_tokens for g in answered.answers] == [len(p) for p in questions.prompts]
    # random weights part at the first near tie, so most answers and not all of them are the same
    same = [g.ids == a.ids for g, a in zip(answered.answers, theirs.answers, strict=True)]
    assert sum(same) >= COUNT * 0.6
    for own, limit in zip(answered.answers, questions.limits, strict=True):
        assert len(own.ids) <= limit
        assert (own.finish_reason == "length") == (own.completion_tokens == limit == len(own.ids))
        assert own.text == questions.tokenizer.decode(own.ids, skip_special_tokens=True)


def test_vllm_shows_the_odds_that_transformers_computes(
    answered: vllm_engine.Answered, folder: Path, questions: Questions
) -> None:
    model, _ = models.load_folder(folder, torch.bfloat16)
    for prompt_ids, own in list(zip(questions.prompts, answered.answers, strict=True))[: questions.shown]:
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt_ids, *own.ids]])).logits[0, len(prompt_ids) - 1 :].float()
        expected = torch.log_softmax(logits, -1)
        assert len(own.likeliest) == own.completion_tokens
        for place, found in enumerate(own.likeliest):
            best = max(found, key=found.__getitem__)
            assert found[best] == pytest.approx(expected[place, best].item(), abs=0.15)
    assert all(not own.likeliest for own in answered.answers[questions.shown :])


def test_vllm_reads_texts_as_training_does(answered: vllm_engine.Answered, questions: Questions) -> None:
    assert answered.tokens == questions.prompts


def test_vllm_says_what_it_took(answered: vllm_engine.Answered) -> None:
    assert answered.timed is not None
    assert min(answered.load_ms, answered.timed.wall_ms, answered.timed.prompt_ms, answered.timed.decode_ms) > 0
    assert answered.peak_bytes > 100e6


def test_a_folder_that_vllm_cannot_load_is_a_stop_with_its_reason(built: None, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bf16"
    broken.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[:1000] if path.suffix == ".safetensors" else data)
    with pytest.raises(Stop, match=r"vLLM could not answer with .*bf16 \(exit 1\): .*Error.*") as caught:
        vllm_engine.generate(broken, [[2, 5]], [1], context=64, cache_bytes=2**26)
    assert caught.value.code == DATA


def test_without_its_environment_the_stop_says_how_to_build_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POTSTILL_VLLM_ENV", str(tmp_path / "none"))
    with pytest.raises(Stop, match=r"none is not there.*setup_env\.sh vllm") as caught:
        vllm_engine.generate(folder, [[2]], [1], context=64)
    assert caught.value.code == UNAVAILABLE


def test_what_cannot_fit_is_refused_before_vllm_starts(folder: Path, tmp_path: Path, built: None) -> None:
    with pytest.raises(Stop, match=r"60 tokens, the context is 59.*num_ctx"):
        vllm_engine.generate(folder, [[2] * 50], [10], context=59)
    with pytest.raises(Stop, match=r"has no config\.json"):
        vllm_engine.generate(tmp_path, [[2]], [1], context=59)


def test_no_secret_of_the_shell_reaches_vllm_and_the_network_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "SSH_AUTH_SOCK", "PYTHONPATH", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "sesame")
    given = vllm_engine.environment(tmp_path)
    assert "sesame" not in given.values()
    assert {given[name] for name in ("HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")} == {"1"}
    assert given["HOME"] == str(tmp_path)


def test_the_last_useful_line_is_the_one_that_names_the_error() -> None:
    log = """INFO 11-21 weights
    raise ValueError(
ValueError: head size 33 is not supported
(EngineCore pid=7) ERROR 11-21 [core.py:1] RuntimeError: Engine core initialization failed. See root cause above.
sys:1: ResourceWarning: leaked
"""
    assert vllm_engine.last_useful(log) == "ValueError: head size 33 is not supported"
    assert vllm_engine.last_useful("Killed\n") == "Killed"
    assert vllm_engine.last_useful("") == "it said nothing"
