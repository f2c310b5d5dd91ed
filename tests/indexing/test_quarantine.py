"""The quarantine finds the item that kills its process, and loses none of the others."""

from __future__ import annotations

from rag_index.errors import ProcessDied
from rag_index.indexing.child import quarantine


def test_the_quarantine_splits_until_it_has_found_the_killer():
    alone = []

    def run_alone(items: range) -> list[int]:
        alone.append(items)
        if 13 in items:
            raise ProcessDied("it died")
        return list(items)

    def halves(items: range) -> list[range]:
        middle = len(items) // 2
        return [items[:middle], items[middle:]] if middle else [items]

    found = list(
        quarantine([range(16), range(20, 22)], run_alone, split=halves, poison=lambda items: ["poison", *items])
    )
    assert [item for result in found for item in result if item != "poison"] == [*range(16), 20, 21]
    assert ["poison", 13] in found
    assert len(alone) <= 2 * 4 + 2
