"""deploy/vllm-rocm/compose.yaml: filled in as Compose would, and compared with what a package says of itself.

Docker Compose is not here to read it; the keys it may have are those of the Compose specification that the file uses.
"""

import json
import re
from pathlib import Path

import pytest
import served
import yaml

from potstill import serving

REPO = Path(__file__).resolve().parents[2]
FILE = REPO / "deploy" / "vllm-rocm" / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")
SERVICE = {
    **{"image": str, "entrypoint": list, "command": list, "environment": dict, "devices": list, "group_add": list},
    **{"volumes": list, "ipc": str, "shm_size": str, "cap_drop": list, "security_opt": list, "ports": list},
    **{"networks": list, "restart": str, "healthcheck": dict, "logging": dict},
}
SETTINGS = {
    "POTSTILL_ARTIFACT": "/srv/models/run/package/bf16",
    "POTSTILL_MODEL": served.RUN,
    "POTSTILL_MAX_LEN": str(served.NUM_CTX),
    "POTSTILL_RENDER_GID": "109",
}


def filled(settings: dict[str, str]) -> dict:
    """The file with its variables filled in: ${A:?words} must be set, ${A:-b} is b when it is not."""

    def value(match: re.Match[str]) -> str:
        name, kind, words = match.groups()
        if name not in settings and kind != "-":
            raise KeyError(words)
        return settings.get(name, words)

    def fill(node):
        if isinstance(node, dict):
            return {key: fill(item) for key, item in node.items()}
        if isinstance(node, list):
            return [fill(item) for item in node]
        return VARIABLE.sub(value, node) if isinstance(node, str) else node

    return fill(yaml.safe_load(FILE.read_text()))


def test_the_file_has_the_keys_of_the_specification() -> None:
    whole = filled(SETTINGS)
    assert set(whole) == {"name", "services", "networks", "volumes"}
    service = whole["services"]["vllm"]
    assert {key: type(value) for key, value in service.items()} == SERVICE
    assert all(
        isinstance(word, str) for key in ("command", "entrypoint", "group_add", "ports") for word in service[key]
    )
    assert all(isinstance(value, str) for value in service["environment"].values())
    assert "$" not in json.dumps(whole)


@pytest.mark.parametrize("missing", sorted(SETTINGS))
def test_a_setting_that_is_missing_is_asked_for(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        filled({key: value for key, value in SETTINGS.items() if key != missing})


def test_the_command_is_the_packages_own() -> None:
    service = filled(SETTINGS)["services"]["vllm"]
    wanted = serving.vllm_command(served.RUN, served.NUM_CTX, ngram=False)
    wanted[2], wanted[wanted.index("--host") + 1] = "/model", "0.0.0.0"  # noqa: S104  (inside the container)
    assert service["entrypoint"] + service["command"] == wanted
    assert service["environment"] == serving.OFFLINE
    assert service["image"] == f"vllm/vllm-openai-rocm:v{serving.VLLM_VERSION}"


def test_what_is_open_is_what_must_be() -> None:
    whole = filled(SETTINGS)
    service = whole["services"]["vllm"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert filled(SETTINGS | {"POTSTILL_PORT": "9000"})["services"]["vllm"]["ports"] == ["127.0.0.1:9000:8000"]
    model, cache = service["volumes"]
    assert (model["source"], model["target"], model["read_only"]) == (SETTINGS["POTSTILL_ARTIFACT"], "/model", True)
    assert model["bind"] == {"create_host_path": False}
    assert cache["source"] in whole["volumes"]
    assert service["devices"] == ["/dev/kfd", "/dev/dri"]
    assert service["group_add"] == ["video", "109"]
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert "privileged" not in service
    assert service["ipc"] == "private"
    (network,) = (whole["networks"][name] for name in service["networks"])
    assert network["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}


def test_health_is_asked_where_vllm_answers() -> None:
    service = filled(SETTINGS)["services"]["vllm"]
    program = service["healthcheck"]["test"]
    assert program[:3] == ["CMD", "python3", "-c"]
    compile(program[3], "healthcheck", "exec")
    assert "http://127.0.0.1:8000/health" in program[3]
    assert all(re.fullmatch(r"\d+s", service["healthcheck"][key]) for key in ("interval", "timeout", "start_period"))
