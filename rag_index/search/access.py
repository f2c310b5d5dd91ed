"""Access rights: the caller, and the conditions that settings and rights add to each request to an
index.

Access fails closed. An index with `access` answers nothing to a caller without groups, and a
document is only for callers who have one of its groups. The collection itself records whether its
documents have groups, so that a reader with older or other settings does not see more. The
conditions are part of each request to the store, so that no hidden document is ever a candidate.

With `access = "database"`, any document can be a candidate. The database returns which of them the
caller may see, before anything else happens to them. Results that count all documents, such as
facets, leave such an index out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from rag_index.components.stores.protocol import PayloadCondition
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import RagIndexError, SettingsError, SourceUnavailable, StoreError
from rag_index.search.filters import required_conditions

if TYPE_CHECKING:
    from rag_index.components.sources.policies import RowRights
    from rag_index.core.settings import Settings
    from rag_index.search.live_collections import LiveCollection

logger = logging.getLogger(__name__)
JSON_CLAIMS = "request.jwt.claims"
"""The database setting from which the policies of PostgREST and Supabase read all claims."""


class AllGroups(Enum):
    """The type of `ALL_GROUPS`."""

    ALL_GROUPS = "all groups"


ALL_GROUPS: Final = AllGroups.ALL_GROUPS
"""The groups of a caller who may see every document, also documents without a group. They are for
administrators and tests."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a search: a name, groups, and a role in the database.

    The name is that of a token, or the subject of a JWT. Row policies of the database read the
    `claims`. A caller without groups and without a role sees nothing of an index that has access
    rights.
    """

    name: str = ""
    groups: frozenset[str] | AllGroups = frozenset()
    role: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    local: bool = False
    """Whether the caller is a person on this machine, who can read settings and database anyway."""

    @property
    def has_all_rights(self) -> bool:
        """Return whether the caller may ask why a document is not found."""
        return self.sees_all or self.local

    @property
    def sees_all(self) -> bool:
        """Return whether no document is hidden from the caller."""
        return isinstance(self.groups, AllGroups)

    def settings(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return the database settings by which row policies identify the caller.

        Args:
            names: The claim to pass in each setting: `{"app.user_id": "sub"}`.

        Raises:
            StoreError: The caller lacks one of these claims.
        """
        found = {JSON_CLAIMS: json.dumps(dict(self.claims), default=str)}
        for setting, name in names.items():
            value = claim_of(self.claims, name)
            if value is None:
                raise StoreError(
                    f"the caller has no claim {name}, which [source] caller_settings needs"
                )
            found[setting] = value if isinstance(value, str) else json.dumps(value)
        return found


NOBODY: Final = Caller()
Groups = Iterable[str] | AllGroups | Caller | None
"""A caller, or a caller's groups, in the forms that a search accepts; None is no group."""


def caller_of(given: Groups) -> Caller:
    """Return the caller with these groups. Raises SettingsError if a group is not a text."""
    if isinstance(given, Caller):
        return given
    if isinstance(given, AllGroups):
        return Caller(groups=given)
    # A single value, which may be wrong: "staff", 7.
    if isinstance(given, str) or not isinstance(given, Iterable | None):
        groups: list[Any] = [given]
    # None, or several groups: ["staff", "7"].
    else:
        groups = list(given or ())
    for group in groups:
        if not isinstance(group, str):
            raise SettingsError(
                f'groups are texts, not {group!r}; give a list such as ["staff", "7"]'
            )
    return Caller(groups=frozenset(filter(None, groups)))


def claim_of(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim; None if the caller has no such claim."""
    # A claim's own name may have dots, "https://example.com/groups". Otherwise dots lead into
    # claims that hold objects: "realm_access.roles".
    parts = [name] if name in claims else name.split(".")
    found: Any = claims
    for part in parts:
        found = found.get(part) if isinstance(found, dict) else None
    return found


class AccessRules:
    """Decides who may see which documents of which index. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        """Check each `required_filter`. Raises SettingsError if one is not valid."""
        self._settings = settings
        self._required = {index.name: required_conditions(index) for index in settings.indexes}
        self._restricted = {index.name for index in settings.indexes if index.access is not None}
        self._asked = {index.name for index in settings.indexes if index.asks_database}
        self._rights: RowRights | None = None

    def is_open(self, index: str, caller: Caller) -> bool:
        """Return whether an index answers a caller at all."""
        # An index without `access`, or a caller with `ALL_GROUPS`.
        if index not in self._restricted or caller.sees_all:
            return True
        # `access = "database"`: the caller needs a role, such as "support".
        if index in self._asked:
            return bool(caller.role)
        # The documents of the index have groups: the caller needs at least one.
        return bool(caller.groups)

    def asks(self, index: str, caller: Caller) -> bool:
        """Return whether the database decides which documents of an index this caller may see."""
        return index in self._asked and not caller.sees_all

    def restricts(self, live: LiveCollection, caller: Caller) -> bool:
        """Return whether documents of an index may be hidden from this caller."""
        if caller.sees_all:
            return False
        # The collection counts besides the settings: they may be older than its documents' groups.
        return live.restricted or live.index in self._restricted

    def conditions(self, live: LiveCollection, caller: Caller) -> tuple[PayloadCondition, ...]:
        """Return the conditions that every request for this caller must have.

        Raises:
            StoreError: The caller may ask for nothing. Either the documents have groups and the
                caller has none (the settings may have no `access`), or the caller's role is not
                allowed, or the caller lacks a claim.
        """
        index = live.index
        required = self._required[index]
        # The database decides later, in `permitted`. A caller whom it would refuse is refused now.
        if self.asks(index, caller):
            self._require_known(index, caller)
            return required
        # Nothing is hidden from the caller.
        if isinstance(caller.groups, AllGroups) or not self.restricts(live, caller):
            return required
        # The documents have groups, and the caller has none.
        if not caller.groups:
            raise StoreError(
                f"index {index} says who may see its documents, and these settings do not: set its"
                " `access`, or ask with groups"
            )
        # Each document needs one of the caller's groups.
        return (*required, PayloadCondition(GROUPS_FIELD, "any", sorted(caller.groups)))

    def permitted(
        self, index: str, caller: Caller, keys: Sequence[str], seconds: float
    ) -> set[str]:
        """Return those of these typed keys whose rows the database shows to the caller now.

        Only call it for an index that `asks`. The log alone has the reason of a failure, because
        the error of a policy can repeat texts of hidden rows.

        Raises:
            StoreError: As `conditions`.
            SourceUnavailable: The database does not answer within `seconds`.
        """
        caller_settings = self._require_known(index, caller)
        try:
            if self._rights is None:
                # Imported when needed: no other search needs a database.
                from rag_index.components.sources.policies import RowRights

                self._rights = RowRights(self._settings.source_url)
            return self._rights.permitted(
                self._settings.index(index), caller.role, caller_settings, keys, seconds
            )
        except RagIndexError as error:
            logger.warning("index %s: %s", index, error)
            raise SourceUnavailable(
                f"the database does not say what the caller may see of index {index}; the log"
                " says why"
            ) from None

    def close(self) -> None:
        """Close the connections to the database."""
        if self._rights is not None:
            self._rights.close()

    def _require_known(self, index: str, caller: Caller) -> dict[str, str]:
        """Return the caller's database settings. Raises StoreError for a role that `caller_roles`
        does not list, and for a missing claim."""
        source = self._settings.source
        if caller.role not in source.caller_roles:
            raise StoreError(
                f"index {index} answers roles that [source] caller_roles names, and the caller's is"
                " none"
            )
        return caller.settings(source.caller_settings)
