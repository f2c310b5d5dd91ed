"""All pages: links lead somewhere, files that are named exist, words that are ours are defined,
failures are whole."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rag_index.care.doctor import REMEDIES
from rag_index.components.ledger.tables import metadata
from tests.docs.pages import ALL, DOCS, EVERYTHING, README, ROOT, code, page, section, table, tables

PRODUCT = ("rag_index", "flows", "tasks", "tests")
FOLDERS = r"rag_index|tasks|flows|tests|benchmarks|docs|deployments|\.ci"
WORDS = {
    "chunk",
    "commit",
    "delete guard",
    "document",
    "finding",
    "fingerprint",
    "gate",
    "ledger",
    "live",
    "part",
    "pending",
    "publish",
    "relevance",
    "remedy",
    "shard",
}


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as a viewer makes them."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[tuple[str, str]]:
    """Return each page's links to other places in the repository."""
    found = [
        (name, link) for name, text in ALL.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)
    ]
    return [(name, link) for name, link in found if not link.startswith(("http://", "https://"))]


def leads_somewhere(name: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (ROOT / name).parent / path if path else ROOT / name
    return target.exists() and (not anchor or anchor in anchors(target))


def test_links_lead_somewhere_and_files_that_are_named_exist():
    assert [(name, link) for name, link in links() if not leads_somewhere(name, link)] == []
    files = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", EVERYTHING))
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []


def test_the_readme_is_short_and_the_list_of_pages_has_every_page():
    assert len(README.splitlines()) <= 92
    assert len(re.findall(r"\]\(docs/\w+\.md", README)) <= 8
    for name in [path.name for path in DOCS.glob("*.md") if path.name != "README.md"]:
        assert f"]({name}" in page("README"), name
        assert f'"docs/{name}"' in (ROOT / "zensical.toml").read_text(encoding="utf-8"), name


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("docs/")])
def test_each_page_begins_with_whom_it_is_for_and_what_one_can_do_after_it(name):
    first = ALL[name].split("\n\n")[1]
    assert first.startswith("For ")
    assert "After this page" in first or name == "docs/README.md"


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith(("README", "docs"))])
def test_no_item_of_a_list_is_a_page_of_its_own(name):
    text = re.sub(r"^```.*?^```", "", ALL[name], flags=re.MULTILINE | re.DOTALL)
    items = re.findall(r"^ *(?:[-*]|\d+\.) (.*)$", text, re.MULTILINE)
    assert [item[:60] for item in items if len(item.split()) >= 100] == []


def test_every_picture_is_used_and_small():
    for path in (DOCS / "images").iterdir():
        assert f"images/{path.name})" in EVERYTHING, path.name
        assert path.stat().st_size < 200_000


def test_every_package_is_named_in_the_tree():
    tree = section(page("development"), "## The tree")
    packages = [
        path
        for depth in ("*", "[!w]*/*")
        for path in (ROOT / "rag_index").glob(f"{depth}/__init__.py")
    ]
    names = {path.parent.name for path in packages}
    folders = {
        path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()
    }
    named = set(re.findall(r"^ *(\w+)/\s", tree, re.MULTILINE))
    assert names | folders <= named
    assert all(
        (ROOT / name).is_dir() or any((ROOT / "rag_index").glob(f"**/{name}/")) for name in named
    )


def test_the_words_that_are_ours_and_each_finding_of_the_doctor_are_described():
    assert {
        word
        for row in table(page("glossary"), "word")
        for word in re.findall(r"\*\*(.*?)\*\*", row[0])
    } >= WORDS
    assert {code(row[0]) for row in table(page("doctor"), "finding")} == REMEDIES.keys()


def test_each_symptom_has_a_cause_and_a_remedy_in_whole_sentences_and_a_documented_exit_code():
    documented = {row[0] for row in table(section(page("commands"), "## Exit codes"), "code")}
    rows = [row for found in tables(page("troubleshooting"), "symptom") for row in found]
    assert len(rows) > 60
    for _, cause, remedy, *exit_code in rows:
        assert cause.endswith("."), cause
        assert remedy.endswith("."), cause
        assert {*exit_code} <= documented | {"137", ""}


