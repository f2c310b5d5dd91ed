"""The collector of reference cycles is as it was once the work is done, whatever became of the work."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import pytest

from rag_index.collector import seldom_collected


class Node:
    """One of two that refer to each other."""

    other: Node


@pytest.fixture(autouse=True)
def defaults():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_it_is_as_it_was_afterwards():
    with suppress(ValueError), seldom_collected():
        with seldom_collected():
            pass
        assert gc.get_threshold()[0] > 700, "the inner block does not end the outer one"
        raise ValueError
    assert gc.get_threshold() == (700, 10, 10)


def test_cycles_are_still_found_in_the_end():
    with seldom_collected():
        one, two = Node(), Node()
        one.other, two.other = two, one
        gone = weakref.ref(one)
        del one, two
        kept = [[] for _ in range(300_000)]
    assert gone() is None
    assert len(kept) == 300_000


def test_who_switched_it_off_keeps_it_off():
    gc.disable()
    try:
        with seldom_collected():
            assert gc.get_threshold() == (700, 10, 10)
        assert not gc.isenabled()
    finally:
        gc.enable()
