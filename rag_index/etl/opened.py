"""What a run of an index holds open, in the order in which it is opened: source, ledger, lease,
store.

The lease comes before the store, so that a second run of the index ends before it touches the
store. A kill leaves the lease in the ledger. The next run takes it over at once if its holder is a
dead process of this machine, and otherwise once it has expired.
"""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import attrs
from pydantic import ConfigDict, Field

from rag_index.components.ledger import Collection, Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.sources import Source, open_source, scan_settings
from rag_index.components.stores import open_own_store, open_reader
from rag_index.core.settings import Alias, IndexSettings, Settings, load_settings
from rag_index.errors import SettingsReplaced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.components.stores.protocol import Store, StoreReader
    from rag_index.core.settings import StoreSettings


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to do differently from the settings in this run."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", use_attribute_docstrings=True
    )
    workers: Annotated[int, Field(ge=1)] | None = None
    """How many processes embed; by default as the settings say."""
    shard_documents: Annotated[int, Field(ge=1)] | None = None
    """How many documents a worker is given at a time; by default as the settings say."""
    serial: bool = False
    """Whether to embed in one process, without workers."""
    wait: Annotated[float, Field(ge=0)] | None = None
    """How long to wait for services that are down at the start, in seconds; by default `[run]
    wait_for_recovery`."""
    full: bool = False
    """Whether to rebuild the index beside the live collection."""
    allow_deletes: bool = False
    """Whether to delete documents that the delete guard held back, whatever their number."""
    allow_loss: bool = False
    """Whether to publish a rebuilt collection without asking its gate."""
    retry_failed: bool = False
    """Whether to try failed documents again, however often they were tried."""

    def in_settings(self) -> dict[str, Any]:
        """Return the options that replace settings, as `run_settings` takes them."""
        names = ("workers", "shard_documents", "serial", "wait")
        return {name: getattr(self, name) for name in names}


@attrs.frozen
class Origin:
    """The store that the settings name, for a run that rebuilds an index in another store.

    It has the live collection, which the new one is compared with and takes vectors from. It is
    only read, and searches go on there.
    """

    settings: StoreSettings
    store: StoreReader


@attrs.frozen
class Opened:
    """A run of one index, and everything that it holds open. For one thread."""

    settings: Settings
    """The settings of the run. Their `store` is the one that the run writes to."""
    index: IndexSettings
    options: RunOptions
    run_id: str
    source: Source
    ledger: Ledger
    lease: IndexLease
    store: Store
    single: bool = False
    """Whether the run reads single documents alone. Nothing is known of the others then, so such a
    run never completes the collection."""
    looked_at: float | None = None
    """The time (Unix) at which a watch last checked whether the source was written, before it began
    this run. None for any other run."""
    origin: Origin | None = None
    """The store of the live collection, if the run rebuilds in another store; else None."""

    @property
    def alias(self) -> Alias:
        """The alias by which readers find the index."""
        return self.settings.alias(self.index.name)

    @property
    def live_store(self) -> StoreReader:
        """The store of the live collection, which searches read."""
        if self.origin is None:
            return self.store
        return self.origin.store

    @property
    def live(self) -> Collection | None:
        """The live collection, if the ledger knows it."""
        aliases = self.live_store.aliases()
        name = aliases.get(self.alias, "")
        return self.ledger.collection(name)


@contextmanager
def open_index(
    settings: Settings,
    name: str,
    options: RunOptions,
    *,
    run_id: str,
    single: bool = False,
    keep: tuple[Source, Ledger, Store | None] | None = None,
    looked_at: float | None = None,
    to: StoreSettings | None = None,
) -> Iterator[Opened]:
    """Open all that a run needs, and close it afterwards.

    Args:
        keep: Source, ledger and store that the caller has open. They are used and left open.
        looked_at: As `Opened.looked_at`.
        to: The store that a rebuild writes to, if that is not the store of the settings.

    Raises:
        UnknownIndex, SettingsError, SourceError, LedgerError, LedgerUnavailable, StoreBusy
        IndexLocked: Another run holds the index.
        SettingsReplaced: The settings file has changed since this process read it.

    Example:
        with open_index(settings, "comments", RunOptions(), run_id=str(uuid.uuid4())) as opened: ...
    """
    index = settings.index(name)
    source, ledger, store = keep or (None, None, None)
    with ExitStack() as stack:
        source = source or stack.enter_context(closing(open_source(settings, index)))
        ledger = ledger or stack.enter_context(closing(Ledger(settings.ledger_url)))
        lease = stack.enter_context(IndexLease(ledger, settings.alias(name), run_id))
        _require_current(settings, index)
        origin = None
        # `rebuild --to`: from here on, the store of the settings is the other one.
        if to is not None:
            reader = open_reader(
                settings.store, wait=settings.run.wait, patience=settings.run.wait_for_recovery
            )
            origin = Origin(settings.store, stack.enter_context(closing(reader)))
            settings = settings.model_copy(update={"store": to})
        store = store or stack.enter_context(closing(open_own_store(settings)))
        ledger.start_run(run_id, settings.alias(name), host=socket.gethostname(), pid=os.getpid())
        yield Opened(
            settings,
            index,
            options,
            run_id,
            source,
            ledger,
            lease,
            store,
            single,
            looked_at,
            origin,
        )


@contextmanager
def hold_index(settings: Settings, alias: Alias) -> Iterator[tuple[Ledger, IndexLease, Store]]:
    """Hold ledger, lease and store for a command that writes an index and is no run. Raises as
    `open_index`."""
    run_id = str(uuid.uuid4())
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        IndexLease(ledger, alias, run_id) as lease,
        closing(open_own_store(settings)) as store,
    ):
        yield ledger, lease, store


def _require_current(settings: Settings, index: IndexSettings) -> None:
    """Raise SettingsReplaced if the settings of an index have changed in their file since this
    process read them."""
    if not settings.is_outdated:
        return
    now = load_settings(settings.path)
    new_hash = scan_settings(now, now.index(index.name))
    if new_hash != scan_settings(settings, index):
        raise SettingsReplaced(
            f"index {index.name}: {settings.path.name} has changed since this run read it, so"
            " nothing was written by the settings before; start it again"
        )
