"""BBCode, the markup of forums: `[b]bold[/b]`, and the elements as which newer forums store it."""

from __future__ import annotations

import html
import re

from rag_index.components.sources.markup import html_text, is_html

_BBCODE_NAMES = frozenset(
    [
        "b",
        "i",
        "u",
        "s",
        "url",
        "img",
        "quote",
        "code",
        "list",
        "size",
        "color",
        "font",
        "email",
        "left",
        "right",
        "center",
        "spoiler",
        "youtube",
        "table",
        "tr",
        "td",
        "attachment",
        "indent",
        "hr",
        "sub",
        "sup",
        "*",
    ]
)
_BBCODE = re.compile(
    r"\[(?P<end>/?)(?P<name>\*|[a-z]++)(?P<value>(?:[=: ](?:[^\[\]\n]|\[[^\[\]\n]*+\])*+)?)\]",
    re.IGNORECASE,
)
_BBCODE_HTML = {
    "code": "<pre>",
    "/code": "</pre>",
    "quote": "<blockquote>",
    "/quote": "</blockquote>",
    "*": "<li>",
    "td": " | ",
    **{name: f"<{name}>" for name in ("sub", "/sub", "sup", "/sup")},
    **dict.fromkeys(
        ("tr", "/tr", "list", "/list", "hr", "center", "/center", "indent", "/indent"), "<br>"
    ),
}
_AUTHOR = re.compile(r"=\s*(?:&quot;|[\"'])?([^\"'&]+)")
_ELEMENTS_OF_BBCODE = re.compile(
    r"<(/?)(?:(CODE)|(LIST)|QUOTE)(?: author=\"([^\"]*)\")?(?:\s[^<>]*+)?>"
)
_TAGS_OF_ELEMENTS = re.compile(r"<([se])>[^<>]*+</\1>")
"""The tags themselves, as newer forums keep them beside the elements: `<s>[b]</s>`."""
_ADDRESSED = frozenset(["attachment", "img", "youtube"])
"""Names of tags around an address or a number, which nobody reads."""


def bbcode_text(text: str) -> str:
    """Return the text of BBCode, which may be mixed with HTML and entities. Code stays as it is."""
    # "<r>See <B><s>[b]</s>this<e>[/b]</e></B></r>": a post of a newer forum
    if text.startswith(("<r>", "<t>")):
        without_tags = _TAGS_OF_ELEMENTS.sub("", text)
        converted = _ELEMENTS_OF_BBCODE.sub(_element, without_tags)
        return html_text(converted, lines=True, elements=None)
    converted = _as_html(text, is_mixed=is_html(text))
    if "<" in converted:
        return html_text(converted, lines=True)
    return html.unescape(converted)


def _as_html(text: str, *, is_mixed: bool) -> str:
    """Return BBCode as HTML. Unless it `is_mixed` with HTML, each `<` is a character."""

    def escaped(part: str) -> str:
        return part if is_mixed else part.replace("<", "&lt;")

    pieces = list[str]()
    done = 0
    for tag in bbcode_tags(text):
        name = _name_of(tag)
        before = text[done : tag.start()]
        done = tag.end()
        # [img]http://example.com/a.png[/img]
        if tag["end"] and name in _ADDRESSED and not re.search(r"\s", before):
            continue
        pieces.append(escaped(before))
        pieces.append(_BBCODE_HTML.get(tag["end"] + name, ""))
        # [quote="Ann"]
        author = _AUTHOR.match(tag["value"]) if name == "quote" else None
        if author and not tag["end"]:
            pieces.append(escaped(f"{author[1]}: "))
    pieces.append(escaped(text[done:]))
    return "".join(pieces)


def _element(tag: re.Match[str]) -> str:
    """Return an element of a newer forum as one of HTML: `<QUOTE author="Ann">`."""
    if tag[2]:
        name = "pre"
    elif tag[3]:
        name = "ul"
    else:
        name = "blockquote"
    author = f"{tag[4]}: " if tag[4] else ""
    return f"<{tag[1]}{name}>{author}"


def bbcode_tags(text: str) -> list[re.Match[str]]:
    """Return the tags of a text in order: those that another one ends, their ends, and those that
    stand alone. Tags in code are left out."""
    tags = [tag for tag in _BBCODE.finditer(text) if _name_of(tag) in _BBCODE_NAMES]
    last_code_end = -1
    for number, tag in enumerate(tags):
        if tag["end"] and _name_of(tag) == "code":
            last_code_end = number
    found = set[int]()
    opened: dict[str, list[int]] = {}
    in_code = False
    for number, tag in enumerate(tags):
        name = _name_of(tag)
        # [code]a[i][/code]: only the end of the code is a tag
        if in_code and not (tag["end"] and name == "code"):
            continue
        # [*] one
        if name in ("*", "hr"):
            found.add(number)
        elif not tag["end"]:
            in_code = name == "code" and number < last_code_end
            opened.setdefault(name, []).append(number)
        elif opened.get(name):
            in_code = False
            found |= {opened[name].pop(), number}
    paired = [tags[number] for number in sorted(found)]
    # [*] is an item of a list, and three characters elsewhere
    has_list = any(_name_of(tag) == "list" for tag in paired)
    return [tag for tag in paired if has_list or tag["name"] != "*"]


def _name_of(tag: re.Match[str]) -> str:
    return tag["name"].lower()
