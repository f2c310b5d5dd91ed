"""`rag-index try`: from a URL to a search, and nothing is left behind."""

import os
import re
import signal
import subprocess
from contextlib import contextmanager

import httpx
import pytest
import sqlalchemy as sa

from rag_index.core.settings import load_settings
from rag_index.first_run.samples import pydocs
from tests.browser import Browser
from tests.docs.pages import ROOT
from tests.ports import free_port
from tests.project import PROGRAM, run_here
from tests.waiting import eventually
from tests.wild.sample import sample, write


def start(tmp_path, *arguments, source="sqlite:///{}/source.db"):
    temporary, here = tmp_path / "tmp", tmp_path / "here"
    temporary.mkdir()
    here.mkdir()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/source.db")
    write(sample("tracker"), engine)
    engine.dispose()
    command = [*PROGRAM, "try", source.format(tmp_path), *arguments]
    environment = os.environ | {"TMPDIR": str(temporary)}
    output = (tmp_path / "output").open("w")
    before = signal.signal(
        signal.SIGHUP, signal.SIG_DFL
    )  # the tests may have been started by nohup
    process = subprocess.Popen(command, cwd=here, env=environment, stdout=output, stderr=output)
    signal.signal(signal.SIGHUP, before)
    return process, temporary, here


@contextmanager
def served(tmp_path, *arguments, **source):
    """Give the URL at which the page is served, what the command has said, and its folder; stop it
    by Ctrl-C."""
    process, temporary, here = start(tmp_path, *arguments, **source)
    said = (tmp_path / "output").read_text
    try:
        eventually(lambda: process.poll() is not None or "Search at http" in said(), said)
        yield re.search(r"Search at (http://\S+);", said())[1], said, here
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert (process.returncode, list(temporary.iterdir())) == (0, [])


def found(url, query, limit):
    return (
        httpx.get(f"{url}/search", params={"query": query, "limit": limit}, timeout=30)
        .json()
        .get("hits", [])
    )


@pytest.mark.long
def test_the_newest_can_be_searched_while_the_rest_follows_and_nothing_is_left_behind(tmp_path):
    with served(tmp_path, "--newest", "20") as (url, said, here):

        def ids(query, limit=1):
            return [hit["document_id"] for hit in found(url, query, limit)]

        assert ids("Gantt chart is slow") == ["909"]
        eventually(
            lambda: "1" in ids("the", 200) or "1" in ids("printer driver", 200),
            "the oldest row is found",
        )
        assert re.search(
            r"\d+ of 12 tables are searched: .* of text; \d+ columns? leaves? rows out", said()
        )
        assert re.search(r"try: [\d,]+ of [\d,]+ documents searchable, newest first", said())
    assert list(here.iterdir()) == []


@pytest.mark.long
def test_what_was_tried_can_be_kept(tmp_path):
    options = ("--once", "--write", "--newest", "20")
    process, temporary, here = start(
        tmp_path, *options, source="{}/source.db"
    )  # the path of a file
    said = (tmp_path / "output").read_text
    assert process.wait(120) == 0, said()
    assert "issues: 20 documents: 20 new" in said(), (
        "the newest alone, though a column decides who sees a row"
    )
    assert (here / "rag-index.toml").is_file()
    assert (here / ".rag-index").is_dir()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said", "code"),
    [
        (signal.SIGTERM, "", 130),
        pytest.param(signal.SIGHUP, "Search at", 0, marks=pytest.mark.long),
    ],
)
def test_nothing_is_left_behind_when_it_is_ended_or_its_terminal_is_closed(
    tmp_path, number, said, code
):
    process, temporary, _ = start(tmp_path)
    began = lambda: any(temporary.glob("rag-index-try-*/rag-index.toml"))  # noqa: E731
    eventually(lambda: began() and said in (tmp_path / "output").read_text(), "it has got that far")
    process.send_signal(number)
    assert (process.wait(30), list(temporary.iterdir())) == (code, [])


