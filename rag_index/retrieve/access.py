"""Who may see what: the conditions that the settings and the caller's groups add to whatever is asked of an index.

Access fails closed. An index with `access` answers nothing to a caller who gives no groups, and a document is only for
callers who have one of its groups. The collection itself says whether its documents have groups, so that a reader whose
settings are older, or others, does not see more. The conditions are part of each request to the store, so that no other
document is ever a candidate.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from rag_index.errors import SettingsError, StoreError
from rag_index.retrieve.filters import required_conditions
from rag_index.settings.payload_indexes import GROUPS_FIELD
from rag_index.stores import Condition

if TYPE_CHECKING:
    from rag_index.retrieve.live import LiveCollection
    from rag_index.settings import Settings


class AllGroups(Enum):
    """The type of `ALL_GROUPS`."""

    ALL_GROUPS = "all groups"


ALL_GROUPS: Final = AllGroups.ALL_GROUPS
"""The groups of a caller who may see every document, those without any group too: for administrators and tests."""

Groups = Iterable[str] | AllGroups | None
"""The groups of a caller as they may be given; None is no group."""
CallerGroups = frozenset[str] | AllGroups


def caller_groups(given: Groups) -> CallerGroups:
    """Return the groups of a caller.

    Raises:
        SettingsError: a group is not a text.
    """
    if isinstance(given, AllGroups):
        return given
    single = isinstance(given, str) or not isinstance(given, Iterable | None)
    groups: list[Any] = [given] if single else list(given or ())
    for group in groups:
        if not isinstance(group, str):
            raise SettingsError(f'groups are texts, not {group!r}; give a list such as ["staff", "7"]')
    return frozenset(filter(None, groups))


class AccessRules:
    """The conditions of each index. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        """Check each `required_filter`. Raises SettingsError if one is not valid."""
        self._required = {index.name: required_conditions(index) for index in settings.indexes}
        self._restricted = {index.name for index in settings.indexes if index.access is not None}

    def is_open(self, index: str, groups: CallerGroups) -> bool:
        """Return whether an index answers a caller at all."""
        return index not in self._restricted or isinstance(groups, AllGroups) or bool(groups)

    def conditions(self, live: LiveCollection, groups: CallerGroups) -> tuple[Condition, ...]:
        """Return the conditions that every request for this caller has to have.

        Raises StoreError if nothing may be asked: a caller without groups asks for documents that have some, although
        perhaps the settings name none.
        """
        index = live.index
        if isinstance(groups, AllGroups) or not (live.restricted or index in self._restricted):
            return self._required[index]
        if not groups:
            raise StoreError(
                f"index {index} says who may see its documents, and these settings do not: set its `access`, "
                "or ask with groups"
            )
        return (*self._required[index], Condition(GROUPS_FIELD, "any", sorted(groups)))
