"""Citations: what somebody quoted of an index, in one word that can be checked later, and what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from rag_index.retrieve.as_of import AsOf
    from rag_index.retrieve.results import Document

HASH_CHARS = 16
"""Hexadecimal digits of a text's hash: two texts of one document never share 64 bits by chance."""
_FORM = re.compile(rf"\[?([^/\s]+)/([^#\s]+)#([0-9]{{1,9}}):([0-9a-f]{{{HASH_CHARS}}})(?:@([^\s\]]*))?\]?")

State = Literal["unchanged", "changed", "deleted", "hidden"]


@dataclass(frozen=True, slots=True)
class Citation:
    """A chunk of a document as an index held it: `text_hash` is of the document's whole text, in hexadecimal digits.

    `at` is the position or the time up to which the index was complete, "" if that is not known.
    """

    index: str
    document_id: str
    chunk: int
    text_hash: str
    at: str = ""

    @classmethod
    def of(cls, index: str, document_id: str, chunk: int, text_hash: str, as_of: AsOf | None) -> Citation:
        """Return the citation of a chunk in an answer that is true of `as_of`."""
        at = (as_of.position or as_of.at or "") if as_of else ""
        return cls(index, document_id, chunk, text_hash[:HASH_CHARS], at)

    @classmethod
    def parse(cls, text: str) -> Citation:
        """Return what `str` made of a citation, in brackets or not. Raises SettingsError if it is none."""
        found = _FORM.fullmatch(text.strip())
        if not found:
            raise SettingsError(f"{text!r} is no citation; one reads comments/4711#0:0123456789abcdef@POSITION")
        index, document_id, chunk, text_hash, at = found.groups(default="")
        return cls(index, unquote(document_id), int(chunk), text_hash, unquote(at))

    def __str__(self) -> str:
        """Return the citation as one word."""
        at = f"@{_word(self.at)}" if self.at else ""
        return f"{self.index}/{_word(self.document_id)}#{self.chunk}:{self.text_hash}{at}"


def _word(text: str) -> str:
    """Return a text as a person would write it, with percent codes for what would end it."""
    return "".join(one if one.isprintable() and one not in " %#]" else quote(one, safe="") for one in text)


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of a citation, as of a position: `state` is `hidden` if the caller may not see the document.

    `document` is that of today, with the cited chunk alone, if it has changed.
    """

    citation: Citation
    state: State
    as_of: AsOf
    document: Document | None = None

    @property
    def since(self) -> str:
        """The position after which the document changed or was deleted: that of the citation; "" if it has not."""
        return self.citation.at if self.state in ("changed", "deleted") else ""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `POST /verify` answers; with the cited chunk of today if the document changed."""
        plain: dict[str, Any] = {
            "citation": str(self.citation), "state": self.state, "as_of": self.as_of.to_json()
        }  # fmt: skip
        if self.since:
            plain["since"] = self.since
        if self.document is not None:
            plain["text"] = "\n\n".join(chunk.text for chunk in self.document.chunks)
            plain["new_citation"] = str(self.document.citation)
        return plain
