"""The served command, read by vLLM itself: needs .venv-vllm, which ./scripts/setup_env.sh vllm builds and CI has."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from potstill import prompt_lookup, serving, vllm_engine

PROGRAM = Path(__file__).with_name("vllm_reads.py")


@pytest.fixture(scope="module")
def read(tiny: Path) -> dict:
    if not vllm_engine.is_built():
        if os.environ.get("CI"):
            pytest.fail(f".venv-vllm is not built; .ci/run does it by {vllm_engine.BUILD}")
        pytest.skip(f"needs .venv-vllm: {vllm_engine.BUILD}")
    words = serving.vllm_command("batfit-tiny", 1024, ngram=True)
    environment = {**os.environ, **serving.OFFLINE, "PYTHONPATH": ""}
    command = [str(vllm_engine.python()), str(PROGRAM), json.dumps(words), str(tiny)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_vllm_takes_every_option(read: dict) -> None:
    assert (read["dtype"], read["context"], read["host"]) == ("bfloat16", 1024, "127.0.0.1")
    assert read["name"] in ("batfit-tiny", ["batfit-tiny"])
    assert read["prefix_caching"] is True
    assert read["sampling"] == {"temperature": 0.0}
    assert read["structured"] == ["guidance", True]
    assert read["speculative"]["method"] == "ngram"
    assert read["speculative"]["num_speculative_tokens"] == prompt_lookup.TRIED
    assert read["speculative"]["prompt_lookup_max"] == prompt_lookup.MATCHED


def test_vllm_refuses_fp16_as_the_table_says(read: dict) -> None:
    assert read["said"]["bfloat16"] == "torch.bfloat16"
    assert "does not support float16" in read["said"]["float16"]
