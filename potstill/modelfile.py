"""Writes an Ollama Modelfile whose TEMPLATE renders exactly what the model was trained on.

The template is not written by hand: the training template (a Jinja chat template) is rendered once with markers for
texts, and the text around them becomes the Go template. Source: Ollama's Modelfile reference and its template package,
which fills .System and .Prompt once per turn and cuts at .Response when it asks for an answer; its parser package drops
characters that Go takes for unprintable, so texts with such a character are refused.
"""

import unicodedata
from typing import Any

from potstill.prompt import END_OF_TURN, messages
from potstill.stop import DATA, Stop

SYSTEM_MARK, PROMPT_MARK = "SYSTEMMARK", "PROMPTMARK"


def template(tokenizer: Any) -> str:
    """The Go template of one exchange, without <bos>, which llama.cpp adds by itself.

    Raises Stop 65 when the chat template is more than fixed text around a system text and a user text.
    """
    prompted = _rendered(tokenizer, "", PROMPT_MARK)
    opening, _, closing = prompted.partition(PROMPT_MARK)
    between = _rendered(tokenizer, SYSTEM_MARK, PROMPT_MARK)
    between = between.removeprefix(opening + SYSTEM_MARK).removesuffix(PROMPT_MARK + closing)
    whole = opening + SYSTEM_MARK + between + PROMPT_MARK + closing
    if whole != _rendered(tokenizer, SYSTEM_MARK, PROMPT_MARK) or "{{" in opening + between + closing:
        raise Stop("the chat template is not fixed text around a system and a user text, as a Modelfile needs", DATA)
    # {{- would eat line ends that are part of the prompt
    system = "{{ if .System }}{{ .System }}" + between + "{{ end }}"
    return f"{opening}{system}{{{{ .Prompt }}}}{closing}{{{{ .Response }}}}{END_OF_TURN}\n"


def render(go_template: str, system: str, prompt: str) -> str:
    """What Ollama makes of our template for one request; the two actions and the one condition that we write."""
    head, _, rest = go_template.partition("{{ if .System }}{{ .System }}")
    between, _, tail = rest.partition("{{ end }}{{ .Prompt }}")
    closing = tail.partition("{{ .Response }}")[0]
    return head + (system + between if system else "") + prompt + closing


def modelfile(gguf_name: str, tokenizer: Any, system: str | None, num_ctx: int) -> str:
    """The Modelfile beside `gguf_name`; no SYSTEM line when `system` is None."""
    parts = [f"FROM ./{gguf_name}", f"TEMPLATE {_quoted(template(tokenizer), 'template')}"]
    if system:
        parts.append(f"SYSTEM {_quoted(system, 'system prompt')}")
    parts += [f'PARAMETER stop "{END_OF_TURN}"', "PARAMETER temperature 0", "PARAMETER top_k 1"]
    parts += ["PARAMETER repeat_penalty 1.0", f"PARAMETER num_ctx {num_ctx}"]
    return "\n".join(parts) + "\n"


def _rendered(tokenizer: Any, system: str, prompt: str) -> str:
    text = tokenizer.apply_chat_template(messages(system, prompt), add_generation_prompt=True, tokenize=False)
    return text.removeprefix(tokenizer.bos_token)


def _quoted(text: str, what: str) -> str:
    if '"""' in text or text.endswith('"'):
        raise Stop(f'the {what} has """ in it or ends with a quote, which a Modelfile cannot hold', DATA)
    if lost := next((character for character in text if not _is_kept(character)), None):
        name = unicodedata.name(lost, "a control character")
        raise Stop(
            f"the {what} has U+{ord(lost):04X} ({name}) in it, which Ollama drops when it reads a Modelfile: the "
            f"prompt would be another than in training. Take it out of the rows, or leave GGUF artifacts out",
            DATA,
        )
    return f'"""{text}"""'


def _is_kept(character: str) -> bool:
    # Go's strconv.IsPrint and, where Ollama's parser looks before it asks that, tabs and line ends
    return character in " \t\r\n" or unicodedata.category(character)[0] in "LMNPS"
