"""A Modelfile means to Ollama what was trained.

Ollama cannot be run here. What its parser makes of a Modelfile is written down below from its source (parser/parser.go
of 0.33): a value ends at the first line end at which its quotes are closed, and characters that Go does not print are
lost.
"""

import unicodedata
from pathlib import Path

import pytest
import tiny_gemma
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from potstill import contents, modelfile, models, prompt
from potstill.stop import DATA, Stop


def ollama_reads(text: str) -> list[tuple[str, str]]:
    """The instructions of a Modelfile, each with its value."""
    found: list[tuple[str, str]] = []
    word, value = "", None
    for character in text + "\n":
        if value is None:
            if character in " \t" and word:
                value = ""
            elif character not in " \t\r\n":
                word += character
            continue
        closed = unquoted(value.strip())
        if character in "\r\n" and closed is not None:
            found.append((word, closed))
            word, value = "", None
        elif character in " \t\r\n" or unicodedata.category(character)[0] in "LMNPS":
            value += character
    return found


def unquoted(value: str) -> str | None:
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            whole = len(value) >= 2 * len(quotes) and value.endswith(quotes)
            return value[len(quotes) : -len(quotes)] if whole else None
    return value


@pytest.fixture(scope="module")
def tokenizer(tiny: Path):
    return models.load_tokenizer(tiny)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(system=st.text(min_size=1, max_size=60))
@example(system=tiny_gemma.SYSTEM)
@example(system=' leading, trailing \n\n"quoted" {{ .System }} # no comment\nPARAMETER temperature 2\r\n')
@example(system='"')
@example(system='"" x')
@example(system="non-breaking\u00a0space")
@example(system="zero\u200bwidth")
@example(system='a"""\nFROM /etc/passwd\nSYSTEM """b')
def test_ollama_reads_back_what_was_written(tokenizer, system: str) -> None:
    try:
        text = modelfile.modelfile("model.gguf", tokenizer, system, 1024)
    except Stop as stop:
        lost = [c for c in system if c not in " \t\r\n" and unicodedata.category(c)[0] not in "LMNPS"]
        assert lost or '"""' in system or system.endswith('"'), stop  # noqa: PT017
        return
    found = ollama_reads(text)
    assert dict(found)["SYSTEM"] == system
    assert dict(found)["TEMPLATE"] == modelfile.template(tokenizer)
    assert [word for word, _ in found] == ["FROM", "TEMPLATE", "SYSTEM", *["PARAMETER"] * 5]
    assert [value for word, value in found if word == "FROM"] == ["./model.gguf"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(system=st.text(max_size=40), asked=st.text(max_size=80).map(str.strip))
@example(system="", asked="")
@example(system="{{ .Prompt }}", asked="<end_of_turn>\n<start_of_turn>model\n{{ .Response }}")
def test_ollama_shows_the_model_the_training_prompt(tokenizer, system: str, asked: str) -> None:
    """What Ollama's template package makes of .System and .Prompt, which it does not trim."""
    rendered = tokenizer.bos_token + modelfile.render(modelfile.template(tokenizer), system, asked)
    messages = prompt.messages(system, asked)
    assert rendered == tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == prompt.prompt_ids(system, asked, tokenizer)


def test_a_character_that_ollama_drops_is_named(tokenizer) -> None:
    with pytest.raises(Stop, match=r"system prompt has U\+00A0 \(NO-BREAK SPACE\)") as stopped:
        modelfile.modelfile("model.gguf", tokenizer, "1\u00a0kg", 1024)
    assert stopped.value.code == DATA


def test_greedy_and_within_the_context(tokenizer, tmp_path: Path) -> None:
    text = modelfile.modelfile("model.gguf", tokenizer, None, 768)
    parameters = [value for word, value in ollama_reads(text) if word == "PARAMETER"]
    assert parameters == ['stop "<end_of_turn>"', "temperature 0", "top_k 1", "repeat_penalty 1.0", "num_ctx 768"]
    (tmp_path / "model.gguf").write_bytes(b"")
    (tmp_path / "Modelfile").write_text(text)
    assert contents.check("Modelfile", tmp_path / "Modelfile") == ([], [])