@pytest.mark.long
def test_all_tables_of_the_own_sample_are_searched_until_all_documents_can_be_found(tmp_path):
    pydocs.write(tmp_path / "pydocs.db")
    with served(tmp_path, "--newest", "100", source="{}/pydocs.db") as (url, said, _):
        assert re.search(r"^5 of 5 tables are searched: ", said(), re.MULTILINE)
        counted = []

        def ended():
            counted.append(httpx.get(f"{url}/searchable", timeout=30).json())
            return counted[-1]["ended"]

        eventually(ended, "all documents can be searched", every=0.5)
        assert re.fullmatch(
            r"([\d,]+) of \1 documents searchable, newest first", counted[-1]["sentence"]
        )
        query = re.search(r"^QUERY := (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
        assert "threading.Barrier" in [hit["title"] for hit in found(url, query, 3)], (
            "the answer of the README"
        )
        for name in (
            "json.dumps",
            "collections.OrderedDict",
            "pathlib.Path.exists",
            "json.decoder",
        ):  # of four tables
            assert name in str(found(url, name, 3)), name


@pytest.mark.long
def test_on_the_page_a_person_changes_what_is_searched_sees_documents_and_keeps_the_settings(
    tmp_path,
):
    with (
        served(tmp_path, "--newest", "5") as (url, _, here),
        Browser(tmp_path / "chromium") as page,
    ):
        page.open(url)
        page.wait_for(" documents searchable, newest first")
        page.click("What is searched")
        page.wait_for("6 of 12 tables are searched: ", "as a search would", "Login form is slow")
        page.picture("choose.png")
        page.fill("[aria-label='issues.description']", "leave out")
        page.wait_for("issues.description: is left out, as you said")
        page.evaluate("document.querySelector('[aria-label=\"Leave out: documents\"]').click()")
        page.wait_for("5 of 12 tables are searched: ")
        page.evaluate("document.querySelector('[aria-label=\"issues.is_private: yes\"]').click()")
        shown = "document.querySelector('[aria-label=\"issues.is_private: yes\"]').checked"
        eventually(
            lambda: page.evaluate(shown) and "Reading the database" not in page.words(), page.words
        )
        page.evaluate(
            "document.querySelector('[aria-label^=\"Make documents: settings\"]').click()"
        )
        page.wait_for("6 of 12 tables are searched: ")
        page.click("Keep it")
        page.wait_for(f"Kept in {here / 'rag-index.toml'}")
    kept = {index.table: index for index in load_settings(here / "rag-index.toml").indexes}
    assert "documents" not in kept
    assert "description" not in kept["issues"].text
    assert "is_private" not in (kept["issues"].where or "")


@pytest.mark.parametrize(
    ("url", "said", "code"),
    [
        ("sqlite:///{}/nothing.db", "there is no file {}/nothing.db; correct the URL", 2),
        (
            "postgresql://ann:s3cret-pw@h1:5432,[::1]:5433/d",
            "user@/name?host=h1:5432&host=[::1]:5433",
            2,
        ),
        (
            "postgresql://ann:s3cret-pw@127.0.0.1:1/d",
            "check that it runs and that the URL is right",
            1,
        ),
    ],
)
@pytest.mark.parametrize("command", ["try", "init"])
def test_a_wrong_url_is_no_setting(tmp_path, monkeypatch, command, url, said, code):
    monkeypatch.chdir(tmp_path)
    out, err = run_here(tmp_path / "rag-index.toml", command, url.format(tmp_path), code=code)
    assert said.format(tmp_path) in err
    assert not [word for word in ("[source]", "RAG_INDEX_", "s3cret-pw") if word in out + err]


@pytest.mark.long
def test_an_index_that_fails_is_a_line_and_the_exit_code(tmp_path, monkeypatch):
    for key, value in {
        "KIND": "ollama",
        "MODEL": "m",
        "HOSTS": f"http://127.0.0.1:{free_port()}",
    }.items():
        monkeypatch.setenv(f"RAG_INDEX_EMBEDDER__{key}", value)
    process, temporary, _ = start(tmp_path, "--once", "--newest", "20")
    assert process.wait(120) == 1
    said = (tmp_path / "output").read_text()
    failed = re.findall(r"^rag-index: (\w+) failed: (.*)$", said, re.MULTILINE)
    assert len(failed) == 3
    assert all("accepts no connection: is Ollama running there?" in reason for _, reason in failed)
    assert "Traceback" not in said
    assert list(temporary.iterdir()) == []
