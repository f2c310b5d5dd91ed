"""The collector of reference cycles is as it was once the work is done, whatever became of the work."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import pytest

from rag_index.machine.garbage import collect_seldom


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
    with suppress(ValueError), collect_seldom():
        with collect_seldom():
            pass
        assert gc.get_threshold()[0] > 700, "the inner block does not end the outer one"
        raise ValueError
    assert gc.get_threshold() == (700, 10, 10)


def test_cycles_are_still_found_in_the_end():
    with collect_seldom():
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
        with collect_seldom():
            assert gc.get_threshold() == (700, 10, 10)
        assert not gc.isenabled()
    finally:
        gc.enable()
