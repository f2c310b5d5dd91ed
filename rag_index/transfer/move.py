"""Indexes carried over into another store without embedding: embedded to server, server to server, and back.

    carry what differs, until nothing does -> counts -> disown the old collections -> the new ones' id -> alias

The ledger needs no change. Its rows belong to a collection, which is known by its name and its `store_id`; both are
carried over, so that with the new store in the settings the same rows explain the same points (what was open stays
open, and the next run writes it again). Collections kept for a rollback are carried too: the ledger knows them.

A ledger explains one store. Were the old one indexed after a move, the ledger would take documents for done that the
new one never got, and no count would show it. So the old collections lose their `store_id` before the new ones get
it: at no time do both have it. Readers still search the old ones, but a run there is refused, and `rag-index doctor`
says where the index went, until `move` carries it back.

Repeating a move goes on where one was stopped: a collection without its id is not taken for whole, nothing shows it
before the end, and points that are there already are not sent again.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr, ValidationError

from rag_index.doctor.collection_state import MOVED_ID, MOVED_TO
from rag_index.errors import SettingsError, StoreError, StoreMismatch
from rag_index.indexing.target import live_collection
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.settings.sections import StoreSettings
from rag_index.stores import open_store
from rag_index.transfer.copy import CopyCounts, copy_points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.ledger import Collection
    from rag_index.settings import IndexSettings, Settings
    from rag_index.stores import Store

__all__ = ["Moved", "farewell", "move", "settings_lines", "target_settings"]

SAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Moved:
    """One index that is in the new store."""

    index: str
    collections: list[str]
    """The one that is shown comes last."""
    documents: int
    points: int
    copied: int
    """Points that were sent now; those of an earlier, stopped move were there."""
    rounded: int = 0
    """Vectors whose last bits the new store changed; Qdrant itself changes none."""

    def sentence(self) -> str:
        """For a person."""
        rounded = f", {self.rounded:,} of them rounded in their last bits" if self.rounded else ""
        return (
            f"{self.documents:,} documents, {self.points:,} points in {', '.join(self.collections)}; "
            f"{self.copied:,} carried over now, all compared{rounded}"
        )

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def target_settings(settings: Settings, to: str, api_key: str | None = None) -> StoreSettings:
    """The settings of the store to move to: a server's URL, or a folder.

    Raises SettingsError where it is neither, or where it is the store that the indexes are in.
    """
    values = settings.store.model_dump(exclude={"url", "path", "api_key"})
    values |= {"url": to, "api_key": SecretStr(api_key) if api_key else None} if "://" in to else {}
    if "://" not in to:
        values["path"] = Path(to).expanduser().absolute()
    try:
        target = StoreSettings(**values)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SettingsError(f"--to {to} {reason}, or name a folder") from error
    if _place(target) == _place(settings.store):
        raise SettingsError(f"--to {to}: the indexes are there already; name another store")
    return target


def move(
    settings: Settings,
    target: StoreSettings,
    names: Sequence[str] | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> list[Moved]:
    """Carry these indexes over, all that hold anything where none are named; `say` is told how far it is.

    Raises UnknownIndex, IndexLocked, StoreBusy, StoreMismatch (store and ledger do not belong together, or the target
    has another collection of this name), and what the stores raise; nothing that is not whole is shown then.
    """
    with ExitStack() as stack:
        ledger: Any = stack.enter_context(_closing(Ledger(settings.ledger_url)))
        old: Any = stack.enter_context(_closing(open_store(settings.store, wait=settings.run.wait)))
        new: Any = stack.enter_context(_closing(open_store(target, wait=settings.run.wait)))
        live = old.aliases()
        empty = [index.name for index in settings.named(names) if settings.alias(index.name) not in live]
        indexes = [index for index in settings.named(names) if index.name not in empty]
        if (empty and names) or not indexes:
            raise StoreError(
                f"index {empty[0]} is empty, there is nothing to move: `rag-index index {empty[0]}` fills it"
            )
        return [_Move(settings, index, ledger, old, new, _place(target), say).all() for index in indexes]


def settings_lines(target: StoreSettings) -> str:
    """The line of `[store]` that names this store."""
    return f'url = "{target.url}"' if target.url else f'path = "{target.path}"'


def farewell(settings: Settings, target: StoreSettings, moved: Sequence[Moved], *, api_key: bool) -> str:
    """What is left for a person to do."""
    lines = [f"Now change {settings.path}, section [store]: {settings_lines(target)}"]
    if target.url is None:
        lines[0] += " (and remove its url)" if settings.store.url else ""
    if api_key:
        lines.append("and give the key as RAG_INDEX_STORE__API_KEY.")
    done = {one.index for one in moved}
    if left := [index.name for index in settings.indexes if index.name not in done]:
        lines.append(f"Not moved, and not to be found there: {', '.join(left)}; `rag-index move` them as well.")
    lines.append(
        "The old store can be searched still; runs there are refused, since the ledger now explains the new one."
    )
    return "\n".join(lines)


class _Move:
    """One index, under its lock."""

    def __init__(
        self,
        settings: Settings,
        index: IndexSettings,
        ledger: Ledger,
        old: Store,
        new: Store,
        place: str,
        say: Callable[[str], None],
    ) -> None:
        self._index = index.name
        self._alias = settings.alias(index.name)
        self._ledger = ledger
        self._old = old
        self._new = new
        self._place = place
        self._say = say
        self._said = time.monotonic()

    def all(self) -> Moved:
        """Carry all collections of the index, then hand over. See the module for the order."""
        with IndexLease(self._ledger, self._alias, f"move to {self._place}") as lease:
            collections = self._collections()
            live = collections[-1]
            copied: list[CopyCounts] = []
            if not self._handed_over(collections):
                self._check_target(collections)
                copied = [self._copy_collection(collection, lease) for collection in collections]
                for collection in collections:
                    disowned = {"store_id": None, MOVED_ID: collection.store_id, MOVED_TO: self._place}
                    self._old.set_metadata(collection.name, disowned)
                for collection in collections:
                    self._new.set_metadata(collection.name, {"store_id": collection.store_id, MOVED_ID: None})
                self._new.point_alias(self._alias, live.name)
            documents, points = self._ledger.totals(live.id).documents, self._new.count(live.name)
            sent, rounded = sum(one.sent for one in copied), sum(one.rounded for one in copied)
            return Moved(self._index, [c.name for c in collections], documents, points, sent, rounded)

    def _collections(self) -> list[Collection]:
        """What is to be carried: what the ledger and the old store both have, the one that is shown last."""
        there = self._old.collections()
        name = self._old.aliases()[self._alias]
        live = self._ledger.collection(name)
        gone = there[name].get(MOVED_TO)
        if gone and (gone != self._place or live is None or there[name].get(MOVED_ID) != live.store_id):
            raise StoreMismatch(
                f"{name} was carried to {gone}: name that store in the settings, and move it from there"
            )
        if not gone:
            live = live_collection(self._ledger, self._old, self._alias)
            self._check_counts(live)
        if live is None:
            raise StoreMismatch(f"{name} is not known to the ledger: `rag-index doctor` shows more")
        ids = {name: metadata.get("store_id") or metadata.get(MOVED_ID) for name, metadata in there.items()}
        kept = [c for c in self._ledger.collections(self._alias) if c.state == "ready" and c.id != live.id]
        return [*(c for c in kept if ids.get(c.name) == c.store_id), live]

    def _check_counts(self, live: Collection | None) -> None:
        """What is not as the ledger says is mended before it is carried."""
        if live is None or (totals := self._ledger.totals(live.id)).pending:
            return
        if (stored := self._old.count(live.name)) != totals.points:
            raise StoreMismatch(
                f"{live.name} holds {stored:,} points, the ledger explains {totals.points:,}: "
                "`rag-index doctor --repair` mends it, then move it"
            )

    def _handed_over(self, collections: list[Collection]) -> bool:
        """An earlier move came to its end: the new store is the ledger's, and may have changed since."""
        here, there = self._old.collections(), self._new.collections()
        return self._alias in self._new.aliases() and all(
            here[c.name].get(MOVED_TO) == self._place and there.get(c.name, {}).get("store_id") == c.store_id
            for c in collections
        )

    def _check_target(self, collections: list[Collection]) -> None:
        """Nothing of another project, and nothing newer, is in the way."""
        there = self._new.collections()
        for collection in collections:
            metadata = there.get(collection.name)
            if metadata is not None and collection.store_id not in (metadata.get("store_id"), metadata.get(MOVED_ID)):
                raise StoreMismatch(
                    f"{self._place} has another collection {collection.name}, which this ledger did not make: remove "
                    "it there, or give this project another name ([settings] project)"
                )
        showing = self._new.aliases().get(self._alias)
        if showing is not None and showing not in {c.name for c in collections}:
            raise StoreMismatch(
                f"{self._place} shows {showing} as {self._alias}, which this ledger did not make: remove it there, or "
                "give this project another name ([settings] project)"
            )

    def _copy_collection(self, collection: Collection, lease: IndexLease) -> CopyCounts:
        """One collection, without its id as yet."""
        name, metadata = collection.name, self._old.collections()[collection.name]
        unfinished = {"store_id": None, MOVED_TO: None, MOVED_ID: collection.store_id}
        self._new.create(name, self._old.dimension(name), {**metadata, **unfinished})
        if not self._old.embedded:  # what workers of a dead run still send is refused from here on
            self._old.set_metadata(name, {"epoch": lease.epoch})
        if fields := metadata.get("payload_indexes"):
            self._new.index_fields(name, fields)
        total = self._old.count(name)

        def tell(done: int) -> None:
            lease.check()
            if time.monotonic() - self._said > SAY_SECONDS:
                self._said = time.monotonic()
                self._say(f"{self._index}: {done:,} of {total:,} points of {name}")

        return copy_points(self._old, self._new, name, tell)


def _place(store: StoreSettings) -> str:
    """Where a store is, in words that name it: its URL or its folder."""
    return store.url or str(store.path.absolute().resolve())


@contextmanager
def _closing(thing: Any) -> Iterator[Any]:
    try:
        yield thing
    finally:
        thing.close()
