"""Whose a collection is. Two projects may need one alias (`settings.alias`), and what is another's is never written,
moved or dropped. A collection says in its metadata whose it is (`stores.OWNER`). One without that says it by the ids of
its points, which are made with the name of the index."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rag_index.components.stores import OWNER, check_owner
from rag_index.errors import StoreError
from rag_index.etl.reconcile import typed_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rag_index.components.ledger import Ledger
    from rag_index.components.stores.protocol import Store
    from rag_index.core.settings import Alias

SAMPLED_POINTS = 100


def require_own(ledger: Ledger, store: Store, alias: Alias) -> None:
    """Raise StoreMismatch if a collection that was made for an alias, or that the alias or the ledger leads to, is of
    another project and index. Call it before an index is written, moved or dropped."""
    led_to = {collection.name for collection in ledger.collections(alias)} | {store.aliases().get(alias)}
    for name, metadata in store.collections().items():
        made_for = metadata.get("alias")
        if made_for == alias or (name in led_to and not made_for):
            check_owner(alias, name, metadata.get(OWNER) or _owner_by_points(store, name, alias))


def _owner_by_points(store: Store, name: str, alias: Alias) -> Mapping[str, str] | None:
    """Return the owner of a collection that does not name it; None if no point tells, and the ledger decides."""
    try:
        points = list(islice(store.scroll(name, page=SAMPLED_POINTS), SAMPLED_POINTS))
    except StoreError:
        return None
    owners = list(_possible_owners(alias))
    return next((owner for point in points for owner in owners if typed_key(point, owner["index"])), None)


def _possible_owners(alias: Alias) -> Iterator[Mapping[str, str]]:
    """Yield all pairs of project and index whose names make an alias, its own first."""
    yield alias.owner
    words = alias.split("_")
    for count in range(1, len(words)):
        yield {"project": "_".join(words[:count]), "index": "_".join(words[count:])}
