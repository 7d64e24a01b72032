"""What is kept stays within its bound, is closed when it goes, and is nobody else's."""

from __future__ import annotations

import pickle
import threading

from vertebra.episodes.recent import Recent

CLOSED: list[str] = []


def heavy(kept: str) -> int:
    return len(kept)


def test_the_last_ones_stay_and_others_are_closed():
    CLOSED.clear()
    recent: Recent[str] = Recent(2, close=CLOSED.append)
    made = [recent.get(key, lambda key=key: key) for key in "abacad"]
    assert made == list("abacad")
    assert CLOSED == ["b", "c"], "`a` was used again and again"
    recent.forget("a")
    recent.clear()
    assert CLOSED == ["b", "c", "a", "d"]


def test_weights_bound_it_and_one_that_is_too_heavy_still_stays():
    recent: Recent[str] = Recent(5, weight=heavy)
    for key in ("aa", "bb", "c"):
        recent.get(key, lambda key=key: key)
    assert len(recent) == 3
    recent.get("dddddddd", lambda: "dddddddd")
    assert len(recent) == 1
    recent.get("e", lambda: "e")
    assert len(recent) == 1


def test_a_copy_begins_with_nothing():
    recent: Recent[str] = Recent(5, weight=heavy)
    recent.get("a", lambda: "a")
    copy = pickle.loads(pickle.dumps(recent))
    assert (len(copy), copy.most) == (0, 5)
    assert copy.get("a", lambda: "b") == "b"


def test_threads_make_a_thing_once():
    recent: Recent[str] = Recent(5)
    made: list[str] = []

    def make() -> str:
        made.append("a")
        return "a"

    threads = [threading.Thread(target=recent.get, args=("a", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["a"]
