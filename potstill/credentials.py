"""What a process that calls a model may hold: the keys of .env, and no way to the SSH agent."""

import os
import re
from pathlib import Path

from potstill.stop import Stop


def drop_ssh_agent() -> None:
    """This process reads hostile text and may hold a key: it must not reach the SSH agent as well."""
    for name in ("SSH_AUTH_SOCK", "SSH_AGENT_PID"):
        os.environ.pop(name, None)


def read_env(path: Path) -> None:
    """Puts the KEY=VALUE lines of a .env file into the environment; what is set already stays. No value is shown."""
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        entry = line.strip().removeprefix("export ")
        if not entry or entry.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:\"(.*)\"|'(.*)'|(.*))", entry)
        if not match:
            raise Stop(f"{path} line {number}: want KEY=VALUE")
        os.environ.setdefault(match[1], next((group for group in match.groups()[1:] if group is not None), ""))
