"""docs/retrieval.md: its options are those of the command."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "retrieval.md").read_text(encoding="utf-8")


def block(language: str, having: str) -> str:
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if having in code]
    return found


def test_every_option_of_search_is_documented():
    from rag_index.cli.search import search

    for option in search.params:
        for name in option.opts if option.param_type_name == "option" else ():
            assert f"`{name}" in TEXT, name


@pytest.mark.parametrize("words", ["Cormack, Clarke and Büttcher", "SIGIR 2009", "1 / (60 + r)"])
def test_the_source_of_the_formula_is_named_in_both_places(words):
    from rag_index.retrieve import fusion

    assert words.split("(")[0].strip() in " ".join((fusion.__doc__ or "").split())
    assert words in TEXT


def test_the_example_at_the_top_runs(embedded):
    code = (
        block("python", "timeout=0.5")
        .replace("rag-index.toml", str(embedded.config))
        .replace("timeout=0.5", "timeout=20")
    )
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    scope: dict[str, object] = {}
    exec(f"async def main():\n{lines}    return result", scope)
    result = asyncio.run(scope["main"]())
    assert {hit.index for hit in result.hits} == {"comments", "solutions"}
    for name in re.findall(r"^\| `result\.(\w+)`", TEXT, re.MULTILINE):
        assert hasattr(result, name)
    for name in ("index", "document_id", "score", "rank", "text", "payload", "chunks", "fused"):
        assert hasattr(result.hits[0], name)
