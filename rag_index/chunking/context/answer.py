"""The part of a model's answer that can be used as a context.

Control characters and the model's thinking are removed, and white space is collapsed. An answer of at most `max_chars`
characters is used whole. If it is longer, or if the model did not finish it, the complete sentences that fit are used;
if not even the first fits, the answer is too long. An answer is not text if it has signs that stand for none (U+FFFD,
private use, unassigned), or if less than half of it is letters and digits.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.hosts.ollama_client import Answer

__all__ = ["extract_context"]

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_UNFINISHED = re.compile(r"<think(?:ing)?>")
_SENTENCE = re.compile(r"""[.!?…؟।][")'\]»”’]*(?=\s|$)|[。！？][」』”’]*""")
_JOINERS = "\u200c\u200d"
_NOT_TEXT = {"Cs", "Co", "Cn"}


def extract_context(answer: Answer, max_chars: int) -> tuple[str, str]:
    """Return the context, one line of at most `max_chars` characters, and ""; or "" and why there is none."""
    text = _THINKING.sub(" ", answer.text)
    if _UNFINISHED.search(text):
        return "", "the model thinks, and does not come to an answer"
    if "\ufffd" in text or any(unicodedata.category(sign) in _NOT_TEXT for sign in text):
        return "", "the answer is not text"
    text = _single_line(text)
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


def _single_line(text: str) -> str:
    """Collapse white space, and remove signs that move a cursor, change the direction of writing or are invisible."""
    kept = (
        sign if unicodedata.category(sign)[0] != "C" or sign in _JOINERS else " " if sign.isspace() else ""
        for sign in text
    )
    return " ".join("".join(kept).split())
