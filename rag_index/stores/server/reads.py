"""Reading points of a Qdrant server: by id, page by page, by vector, and counted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from qdrant_client import models

from rag_index.documents.batches import RESERVED_KEY, CommitMark, StoredPoint
from rag_index.stores.conditions import payload_filter
from rag_index.stores.hybrid import LookUp, hybrid_points
from rag_index.stores.points import MARK_ID, check_ids, stored_point, unit_query
from rag_index.stores.server.filter import ServerDialect, key_filter
from rag_index.stores.server.search import Search, id_batches, meeting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.vectors import SparseVector
    from rag_index.settings import ServerSettings
    from rag_index.stores import Condition
    from rag_index.stores.server.limits import KnownLimits, Limits
    from rag_index.stores.server.requests import Requests


class Reads:
    """Reads of a server's collections, in as many requests as its limits need."""

    def __init__(self, requests: Requests, limits: KnownLimits, settings: ServerSettings) -> None:
        self._requests = requests
        self._limits = limits
        self._settings = settings

    def count(self, name: str, keys: Sequence[str] | None) -> int:
        """Return the exact number of points, of these document keys if given."""
        if keys is None:
            return self._requests.count(name, None) - len(self._retrieve(name, [MARK_ID], False))
        unique = list(dict.fromkeys(keys))

        def count(limits: Limits) -> int:
            return sum(
                self._requests.count(name, key_filter(RESERVED_KEY, batch))
                for batch in id_batches(unique, limits.values)
            )

        return self._limits.within(name, count)

    def commit_mark(self, name: str) -> CommitMark:
        """Return the mark of the last commit."""
        return CommitMark.parse(next((p.payload[RESERVED_KEY] for p in self._retrieve(name, [MARK_ID], False)), None))

    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Sequence[Condition] = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions."""
        check_ids(ids)
        if conditions:
            wanted: Any = payload_filter(conditions, ServerDialect())
            ask = partial(meeting, name=name, ids=ids, wanted=wanted, vectors=vectors)
            found = self._limits.within(
                name, lambda limits: self._requests.ask(lambda client: ask(client, limits=limits))
            )
            return list(map(stored_point, found))

        def retrieve(limits: Limits) -> list[StoredPoint]:
            batches = id_batches(ids, limits.ids)
            return [point for batch in batches for point in self._retrieve(name, list(batch), vectors)]

        return self._limits.within(name, retrieve)

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Sequence[Condition] = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions, with one page in memory at a time."""
        wanted = cast("models.Filter | None", payload_filter(conditions, ServerDialect()))
        offset: models.ExtendedPointId | None = None
        while True:
            ask = partial(self._page, name, offset, page, vectors, wanted)
            records, offset = self._limits.within(name, ask)
            yield from (stored_point(record) for record in records if record.id != MARK_ID)
            if offset is None:
                return

    def search(
        self,
        name: str,
        vector: NDArray[np.float32],
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
        exact: bool = False,
    ) -> list[StoredPoint]:
        """Return the nearest points, best first, in as many pages as the server's limits need."""
        search = self._search(name, vector, None, conditions, exact=exact, payload=True)
        [found] = self._limits.within(name, lambda limits: search([LookUp(sparse=False, limit=limit)], limits))
        return found

    def search_hybrid(
        self,
        name: str,
        vector: NDArray[np.float32],
        sparse: SparseVector,
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
        exact: bool = False,
        payload: bool = True,
    ) -> list[StoredPoint]:
        """Return the best points by either vector, each once, with both scores."""
        if not sparse:
            return self.search(name, vector, limit=limit, conditions=conditions, exact=exact)
        words = models.SparseVector(indices=list(sparse.indices), values=list(sparse.values))
        search = self._search(name, vector, words, conditions, exact=exact, payload=payload)
        return self._limits.within(name, lambda limits: hybrid_points(lambda wanted: search(wanted, limits), limit))

    def _search(
        self,
        name: str,
        vector: NDArray[np.float32],
        words: models.SparseVector | None,
        conditions: Sequence[Condition],
        *,
        exact: bool,
        payload: bool,
    ) -> Callable[[Sequence[LookUp], Limits], list[list[StoredPoint]]]:
        """Return a function that does some look-ups of a search within limits."""
        wanted = cast("models.Filter | None", payload_filter(conditions, ServerDialect()))
        search = Search(
            unit_query(vector, None, name), words, wanted, exact=exact, payload=payload, settings=self._settings
        )

        def look_up(wanted: Sequence[LookUp], limits: Limits) -> list[list[StoredPoint]]:
            found = self._requests.ask(lambda client: search.look_up(client, name, wanted, limits))
            return [[stored_point(point, point.score) for point in points] for points in found]

        return look_up

    def _retrieve(self, name: str, ids: list[str], vectors: bool) -> list[StoredPoint]:
        records = self._requests.ask(lambda client: client.retrieve(name, ids, with_payload=True, with_vectors=vectors))
        return [stored_point(record) for record in records]

    def _page(
        self,
        name: str,
        offset: models.ExtendedPointId | None,
        page: int,
        vectors: bool,
        wanted: models.Filter | None,
        limits: Limits,
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        limit = min(page, limits.page)
        options: dict[str, Any] = {"scroll_filter": wanted, "with_payload": True, "with_vectors": vectors}
        return cast(
            "tuple[list[models.Record], models.ExtendedPointId | None]",
            self._requests.ask(lambda client: client.scroll(name, offset=offset, limit=limit, **options)),
        )
