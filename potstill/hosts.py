"""The machines behind `fab -H <name>`: where the project lies there, and connections whose host key is checked.

Names come from configs/hosts.yaml; POTSTILL_HOSTS names another file. Any other name is an ordinary SSH host.
"""

import base64
import hashlib
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from potstill import config
from potstill.config import Config
from potstill.project import CONFIGS
from potstill.stop import UNAVAILABLE, USAGE, Stop

if TYPE_CHECKING:
    from fabric import Connection

# a name reaches ssh's and rsync's argument lists, so it can neither be an option nor carry a path or a port
HOST_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")
USER_KNOWN_HOSTS = Path("~/.ssh/known_hosts")
SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
KEEPALIVE_S = 30


class Host(Config):
    """One entry of configs/hosts.yaml. `directory` may start with ~/; `python` is relative to it or absolute."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    user: str | None = None
    directory: Annotated[str, Field(validate_default=True)] = "~/potstill"
    python: str = ".venv/bin/python"
    known_hosts: str | None = None
    identity_file: str | None = None

    @field_validator("host", "user")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and (not HOST_NAME.match(value) or "@" in value):
            raise ValueError("want letters, digits, '.', '_' and '-', starting with a letter or digit")
        return value

    @field_validator("directory", "python")
    @classmethod
    def _path(cls, value: str) -> str:
        # a login starts in the home folder, so without its ~/ the path means the same and survives quoting
        value = value.removeprefix("~/").rstrip("/")
        if not value or value.startswith(("-", "~")) or any(ord(letter) < 32 for letter in value):
            raise ValueError("want a path that is absolute, or starts with ~/ or a folder's name")
        return value


class Hosts(Config):
    """configs/hosts.yaml"""

    hosts: dict[str, Host] | None = None


def check_name(name: str) -> str:
    """`name`, or Stop 2 when it is no host name."""
    if not HOST_NAME.match(name):
        raise Stop(
            f"{name!r} is no host name: want letters, digits, '.', '_', '@' and '-'. "
            f"A port or an address of another form goes into {CONFIGS / 'hosts.yaml'}.",
            USAGE,
        )
    return name


def find(name: str) -> Host:
    """The host called `name`: its entry, or else an SSH host with the default folder; user@ may stand before either."""
    listed = _listed()
    if check_name(name) in listed:
        return listed[name]
    user, _, bare = name.rpartition("@")
    entry = listed[bare].model_dump() if bare in listed else {"host": bare}
    return config.validate(entry | {"user": user or None}, Host, f"host {name!r}")


def name_of(c: "Connection") -> str:
    """The name that OpenSSH and `find` take for the host of a connection that Fabric made from -H."""
    if c.original_host in _listed() or c.user == c.config.user:
        return check_name(c.original_host)
    return check_name(f"{c.user}@{c.original_host}")


def command(host: Host, module: str, arguments: list[str]) -> str:
    """The command line that runs a module in the project folder of `host`, every word quoted."""
    # exec: an interrupt meets the program itself, and its exit code is the session's
    run = shlex.join([host.python, "-m", module, *arguments])
    return f"cd {shlex.quote(host.directory)} && exec {run}"


def checked(c: "Connection") -> "tuple[Connection, Host]":
    """An open connection to the host of `c`, which has proved a known host key, and its settings.

    Fabric adds unknown keys by itself and reads no known_hosts; here an unknown or changed key ends in Stop 69, as do
    a refused login and an unreachable host.
    """
    from fabric import Connection

    host = find(name_of(c))
    if host.host != c.original_host or host.port or host.identity_file:
        login = {"key_filename": [str(Path(host.identity_file).expanduser())]} if host.identity_file else None
        given = c.user if c.user != c.config.user else None
        c = Connection(host.host, user=host.user or given, port=host.port, config=c.config, connect_kwargs=login)
    # no host needs the keys of this machine's agent
    c.forward_agent = False
    files = known_hosts_files(host)
    revoked = _load_keys(c.client, files)
    c.client.set_missing_host_key_policy(_refusing(files[0], c.port, revoked))
    _open(c, files[0])
    return c, host


def known_hosts_files(host: Host) -> list[Path]:
    """Where the keys of `host` may stand; the first is where a new one belongs. A file the host names must exist."""
    if host.known_hosts is None:
        return [USER_KNOWN_HOSTS.expanduser(), SYSTEM_KNOWN_HOSTS]
    path = Path(host.known_hosts).expanduser()
    if not path.is_file():
        raise Stop(f"{path}, the known_hosts of host {host.host}, is not there. {how_to_add(host, path)}", UNAVAILABLE)
    return [path]


def how_to_add(host: Host, path: Path) -> str:
    """What a user does about a key that is not known yet."""
    return _how_to_add(host.host, host.port or 22, path)


def _how_to_add(address: str, port: int, path: Path) -> str:
    scan = shlex.join(["ssh-keyscan", *(["-p", str(port)] if port != 22 else []), address])
    return (
        f"Add it with: {scan} >> {shlex.quote(str(path))}   then compare `ssh-keygen -lf {shlex.quote(str(path))}` "
        f"with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` run on the host itself."
    )


def _listed() -> dict[str, Host]:
    named = os.environ.get("POTSTILL_HOSTS")
    path = Path(named or CONFIGS / "hosts.yaml")
    if not named and not path.is_file():
        return {}
    listed = config.load(path, Hosts).hosts or {}
    for name in listed:
        check_name(name)
    return listed


def _load_keys(client: Any, files: list[Path]) -> set[str]:
    """Loads the known keys into `client`; returns those marked @revoked.

    Line by line, since paramiko ends in a traceback at a marker (@revoked, @cert-authority) or a damaged key.
    """
    from paramiko.hostkeys import HostKeyEntry, InvalidHostKey
    from paramiko.ssh_exception import SSHException

    entries, revoked = [], set()
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], 1):
            words = line.split()
            if words[:1] == ["@revoked"] and len(words) > 3:
                revoked.add(words[3])
            elif words and words[0][0] not in "@#":
                try:
                    entry = HostKeyEntry.from_line(line)
                except (InvalidHostKey, SSHException):
                    raise Stop(f"{path} line {number} is no known_hosts entry; remove the line", UNAVAILABLE) from None
                entries += [entry] if entry else []
    for entry in entries:
        if entry.key.get_base64() not in revoked:
            for name in entry.hostnames:
                client.get_host_keys().add(name, entry.key.get_name(), entry.key)
    return revoked


def _refusing(path: Path, port: int, revoked: set[str]) -> Any:
    from paramiko.client import RejectPolicy

    class Refusing(RejectPolicy):
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            shown = f"the host key of {hostname}, {key.get_name()} {fingerprint(key)},"
            if key.get_base64() in revoked:
                raise Stop(f"{shown} is marked @revoked: do not use this host", UNAVAILABLE)
            address = re.sub(r"^\[(.*)\]:\d+$", r"\1", hostname)
            raise Stop(f"{shown} is not known. {_how_to_add(address, port, path)}", UNAVAILABLE)

    return Refusing()


def fingerprint(key: Any) -> str:
    """A public key's SHA-256 fingerprint as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def _open(c: "Connection", path: Path) -> None:
    from paramiko.ssh_exception import AuthenticationException, BadHostKeyException, SSHException

    where = f"{c.user}@{c.host}:{c.port}"
    try:
        c.open()
    except BadHostKeyException as error:
        raise Stop(
            f"the host key of {where} has CHANGED: {path} has {fingerprint(error.expected_key)}, the host shows "
            f"{fingerprint(error.key)}. Somebody may be in between. If the host was set up anew, remove the old key "
            f"with: ssh-keygen -f {shlex.quote(str(path))} -R {shlex.quote(_known_name(c))}",
            UNAVAILABLE,
        ) from None
    except AuthenticationException as error:
        raise Stop(
            f"{where} refuses the login ({error}). Give its entry an identity_file, or load your key into ssh-agent.",
            UNAVAILABLE,
        ) from None
    except (SSHException, OSError) as error:
        raise Stop(
            f"{where} cannot be reached: {error}. Check host and port, then run this again.", UNAVAILABLE
        ) from None
    c.transport.set_keepalive(KEEPALIVE_S)


def _known_name(c: "Connection") -> str:
    return c.host if c.port == 22 else f"[{c.host}]:{c.port}"
