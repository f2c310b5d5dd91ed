"""A writer that stays, as a watch does: it keeps its shard open between writes, and is in nobody's way."""

from contextlib import closing

import pytest

from rag_index.components.stores.edge import reader as reader_module
from rag_index.components.stores.edge.reader import EdgeReader
from rag_index.components.stores.edge.store import EdgeStore
from tests.components.stores.edge_process import WIDE, fill, numbers, points, writer
from tests.components.stores.test_edge_readers import digests
from tests.waiting import eventually

WRITES_AND_DELETES = """
store.upsert("c", points(range(2000, 3000), WIDE))
store.delete_points("c", points(range(2000, 3000), WIDE).ids)
store.upsert("c", points(range(3000, 3010), WIDE))
store.hand_over()
print("handed over", flush=True)
input()
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(reader_module, "FRESH_SECONDS", 100.0)
    fill(tmp_path)
    return tmp_path


def test_a_writer_that_stays_hands_over_what_it_has_written_and_lets_go_when_asked(store):
    with closing(EdgeStore(store)) as kept, closing(EdgeReader(store)) as reader:
        for first in (2000, 2010, 2020):  # in place, and twice in a copy, since the reader has a view
            kept.upsert("c", points(range(first, first + 10), WIDE))
            kept.hand_over()
            assert reader.wanted() or first == 2000, "an idle reader lets go, so that no copy is made"
            assert numbers(reader) == {*range(3, 1000), *range(2000, first + 10)}
            assert not reader.wanted()
        kept.let_go()
        with writer(store, "store._wait = 0\nstore.count('c'); print('wrote', flush=True)") as other:
            eventually(lambda: list((store / "writers").glob("*wanted")))
            kept.let_go()
            assert other.says() == "wrote"
        assert not list((store / "writers").glob("*wanted")), "whoever was let in waits no more"
        kept.delete_points("c", points(range(2000, 2030), WIDE).ids)
        kept.hand_over()
        assert numbers(reader) == set(range(3, 1000))


def test_what_a_killed_writer_has_handed_over_is_written_no_more(store):
    """The log of a shard that stays open has texts that were deleted since. Loading it does not bring them back, nor
    change a file that a reader has."""
    with writer(store, WRITES_AND_DELETES) as process:
        assert process.says() == "handed over"
        with closing(EdgeReader(store)) as reader:
            assert numbers(reader) == {*range(3, 1000), *range(3000, 3010)}
            (view,) = (store / "readers").iterdir()
            before = digests(view)
            with closing(EdgeStore(store)) as next_one:
                process.kill()
                assert next_one.count("c") == 1007
                assert numbers(next_one) == {*range(3, 1000), *range(3000, 3010)}
            assert digests(view) == before
            assert numbers(reader) == {*range(3, 1000), *range(3000, 3010)}
    with closing(EdgeStore(store)) as whole:
        assert numbers(whole) == {*range(3, 1000), *range(3000, 3010)}
