"""Rows through guarded workers: order, quarantine, and the same bytes from local processes and from Ray."""

import json
from pathlib import Path

import pytest

from potstill import engine
from potstill.worker import Worker
from projects import run_script
from shop import exemplar, make_shop, rows

KEY = bytes(32)
OUT = "data/processed/shop"


@pytest.fixture
def shop(project_folder: Path) -> Path:
    make_shop(project_folder, rows(60))
    return project_folder


def trap(name: str) -> dict:
    return exemplar(name, f"<p>{name}</p>", json.dumps({"name": name, "price": None, "email": None})).model_dump()


def ids(answers) -> list[str]:
    return [(answer.get("example") or answer["reject"])["id"] for answer in answers]


def test_answers_come_in_the_order_of_the_rows_whichever_worker_is_first():
    def runner(delay):
        def run(batch):
            # the first runner is always the slower one
            done.wait(delay)
            return batch

        return run

    import threading

    done = threading.Event()
    batches = [[{"n": 3 * k + i} for i in range(3)] for k in range(12)]
    got = list(engine.ordered(batches, [runner(0.02), runner(0)]))
    assert [row["n"] for row in got] == list(range(36))


def test_a_batch_is_bounded_by_rows_and_by_characters():
    small = [{"prompt_text": "x"}] * (engine.BATCH_ROWS + 1)
    assert [len(b) for b in engine.batches(small)] == [engine.BATCH_ROWS, 1]
    large = [{"prompt_text": "x" * (engine.BATCH_CHARS // 2)}] * 5
    assert [len(b) for b in engine.batches(large)] == [2, 2, 1]


@pytest.mark.parametrize("name", ["burns cpu", "eats memory", "crashes"])
def test_a_row_that_ends_its_process_is_rejected_and_the_next_one_is_cleaned(shop: Path, name: str):
    worker = Worker("shop", KEY, cpu_s=1, memory_mib=512)
    fine = rows(1)[0].model_dump()
    try:
        first, second, third = worker.run([fine, trap(name), fine])
    finally:
        worker.close()
    assert second["reject"]["reason"] == "too_costly"
    assert second["reject"]["id"] == name
    assert first == third
    assert first["example"]["id"] == "r0000"


def test_a_reject_passes_through_in_its_place(shop: Path):
    reject = {"reject": {"id": "r9", "task": "product", "stage": "read", "reason": "malformed_row", "detail": "x"}}
    given = [rows(2)[0].model_dump(), reject, rows(2)[1].model_dump()]
    answers = list(engine.clean(given, "shop", KEY, "local", workers=2))
    assert ids(answers) == ["r0000", "r9", "r0001"]
    assert answers[1] == reject


def test_ray_and_local_workers_write_the_same_bytes(shop: Path):
    files = ("clean.jsonl", "rejected.jsonl")
    written = {}
    for engine_name in ("local", "ray"):
        project = shop / "configs/project.yaml"
        text = project.read_text().replace("engine: local", f"engine: {engine_name}")
        project.write_text(text.replace("workers: 0", "workers: 2"))
        run_script(shop, "dataset.clean", "-w", "shop")
        written[engine_name] = [(shop / OUT / name).read_bytes() for name in files]
    assert written["local"] == written["ray"]
    assert written["local"][0].count(b"\n") == 60
