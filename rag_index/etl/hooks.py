"""Hooks of a run: what its caller asks the collections by search, which the run itself does not know.

`evaluation.hooks` has the gate of a rebuild, the golden queries of an ordinary run, and what scores mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.etl.run import IndexRun


class Hooks(Protocol):
    """What is asked in one run, and said in its outcome. An error of a question ends no run."""

    def begin(self, run: IndexRun, *, live: bool) -> None:
        """Take note of the run, which has its collection now, and whether it brings a `live` one up to date."""

    def before_writing(self) -> None:
        """Ask before a shard is written that was full before all was read."""

    def when_read(self, documents: int) -> None:
        """Ask once all was read, before the last shards are written: so many documents had to be embedded."""

    def before_publishing(self, live: str | None) -> str:
        """Return why the rebuilt collection may not take the place of the `live` one; "" if it may."""
        return ""

    def after_run(self, documents: int) -> None:
        """Ask again, after this many documents were written."""


HooksOf: TypeAlias = "Callable[[Settings, IndexSettings, bool], Hooks]"
"""What makes the hooks of a run of an index. Told that it rebuilds, it raises SettingsError if it cannot ask."""
