"""What of a model's answer can be used as a context.

Control characters go, white space is collapsed, thinking is left out. An answer of at most `max_chars` characters is
taken whole. Of a longer one, and of one that the model did not bring to its end, the whole sentences that fit are
taken; where not even the first fits, it is too long. An answer with signs that are no text (U+FFFD, private use,
unassigned), or of which less than half are letters and digits, is not text.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.hosts.endpoint import Answer

__all__ = ["usable"]

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_UNFINISHED = re.compile(r"<think(?:ing)?>")
_SENTENCE = re.compile(r"""[.!?…؟।][")'\]»”’]*(?=\s|$)|[。！？][」』”’]*""")
_JOINERS = "\u200c\u200d"
_NO_TEXT = {"Cs", "Co", "Cn"}


def usable(answer: Answer, max_chars: int) -> tuple[str, str]:
    """The context, of at most so many characters in one line; or "" and why there is none, in words."""
    text = _THINKING.sub(" ", answer.text)
    if _UNFINISHED.search(text):
        return "", "the model thinks, and does not come to an answer"
    if "\ufffd" in text or any(unicodedata.category(sign) in _NO_TEXT for sign in text):
        return "", "the answer is not text"
    text = _one_line(text)
    if not text:
        return "", "the answer is empty"
    signs = text.replace(" ", "")
    if 2 * sum(unicodedata.category(sign)[0] in "LMN" for sign in signs) < len(signs):
        return "", "the answer is not text"
    if answer.ended and len(text) <= max_chars:
        return text, ""
    ends = [match.end() for match in _SENTENCE.finditer(text) if match.end() <= max_chars]
    if ends:
        return text[: ends[-1]], ""
    return "", f"the answer is too long (no sentence ends within max_chars, {max_chars})"


def _one_line(text: str) -> str:
    """White space as single spaces; nothing that moves a cursor, turns the direction of writing, or is not seen."""
    kept = (
        sign if unicodedata.category(sign)[0] != "C" or sign in _JOINERS else " " if sign.isspace() else ""
        for sign in text
    )
    return " ".join("".join(kept).split())
