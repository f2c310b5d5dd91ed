"""The options of a search are the same in Python, over HTTP, for agents and on the command line."""

import pytest
from click.testing import CliRunner

from rag_index.cli import program
from rag_index.cli import search as commands
from rag_index.search.options import SearchOptions
from rag_index.search.service.mcp_tools import TOOLS
from rag_index.search.service.models import SearchBody, SearchQuery

OPTIONS = SearchOptions.__annotations__.keys()
OF_PYTHON = {"groups"}
"""Over HTTP and for agents the caller's token says them."""
NUMBERS = [("limit", "0", "1001"), ("offset", "-1", "1000"), ("timeout", "0", "nan"), ("dense_weight", "-0.1", "1.1"),
           ("min_relevance", "-1", "2")]  # fmt: skip


def schemas() -> list[dict]:
    return [model.model_json_schema()["properties"] for model in (SearchBody, SearchQuery, TOOLS["search"])]


def test_every_place_has_every_option_with_its_text():
    body, query, tool = schemas()
    assert body.keys() == query.keys() == {"query", "explain"} | OPTIONS - OF_PYTHON
    assert tool.keys() == body.keys() - {"explain", "timeout", "dense_weight"}
    named = {one.name for one in commands.search.params}
    assert named >= OPTIONS - {"groups", "filter", "rerank", "like"}, "whose options have other names there"
    shown = " ".join(CliRunner().invoke(program, ["search", "--help"], terminal_width=80).output.split())
    for name in OPTIONS - OF_PYTHON - {"filter"}:
        assert body[name]["description"] == query[name]["description"]
        if name in tool.keys() - {"limit"}:
            assert tool[name]["description"] == body[name]["description"]
        if name in named and name != "indexes":
            assert " ".join(body[name]["description"].split()) in shown


@pytest.mark.parametrize(("name", "below", "above"), NUMBERS)
def test_every_place_has_the_same_bounds(name, below, above):
    for value in (below, above):
        for model in (SearchBody, SearchQuery):
            with pytest.raises(ValueError, match=name):
                model.model_validate({"query": "printer", name: value})
        refused = CliRunner().invoke(program, ["search", "printer", f"--{name.replace('_', '-')}={value}"])
        assert refused.exit_code == 2
        assert f"--{name.replace('_', '-')}" in refused.output
