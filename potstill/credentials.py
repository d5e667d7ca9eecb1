"""What a process that calls a model may hold: its provider's keys, no other secret, and no way to the SSH agent."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from potstill.stop import Stop

# what programs need that holds no secret; a proxy's address may, and without it nothing can be reached
HARMLESS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|PWD|TERM|COLORTERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|LANG|LANGUAGE|LC_\w+|TZ"
    r"|TMPDIR|TEMP|TMP|PYTHON(PATH|HOME|UNBUFFERED|UTF8|IOENCODING|HASHSEED|WARNINGS|DONTWRITEBYTECODE|FAULTHANDLER)"
    r"|VIRTUAL_ENV|LD_LIBRARY_PATH|OMP_NUM_THREADS|XDG_\w+_(HOME|DIRS)|(SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE)"
    r"|(?i:https?_proxy|all_proxy|no_proxy)|LITELLM_MODE|LITELLM_LOCAL_MODEL_COST_MAP|LITELLM_LOG"
    r"|HF_HUB_OFFLINE|HF_HUB_DISABLE_\w+|TOKENIZERS_PARALLELISM|TRANSFORMERS_VERBOSITY|DO_NOT_TRACK"
    r"|MLFLOW_DISABLE_TELEMETRY|UNSLOTH_DISABLE_STATISTICS|POTSTILL_SHUT_OUT"
)
# variables of a LiteLLM provider start with its name, but for these
PREFIXES = {
    "gemini": ("GEMINI_", "GOOGLE_API_KEY"),
    "vertex_ai": ("VERTEX", "GOOGLE_"),
    "vertex_ai_beta": ("VERTEX", "GOOGLE_"),
    "bedrock": ("AWS_",),
    "sagemaker": ("AWS_",),
    "azure": ("AZURE_",),
    "azure_ai": ("AZURE_",),
    "huggingface": ("HUGGINGFACE_", "HF_TOKEN"),
    "together_ai": ("TOGETHER",),
    "text-completion-openai": ("OPENAI_",),
    "ollama_chat": ("OLLAMA_",),
}
# LiteLLM takes a model without a provider from these to be OpenAI's, Anthropic's or Google's
BARE = ((("claude",), ("ANTHROPIC_",)), (("gemini",), ("VERTEX", "GOOGLE_")), (("",), ("OPENAI_",)))

STARTED_AFRESH = "POTSTILL_SHUT_OUT"


def drop_ssh_agent() -> None:
    """This process reads hostile text and may hold a key: it must not reach the SSH agent as well."""
    for name in ("SSH_AUTH_SOCK", "SSH_AGENT_PID"):
        os.environ.pop(name, None)


def allowed(model: str, extra: Iterable[str] = ()) -> Callable[[str], bool]:
    """Whether a process that calls `model` may see an environment variable: harmless, its provider's, or in `extra`."""
    provider, slash, _ = model.partition("/")
    if slash:
        prefixes = PREFIXES.get(provider, (re.sub(r"\W", "_", provider).upper() + "_",))
    else:
        prefixes = next(names for starts, names in BARE if model.startswith(starts))
    named = frozenset(extra)
    return lambda name: name in named or name.startswith(prefixes) or HARMLESS.fullmatch(name) is not None


def shut_out(environment: Mapping[str, str], may_see: Callable[[str], bool]) -> dict[str, str]:
    """The environment without what may not be seen."""
    return {name: value for name, value in environment.items() if may_see(name)}


def start_afresh(may_see: Callable[[str], bool], words: list[str]) -> None:
    """Starts this program again, in this process, with `words` and only what it may see; returns when that is so.

    Dropping a variable from os.environ leaves it in the memory the process was started with, where /proc shows it.
    """
    kept = {**shut_out(os.environ, may_see), STARTED_AFRESH: "1"}
    # once only, whatever sets a variable on the way here
    if STARTED_AFRESH not in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *words], kept)  # noqa: S606


def read_env(path: Path, may_see: Callable[[str], bool] | None = None) -> None:
    """Puts the KEY=VALUE lines of a .env file into the environment; what is set already stays. No value is shown.

    With `may_see`, the lines of other names are checked and left out.
    """
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        entry = line.strip().removeprefix("export ")
        if not entry or entry.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:\"(.*)\"|'(.*)'|(.*))", entry)
        if not match:
            raise Stop(f"{path} line {number}: want KEY=VALUE")
        if may_see is None or may_see(match[1]):
            os.environ.setdefault(match[1], next((group for group in match.groups()[1:] if group is not None), ""))
