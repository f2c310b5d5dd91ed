"""Who may see what: the caller, and the conditions that settings and rights add to each request to
an index.

Access fails closed. An index with `access` answers nothing to a caller who gives no groups, and a
document is only for callers who have one of its groups. The collection itself says whether its
documents have groups, so that a reader whose settings are older, or others, does not see more. The
conditions are part of each request to the store, so that no other document is ever a candidate.

With `access = "database"` the candidates are any documents, and the database is asked which of them
the caller may see before anything else happens to them. What counts all documents, such as facets,
says nothing of such an index then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from rag_index.components.stores.protocol import Condition
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import RagIndexError, SettingsError, SourceUnavailable, StoreError
from rag_index.search.filters import required_conditions

if TYPE_CHECKING:
    from rag_index.components.sources.policies import RowRights
    from rag_index.core.settings import Settings
    from rag_index.search.live_collections import LiveCollection

logger = logging.getLogger(__name__)
JSON_CLAIMS = "request.jwt.claims"
"""The setting in which the policies of PostgREST and Supabase look for all claims."""


class AllGroups(Enum):
    """The type of `ALL_GROUPS`."""

    ALL_GROUPS = "all groups"


ALL_GROUPS: Final = AllGroups.ALL_GROUPS
"""The groups of a caller who may see every document, those without any group too: for
administrators and tests."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a search: the name of a token or the subject of a JWT, groups, and the role in
    the database.

    Policies read the `claims`. A caller without groups and role sees nothing of an index that has
    access rights.
    """

    name: str = ""
    groups: frozenset[str] | AllGroups = frozenset()
    role: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    local: bool = False
    """Whether it is a person at this machine, who can read settings and database anyway."""

    @property
    def has_all_rights(self) -> bool:
        """Return whether the caller may ask why a document is not found."""
        return self.sees_all or self.local

    @property
    def sees_all(self) -> bool:
        """Return whether nothing is kept from the caller."""
        return isinstance(self.groups, AllGroups)

    def settings(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return the settings of the database by which policies know the caller: `names` has a
        claim for each.

        Raises StoreError if the caller does not have one of these claims.
        """
        found = {JSON_CLAIMS: json.dumps(dict(self.claims), default=str)}
        for setting, name in names.items():
            if (value := claim_of(self.claims, name)) is None:
                raise StoreError(
                    f"the caller has no claim {name}, which [source] caller_settings needs"
                )
            found[setting] = value if isinstance(value, str) else json.dumps(value)
        return found


NOBODY: Final = Caller()
Groups = Iterable[str] | AllGroups | Caller | None
"""A caller, or the groups of one, as they may be given; None is no group."""


def caller_of(given: Groups) -> Caller:
    """Return the caller whom these groups mean. Raises SettingsError if one is not a text."""
    if isinstance(given, Caller):
        return given
    if isinstance(given, AllGroups):
        return Caller(groups=given)
    single = isinstance(given, str) or not isinstance(given, Iterable | None)
    groups: list[Any] = [given] if single else list(given or ())
    for group in groups:
        if not isinstance(group, str):
            raise SettingsError(
                f'groups are texts, not {group!r}; give a list such as ["staff", "7"]'
            )
    return Caller(groups=frozenset(filter(None, groups)))


def claim_of(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim, None if there is none. Dots lead into claims that hold objects."""
    found: Any = claims
    for part in [name] if name in claims else name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


class AccessRules:
    """The conditions of each index, and the database that is asked. Safe to use from several
    threads."""

    def __init__(self, settings: Settings) -> None:
        """Check each `required_filter`. Raises SettingsError if one is not valid."""
        self._settings = settings
        self._required = {index.name: required_conditions(index) for index in settings.indexes}
        self._restricted = {index.name for index in settings.indexes if index.access is not None}
        self._asked = {index.name for index in settings.indexes if index.asks_database}
        self._rights: RowRights | None = None

    def is_open(self, index: str, caller: Caller) -> bool:
        """Return whether an index answers a caller at all."""
        known = caller.role if index in self._asked else caller.groups
        return index not in self._restricted or bool(known) or caller.sees_all

    def asks(self, index: str, caller: Caller) -> bool:
        """Return whether the database says which documents of an index this caller may see."""
        return index in self._asked and not caller.sees_all

    def restricts(self, live: LiveCollection, caller: Caller) -> bool:
        """Return whether documents of an index may be kept from this caller."""
        return not caller.sees_all and (live.restricted or live.index in self._restricted)

    def conditions(self, live: LiveCollection, caller: Caller) -> tuple[Condition, ...]:
        """Return the conditions that every request for this caller has to have.

        Raises StoreError if nothing may be asked: a caller without groups asks for documents that
        have some, although perhaps the settings name none; or one whose role may not be taken, or
        who lacks a claim.
        """
        index = live.index
        if self.asks(index, caller):
            self._known(index, caller)
            return self._required[index]
        if isinstance(caller.groups, AllGroups) or not self.restricts(live, caller):
            return self._required[index]
        if not caller.groups:
            raise StoreError(
                f"index {index} says who may see its documents, and these settings do not: set its"
                " `access`, or ask with groups"
            )
        return (*self._required[index], Condition(GROUPS_FIELD, "any", sorted(caller.groups)))

    def permitted(
        self, index: str, caller: Caller, keys: Sequence[str], seconds: float
    ) -> set[str]:
        """Return which of these typed keys of an index that `asks` the caller may see now, as the
        database says.

        Raises StoreError as `conditions`, and SourceUnavailable if the database does not answer
        within `seconds`. Only the log says why: the error of a policy can repeat texts of hidden
        rows.
        """
        known = self._known(index, caller)
        try:
            if self._rights is None:
                from rag_index.components.sources.policies import (
                    RowRights,
                )  # here: no other search needs a database

                self._rights = RowRights(self._settings.source_url)
            return self._rights.permitted(
                self._settings.index(index), caller.role, known, keys, seconds
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

    def _known(self, index: str, caller: Caller) -> dict[str, str]:
        source = self._settings.source
        if caller.role not in source.caller_roles:
            raise StoreError(
                f"index {index} answers roles that [source] caller_roles names, and the caller's is"
                " none"
            )
        return caller.settings(source.caller_settings)
