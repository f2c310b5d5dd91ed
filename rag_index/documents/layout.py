"""How the text of a document is divided: its title, its own text, and its parts, such as the comments of a ticket.

The text of a document with parts is one text, in which the parts follow the document's own. Whatever looks at texts
needs not know of parts. Only a chunker does, and the hits: a chunk of a part says which part it is of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from rag_index.documents.canonical import decode_payload, encode_payload

BETWEEN = "\n\n"
"""What stands between the parts of a text."""
TITLE, LINK, PART = "title", "link", "part"
"""The keys of these in our own part of a payload (`batches.RESERVED_KEY`)."""
NO_LAYOUT = b""
"""The layout of a text that is not divided and has no title."""


class TextPart(NamedTuple):
    """A part of a text, from `start` to `end`."""

    start: int
    end: int
    name: str
    """What such a part is called, such as "comment"."""
    id: str
    """The id of its row as people see it; "" if nothing names it."""
    link: str
    """The address of the part; "" if it has none of its own."""
    payload: dict[str, Any]
    """The fields of the part."""

    def description(self) -> dict[str, str]:
        """Return what a hit says of the part: its name, and its id and link if it has these."""
        return {name: value for name, value in (("name", self.name), ("id", self.id), (LINK, self.link)) if value}


@dataclass(frozen=True, slots=True)
class TextLayout:
    """The layout of one text: its title, where the document's own text ends, and its parts in order.

    `lacks` says in a sentence which parts cannot be read; "" if none. `language` is the name of the language that the
    row says the text is in; "" if it says none.
    """

    title: str
    end: int
    parts: list[TextPart]
    lacks: str = ""
    language: str = ""

    @classmethod
    def decode(cls, encoded: bytes) -> TextLayout:
        """Return the layout that `encode` encoded."""
        found = decode_payload(encoded)
        parts = [TextPart(*part) for part in found["parts"]]
        return cls(found["title"], found["end"], parts, found["lacks"], found.get("language", ""))

    def encode(self) -> bytes:
        """Return the layout as canonical JSON, the same for equal layouts."""
        fields = {"title": self.title, "end": self.end, "parts": list(map(list, self.parts)), "lacks": self.lacks}
        return encode_payload(fields | ({"language": self.language} if self.language else {}))
