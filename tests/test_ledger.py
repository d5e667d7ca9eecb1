"""potstill/ledger.py: leases, idempotence and refusals, on a real SQLite file."""

import multiprocessing
import time

import pytest

from potstill.ledger import Ledger
from potstill.stop import DATA, Stop


def numbered(n):
    return [(f"k{i:03}", {"i": i}) for i in range(n)]


def test_work_goes_from_claim_to_result_in_insertion_order(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.add(reversed(numbered(5))) == 5
        items = ledger.claim(3, lease_s=60)
        assert [item.key for item in items] == ["k004", "k003", "k002"]
        assert ledger.finish("k002", {"square": 4})
        assert ledger.finish_many([("k003", {"square": 9}), ("k004", {"square": 16})]) == 2
        assert list(ledger.results()) == [
            ("k004", {"square": 16}),
            ("k003", {"square": 9}),
            ("k002", {"square": 4}),
        ]
        assert ledger.counts() == {"todo": 2, "done": 3, "failed": 0}


def test_adding_again_adds_nothing_and_keeps_the_first_payload(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add(numbered(4))
        assert ledger.add([("k000", {"i": "other"}), ("new", {})]) == 1
        assert ledger.claim(1, lease_s=60)[0].payload == {"i": 0}


def test_a_leased_item_is_not_handed_out_twice_and_an_expired_one_is(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as first, Ledger(tmp_path / "l.sqlite") as second:
        first.add(numbered(1))
        assert first.claim(1, lease_s=0.05)
        while not (taken := second.claim(1, lease_s=60)):
            time.sleep(0.01)
        assert taken[0].key == "k000"
        assert not first.finish("k000", {"by": "first"})
        assert not first.fail("k000", "late")
        assert second.finish("k000", {"by": "second"})
        assert not second.finish("k000", {"by": "second again"})
        assert list(first.results()) == [("k000", {"by": "second"})]


def test_alone_takes_over_the_leases_of_a_dead_predecessor(tmp_path):
    dead = Ledger(tmp_path / "l.sqlite")
    dead.add(numbered(2))
    assert len(dead.claim(2, lease_s=3600)) == 2
    dead.close()
    with Ledger(tmp_path / "l.sqlite") as polite:
        assert polite.claim(2, lease_s=60) == []
    with Ledger(tmp_path / "l.sqlite", alone=True) as heir:
        assert [item.key for item in heir.claim(2, lease_s=60)] == ["k000", "k001"]


def test_failed_items_keep_their_reason_and_can_be_opened_again(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add(numbered(2))
        ledger.claim(2, lease_s=60)
        assert ledger.fail("k001", "timeout")
        assert list(ledger.failures()) == [("k001", "timeout")]
        assert ledger.counts() == {"todo": 1, "done": 0, "failed": 1}
        assert ledger.retry_failed() == 1
        assert [item.key for item in ledger.claim(5, lease_s=60)] == ["k001"]


def test_a_ledger_of_other_inputs_is_refused_and_restart_starts_afresh(tmp_path):
    path = tmp_path / "l.sqlite"
    with Ledger(path, "aaa") as ledger:
        ledger.add(numbered(3))
    with pytest.raises(Stop, match=r"other inputs.*--restart") as refusal:
        Ledger(path, "bbb")
    assert refusal.value.code == DATA
    with Ledger(path, "aaa") as ledger:
        assert ledger.counts()["todo"] == 3
    with Ledger(path, "bbb", restart=True) as ledger:
        assert ledger.counts()["todo"] == 0
    with pytest.raises(Stop):
        Ledger(path, "aaa")


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "l.sqlite"
    path.write_bytes(b"these are somebody's notes, not a database" * 100)
    with pytest.raises(Stop, match="no SQLite file"):
        Ledger(path)
    assert path.read_bytes().startswith(b"these are")


def test_add_is_all_or_nothing(tmp_path):
    def broken():
        yield "a", {"i": 1}
        raise RuntimeError("the source broke")

    with Ledger(tmp_path / "l.sqlite") as ledger:
        with pytest.raises(RuntimeError, match="the source broke"):
            ledger.add(broken())
        assert ledger.counts()["todo"] == 0
        assert ledger.add(numbered(1)) == 1


def test_text_no_encoding_takes_survives(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add([("k", {"text": "\ud800 \x00 {} 'quote'"})])
        [item] = ledger.claim(1, lease_s=60)
        ledger.finish("k", {"echo": item.payload["text"]})
        assert list(ledger.results()) == [("k", {"echo": "\ud800 \x00 {} 'quote'"})]


def drain(path):
    with Ledger(path) as ledger:
        ledger.add(numbered(120))
        while items := ledger.claim(3, lease_s=60):
            ledger.finish_many((item.key, {"by": ledger.claimer}) for item in items)


def test_processes_that_start_together_share_the_work(tmp_path):
    path = tmp_path / "l.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=drain, args=(path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    with Ledger(path) as ledger:
        assert [key for key, _ in ledger.results()] == [f"k{i:03}" for i in range(120)]
