"""No text, payload, file or part of a document is in a log, a state, a result, an artifact or the
ledger: with all that people set to look for a fault, and with services that repeat what they were
sent."""

import os
from pathlib import Path

import pytest

from tests.fakes.ollama import FakeOllama
from tests.fakes.qdrant import FakeQdrant
from tests.forked_program import run_code, without_api
from tests.project import Project
from tests.reliability.victim import Victim, ledger_rows
from tests.waiting import eventually

PLANTED = {
    "text": "xanthoma",
    "payload": "quibbleton@example.com",
    "file": "zorillas",
    "part": "wombatish",
}
DEBUG = {
    "PREFECT_DEBUG_MODE": "true",
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "DASK_LOGGING__DISTRIBUTED": "debug",
}
BREAKS = """
import numpy as np
from rag_index.components.embedders import EmbedderIdentity
from rag_index.core.documents.work import Work

class Breaks:
    def __init__(self, settings, **_): self.stats = Work()
    def identity(self): return EmbedderIdentity(kind="breaks", model="breaks", digest="1", dimension=4)
    def embed_documents(self, texts):
        try:
            raise KeyError(texts[0])
        except KeyError as error:
            raise ValueError(f"cannot embed {texts}") from error
    def embed_query(self, text): return np.ones(4, dtype=np.float32)
    def close(self): pass
"""
BREAKS_SETTINGS = (
    '[embedder]\nkind = "breaks"\nmodel = "breaks"\ndocument_prefix = ""\nquery_prefix = ""\n'
)
WITH_PLUG_IN = """
import os, sys
sys.path.insert(0, os.environ["SITE"])
os.environ["PYTHONPATH"] = os.environ["SITE"]
from rag_index.cli import main
main()
"""
"""The program, and children of it, with a plug-in in the folder SITE. A process to fork from that is
started with this path would import everything once more."""
PART = """
[[indexes.parts]]
table = "remark"
on = "note_id"
text = "words"
key = "id"
payload = ["words"]
"""


def planted_project(folder: Path, extra: str) -> Project:
    """Return a project whose 12 notes have the planted words in text, payload, file and part."""
    project = Project(folder, extra).fill(12)
    text, payload, file, part = PLANTED.values()
    project.execute("UPDATE note SET body = body || ?, author = ?", f" A {text} was seen", payload)
    project.attach(f"All {file} are fine".encode(), "1 = 1")
    project.execute("CREATE TABLE remark (id INTEGER PRIMARY KEY, note_id INTEGER, words TEXT)")
    project.execute("INSERT INTO remark SELECT id, id, ? FROM note", f"It is {part}")
    project.write_settings(project.config.read_text() + PART)
    return project


def kept_by(folder: Path) -> bytes:
    """Return all that a Prefect server and its clients have written: logs, states, events, results,
    artifacts."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def assert_nothing_planted(run: Victim, project: Project) -> None:
    """Check what a run has said, what Prefect's server keeps of all runs, and the ledger."""
    home, ledger = Path(os.environ["PREFECT_HOME"]), project.folder / ".rag-index"
    eventually(
        lambda: b"keys: " in kept_by(home), seconds=60
    )  # states in debug mode have the sizes of pages
    said = {
        "output": run.output.encode(),
        "Prefect": kept_by(home),
        "ledger": b"".join(path.read_bytes() for path in ledger.glob("ledger.db*")),
    }
    for place, found in said.items():
        for kind, word in PLANTED.items():
            at = found.find(word.encode())
            assert at < 0, (place, kind, found[max(0, at - 300) : at + 100])


