"""examples/: the one command of each README prints what the README says, and its links lead
somewhere."""

import re
import shutil

import pytest

from tests.docs.pages import ROOT, blocks, page, section, table, type_in

EXAMPLES = {path.parent.name: path.parent for path in (ROOT / "examples").glob("*/README.md")}
ELSEWHERE = {"langchain", "haystack"}
"""Examples that need another environment: tests/search/frameworks has it."""
LONG = {"agent", "shop", "source-tree", "tickets", "web", "wiki"}
HERE = [
    pytest.param(one, marks=pytest.mark.long if one in LONG else ())
    for one in sorted(EXAMPLES.keys() - ELSEWHERE)
]
PAGE = page("evaluation")


def run_example(name, folder, *programs, **variables):
    """Run the command of an example in a folder, and check what its page says. `programs` come
    first on the path."""
    readme = (EXAMPLES[name] / "README.md").read_text()
    (command,), (expected,) = blocks(readme, "sh"), blocks(readme, "text")
    here = shutil.copytree(EXAMPLES[name], folder / "example")
    assert expected.strip() in type_in(here, command, *programs, **variables)


def test_every_example_is_listed_and_its_links_lead_somewhere():
    listed = [
        re.findall(r"examples/(.+)/README", row[0])[0] for row in table(page("tutorial"), "example")
    ]
    assert sorted(listed) == sorted(EXAMPLES)
    for folder in EXAMPLES.values():
        for link in re.findall(r"\]\(([^)#]+)", (folder / "README.md").read_text()):
            assert (folder / link).exists(), (folder, link)


@pytest.fixture
def database(postgres):
    """The variable that names an empty database."""
    with postgres.database() as name:
        yield {"RAG_INDEX_SOURCE__URL": postgres.url(name).render_as_string(hide_password=False)}


@pytest.mark.parametrize("name", HERE)
def test_the_command_of_an_example_prints_what_its_page_says(name, tmp_path, request):
    run_example(
        name, tmp_path, **(request.getfixturevalue("database") if name == "tickets" else {})
    )


@pytest.mark.long
def test_the_example_prints_what_the_page_shows(tmp_path):
    first = section(PAGE, "## Measure with a golden file")
    (tmp_path / "golden.jsonl").write_text(blocks(first, "json golden.jsonl")[0])
    assert blocks(section(PAGE, "## Read the table"), "text printed")[0] in type_in(
        tmp_path, blocks(first, "sh")[0]
    )