def test_a_message_in_troubleshooting_is_one_of_the_program():
    """Of pip, Prefect and databases, those that a reader may see first."""
    others = {
        "externally-managed-environment",
        "rag-index: command not found",
        "password authentication failed",
    }
    others |= {
        "Access denied",
        "no password supplied",
        "401",
        "Scheduled",
        "Late",
        "Crashed",
        "Suspended",
        "Cancelled",
        "AwaitingRetry",
    }
    said = "\n".join(texts_of_the_product())
    rows = [row for found in tables(page("troubleshooting"), "symptom") for row in found]
    messages = {one for row in rows for one in re.findall(r"`([^`]+)`", row[0])} - others
    assert len(messages) > 50
    pieces = [(one, piece.strip()) for one in messages for piece in one.split("…")]
    assert [(one, piece) for one, piece in sorted(pieces) if piece not in said] == []


def test_pages_that_the_program_names_exist():
    named = set(re.findall(r"docs/[\w-]+\.md(?:#[\w-]+)?", "\n".join(texts_of_the_product())))
    named |= set(
        re.findall(
            r"docs/[\w-]+\.md(?:#[\w-]+)?", "".join(map(read, (ROOT / "deployments").rglob("*.*")))
        )
    )
    assert len(named) > 5
    assert [one for one in sorted(named) if not leads_somewhere("README.md", one)] == []


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def texts_of_the_product() -> Iterator[str]:
    """Yield each text of the code, with … for what is put into it."""
    for path in (ROOT / "rag_index").rglob("*.py"):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.JoinedStr):
                parts = [one.value if isinstance(one, ast.Constant) else "…" for one in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_each_row_of_where_to_change_what_names_files_that_exist():
    for what, where, *_ in table(page("development"), "what you want to do"):
        paths = re.findall(r"`([\w.]+/[\w./-]*)`", where)
        assert paths, what
        assert [path for path in paths if not (ROOT / path).exists()] == [], what


@pytest.mark.parametrize("name", ["development", "how-it-works"])
def test_names_of_code_in_backticks_are_in_the_code(name):
    """A name beside its file is in that file; any other is a word of the product, a table of the
    ledger or a module."""
    text = re.sub(r"```.*?```", "", page(name), flags=re.DOTALL)
    files = {
        path: path.read_text(encoding="utf-8")
        for package in PRODUCT
        for path in (ROOT / package).rglob("*.py")
    }
    words = {word for source in files.values() for word in re.findall(r"\w+", source)} | set(
        metadata.tables
    )
    named = set(re.findall(r"`([A-Za-z_]\w*(?:\.\w+)*)(?:\(\))?`", text)) - set(
        re.findall(r"\bPROJECT_INDEX\w*", text)
    )
    modules = {one for one in named if one.endswith(".py")}
    assert modules <= {path.name for path in files}
    assert [one for one in sorted(named - modules) if not {*one.split(".")} <= words] == []
    for names, file in re.findall(r"((?:`[A-Za-z_][\w.]*`(?:, | and )?)+) in `([\w/]+\.py)`", text):
        found = "".join(source for path, source in files.items() if str(path).endswith(f"/{file}"))
        for one in re.findall(r"`([\w.]+)`", names):
            assert all(re.search(rf"\b{part}\b", found) for part in one.split(".")), (
                f"{one} is not in {file}"
            )


def test_names_of_modules_and_functions_in_docstrings_are_in_the_code():
    """A file, a dotted name of a package of ours, a call, and what a reader is told to see, between
    backticks."""
    files = {
        path: path.read_text(encoding="utf-8")
        for package in PRODUCT
        for path in (ROOT / package).rglob("*.py")
    }
    code = [re.sub(r'""".*?"""', "", source, flags=re.DOTALL) for source in files.values()]
    words = {word for source in code for word in re.findall(r"\w+", source)}
    words |= {part for path in files for part in (path.stem, path.name, *path.parts)}
    named = "\n".join(
        source for path, source in files.items() if "tests" not in path.relative_to(ROOT).parts[:1]
    )
    packages = "|".join(sorted({path.parent.name for path in files}))
    ours = re.findall(
        rf"`([\w./]+\.py|(?:{packages})\.[\w.]+|[a-z_]\w*\(\))`|\(see `(\w+)`\)", named
    )
    found = {one or other for one, other in ours}
    assert len(found) > 10
    stale = [
        one for one in found if not {*re.findall(r"\w+\.py$|\w+", one.removesuffix("()"))} <= words
    ]
    assert [one for one in sorted(stale) if not (ROOT / one).exists()] == []
