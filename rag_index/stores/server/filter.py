"""Conditions on payload fields, as objects of Qdrant's client."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from qdrant_client import models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

ServerCondition: TypeAlias = "models.Condition"


class ServerDialect:
    """A maker of the client's conditions and filters."""

    def keywords(self, field: str, values: list[str]) -> ServerCondition:
        """Require the field to be one of these strings."""
        return models.FieldCondition(key=field, match=models.MatchAny(any=values))

    def truth(self, field: str, value: bool) -> ServerCondition:
        """Require the field to be this boolean."""
        return models.FieldCondition(key=field, match=models.MatchValue(value=value))

    def integers(self, field: str, values: list[int]) -> ServerCondition:
        """Require the field to be one of these integers."""
        return models.FieldCondition(key=field, match=models.MatchAny(any=values))

    def numbers(self, field: str, bounds: Mapping[str, float]) -> ServerCondition:
        """Require the field to be a number within the bounds."""
        return models.FieldCondition(key=field, range=models.Range(**bounds))

    def times(self, field: str, bounds: Mapping[str, datetime]) -> ServerCondition:
        """Require the field to be a time within the bounds."""
        return models.FieldCondition(key=field, range=models.DatetimeRange(**bounds))

    def empty(self, field: str) -> ServerCondition:
        """Require the field to be missing, null or an empty list."""
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))

    def group(
        self, must: list[ServerCondition], should: list[ServerCondition], must_not: list[ServerCondition]
    ) -> ServerCondition:
        """Require all of must, one of should and none of must_not."""
        return models.Filter(must=must or None, should=should or None, must_not=must_not or None)


def key_filter(reserved: str, keys: Sequence[str], from_chunk: int = 0) -> models.Filter:
    """Return a filter for the points of these document keys, from the given chunk number on."""
    dialect = ServerDialect()
    chunks = [dialect.numbers(f"{reserved}.chunk", {"gte": from_chunk})] if from_chunk else []
    return models.Filter(must=[dialect.keywords(f"{reserved}.key", list(keys)), *chunks])