@pytest.mark.long
def test_debug_mode_shows_sizes_and_one_bad_vector_and_one_refused_text_name_their_key_alone(
    tmp_path, prefect_server
):
    with FakeQdrant() as qdrant, FakeOllama() as ollama:
        extra = f'[store]\nurl = "{qdrant.url}"\n{ollama.settings}'
        project = planted_project(tmp_path / "project", extra)
        project.execute("UPDATE note SET title = 'zero vector' WHERE id = 3")
        project.execute("UPDATE note SET title = 'refused here' WHERE id = 5")
        ollama.fault("zero", marker="zero vector")
        ollama.fault(
            "status", code=400, marker="refused here", words="cannot embed this at all: {texts}"
        )
        with Victim(project, "--workers", "1", "--shard-documents", "4", **DEBUG) as run:
            assert run.process.wait(300) in (1, 3), run.output
            reasons = {
                one["document_id"]: one["reason"]
                for one in project.json("status", "--failed")["failed"]
            }
            assert len(ledger_rows(project)) == 10
            assert_nothing_planted(run, project)
    assert reasons.keys() == {"3", "5"}
    assert reasons["3"].endswith("returned a vector of nothing but zeros for a text")
    assert "answers 400: cannot embed this at all" in reasons["5"]


@pytest.mark.long
def test_a_failing_upsert_names_the_key_and_nothing_of_what_the_server_repeats(
    tmp_path, prefect_server
):
    with FakeQdrant() as qdrant:
        project = planted_project(tmp_path / "project", f'[store]\nurl = "{qdrant.url}"\n')
        payload = PLANTED["payload"]
        qdrant.break_next(
            "PUT ",
            marker=payload,
            times=None,
            status=400,
            error="Wrong input: no keyword is",
            echo=True,
        )
        with Victim(project, "--workers", "1", "--shard-documents", "4", **DEBUG) as run:
            assert run.process.wait(300) == 1, run.output
            assert_nothing_planted(run, project)
            assert "points for test_notes__1 are refused" in run.output
            assert "one of document " in run.output
            assert "Wrong input: no keyword is …" in run.output


def install_breaks(site: Path) -> dict[str, str]:
    """Install an embedder whose error quotes its texts; return the variable that lets Python find
    it."""
    info = site / "breaks-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "breaks.py").write_text(BREAKS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: breaks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rag_index.embedders]\nbreaks = breaks:Breaks\n")
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    }


@pytest.mark.long
def test_a_task_that_fails_on_a_worker_says_where_and_not_with_what(tmp_path, prefect_server):
    path = install_breaks(tmp_path / "site")
    with FakeQdrant() as qdrant:
        project = planted_project(
            tmp_path / "project", f'[store]\nurl = "{qdrant.url}"\n{BREAKS_SETTINGS}'
        )
        with Victim(project, "--workers", "1", "--shard-documents", "4", **path, **DEBUG) as run:
            assert run.process.wait(300) == 1, run.output
            assert_nothing_planted(run, project)
            assert "embed failed: ValueError in " in run.output
            assert "breaks.py, line 13" in run.output


@pytest.mark.parametrize("serial", [True, False])
def test_a_plain_run_that_fails_shows_no_text_with_all_that_helps_to_look_for_a_fault(
    tmp_path, serial
):
    site, how = tmp_path / "site", ["--serial"] if serial else ["--workers", "2"]
    install_breaks(site)
    with FakeQdrant() as qdrant:
        project = planted_project(
            tmp_path / "project", f'[store]\nurl = "{qdrant.url}"\n{BREAKS_SETTINGS}'
        )
        command = [
            "--verbose",
            "--debug",
            "--config",
            str(project.config),
            "index-all",
            "--shard-documents",
            "4",
            *how,
        ]
        ended = run_code(WITH_PLUG_IN, {**without_api(), "SITE": str(site)}, *command)
    assert ended.returncode == 1, ended.stderr
    assert "embedding failed: ValueError in " in ended.stderr
    assert "Traceback" in ended.stderr
    ledger = b"".join(
        file.read_bytes() for file in (project.folder / ".rag-index").glob("ledger.db*")
    )
    for kind, word in PLANTED.items():
        assert word not in ended.stdout + ended.stderr, kind
        assert word.encode() not in ledger, kind
