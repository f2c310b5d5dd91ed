"""The garbage collector's thresholds are restored after the work, whether it succeeded or not."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import pytest

from rag_index.machine import collect_seldom


class Node:
    """A node of a cycle of two."""

    other: Node


@pytest.fixture(autouse=True)
def defaults():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_the_thresholds_are_restored():
    with suppress(ValueError), collect_seldom():
        with collect_seldom():
            pass
        assert gc.get_threshold()[0] > 700, "the inner block does not end the outer one"
        raise ValueError
    assert gc.get_threshold() == (700, 10, 10)


def test_cycles_are_still_collected_and_a_disabled_collector_stays_disabled():
    with collect_seldom():
        one, two = Node(), Node()
        one.other, two.other = two, one
        reference = weakref.ref(one)
        del one, two
        kept = [[] for _ in range(300_000)]
    assert (reference(), len(kept)) == (None, 300_000)
    gc.disable()
    try:
        with collect_seldom():
            assert gc.get_threshold() == (700, 10, 10)
        assert not gc.isenabled()
    finally:
        gc.enable()
