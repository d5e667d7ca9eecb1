import os
import signal
import time
from pathlib import Path

import pytest
import tiny_gemma
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill import llama, models, prompt
from potstill.gguf import write_gguf
from potstill.stop import Stop


@pytest.fixture(scope="module")
def path(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "m.gguf"
    write_gguf(tiny, path, "F32")
    return path


@pytest.fixture(scope="module")
def server(path: Path):
    with llama.serve(path, context=256, parallel=4) as server:
        yield server


@pytest.fixture(scope="module")
def loaded(tiny: Path):
    return models.load_folder(tiny, torch.float32)


def test_next_token_probabilities_are_the_originals(server: llama.Server, loaded: tuple) -> None:
    model, tokenizer = loaded
    text = tiny_gemma.sentences(1, seed=4)[0]
    ids = prompt.prompt_ids(tiny_gemma.SYSTEM, text, tokenizer)
    assert len(ids) > 4 * model.config.sliding_window, "the prompt must not fit one window"
    body = {"prompt": ids, "n_predict": 1, "n_probs": 420, "temperature": 1.0, "samplers": [], "cache_prompt": False}
    # an end of turn would be a token without probabilities
    body |= {"ignore_eos": True}
    found = llama.request(server, "/completion", body)["completion_probabilities"][0]["top_logprobs"]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    logits = logits.clone()
    logits[sorted(models.stop_ids(model, tokenizer))] = -torch.inf
    wanted = torch.log_softmax(logits, -1)
    likely = [entry for entry in found if entry["logprob"] > -12]
    assert len(likely) > 10
    assert max(abs(entry["logprob"] - wanted[entry["id"]].item()) for entry in likely) < 0.06


# a written "▁" (U+2581) beside a space is the one known difference: Hugging Face takes both for a run of spaces
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00▁"), max_size=60))
def test_both_tokenizers_read_any_text_alike(server: llama.Server, loaded: tuple, text: str) -> None:
    _, tokenizer = loaded
    assert llama.tokenize(server, text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_both_tokenizers_read_prompts_alike(server: llama.Server, loaded: tuple) -> None:
    _, tokenizer = loaded
    for text in [*tiny_gemma.sentences(20, seed=2), "  two  spaces ", "<end_of_turn>\n\n\nnaïve 🚀 x"]:
        ids = prompt.prompt_ids(tiny_gemma.SYSTEM, text, tokenizer)
        whole = prompt.messages(tiny_gemma.SYSTEM, text)
        rendered = tokenizer.apply_chat_template(whole, add_generation_prompt=True, tokenize=False)
        assert llama.tokenize(server, rendered) == ids


def test_answers_come_in_order_and_do_not_depend_on_their_neighbours(server: llama.Server, loaded: tuple) -> None:
    _, tokenizer = loaded
    prompts = [prompt.prompt_ids("", text, tokenizer) for text in tiny_gemma.sentences(9, seed=8)]
    limits = [4 + i for i in range(9)]
    together = list(llama.generate(server, prompts, limits))
    assert [g.index for g in together] == list(range(9))
    assert all(g.completion_tokens == n for g, n in zip(together, limits, strict=True) if g.finish_reason == "length")
    alone = [next(llama.generate(server, [p], n)) for p, n in zip(prompts, limits, strict=True)]
    assert [g.ids for g in together] == [g.ids for g in alone]
    assert [g.prompt_tokens for g in together] == [len(p) for p in prompts]


def test_chat_renders_the_training_template(server: llama.Server, loaded: tuple) -> None:
    _, tokenizer = loaded
    text = tiny_gemma.sentences(1, seed=6)[0]
    ids = prompt.prompt_ids(tiny_gemma.SYSTEM, text, tokenizer)
    wanted = next(llama.generate(server, [ids], 8)).text
    assert "".join(llama.stream(server, prompt.messages(tiny_gemma.SYSTEM, text), 8)).strip() == wanted.strip()


def test_a_prompt_that_does_not_fit_is_an_error_before_anything_runs(server: llama.Server) -> None:
    with pytest.raises(Stop, match=r"250 tokens and an answer of 7 .* 256"):
        list(llama.generate(server, [[2] * 250], 7))


def test_a_file_that_is_no_model_is_refused(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "m.gguf"
    broken.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(Stop, match=r"cannot load .*m\.gguf"), llama.serve(broken, context=64):
        pass
    with pytest.raises(Stop, match="not there"), llama.serve(tmp_path / "none.gguf", context=64):
        pass


def test_a_model_can_be_opened_and_closed_again_and_again(server: llama.Server, path: Path) -> None:
    for _ in range(30):
        with llama.serve(path, context=64, parallel=1):
            pass
    assert llama.tokenize(server, "bat")


def test_nothing_is_left_behind_and_nothing_listens_on_the_network(path: Path) -> None:
    before = _listening()
    with llama.serve(path, context=64, parallel=1) as server:
        folder = Path(server.socket).parent
        assert folder.stat().st_mode & 0o077 == 0
        assert _listening() == before
    assert not folder.exists()


def test_ctrl_c_still_interrupts_while_a_model_is_loaded(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), llama.serve(path, context=64, parallel=1):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def _listening() -> set[str]:
    """Local addresses of this machine's listening TCP sockets that belong to this process."""
    own = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink() and entry.exists()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}
