"""docs/json.md: each example has the keys that the command prints. `search` prints what docs/service.md shows."""

import json
import re

import pytest

import rag_index.care.audit
import rag_index.care.doctor
import rag_index.care.index_status
import rag_index.cli.search
import rag_index.etl.publish
from rag_index import cli
from rag_index.care.audit import FAULT_KINDS, Audit
from rag_index.care.doctor import Advice, Diagnosis, Finding
from rag_index.care.plan import RunCost
from rag_index.care.transfer import json_line
from rag_index.cli import runs
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.reports.outcome import IndexOutcome, RunReport
from rag_index.search import AsOf, Retriever, Verified
from rag_index.search.evaluation.evaluation import Evaluation, Place, PoorQuery, Scope, Way
from rag_index.search.evaluation.measures import Estimate
from rag_index.search.why import Why
from tests.docs.pages import page
from tests.etl.plain import run_plain
from tests.project import Project

PAGE = page("json")


def shape(value: object) -> object:
    """Return the keys of JSON, at all levels; the keys of a payload are the user's."""
    if isinstance(value, dict):
        return {key: None if key == "payload" else shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


def documented_json() -> dict[str, object]:
    """Return the keys of each command's example."""
    (answer,) = re.findall(r"^`POST /search`:\n\n```json\n(.*?)```", page("service"), re.MULTILINE | re.DOTALL)
    found = {"search": shape(json.loads(answer.replace("comments", "notes")))}
    for label, example in re.findall(r"^(`.*):\n\n```json\n((?:.*\n)*?)```", PAGE, re.MULTILINE):
        named = re.match(r"(?:`[\w -]+`(?:, )?)+", label)
        assert named, f"no command before {example!r}"
        found.update({name: shape(json.loads(example)) for name in re.findall(r"`([\w -]+)`", named[0])})
    return found


RUNS = ["index-all", "rebuild"]
MAIN = {*RUNS, "status", "status --failed", "plan", "search", "verify", "evaluate", "rollback", "doctor"}
FINDING = Finding("notes", "kind", 1, "what", "remedy", ("7",))
OUTCOME = IndexOutcome("notes", state="partial", message="why", verified="how")
ARGUMENTS = {
    "rebuild": ["notes"],
    "search": ["printer"],
    "search --why": ["notes/1", "printer"],
    "verify": ["notes/1#0:0123456789abcdef@2026-11-20T09:16:00Z"],
    "rollback": ["notes"],
    "drop": ["notes", "--yes"],
    "erase": ["notes"],
    "audit": ["notes", "--collection", "theirs", "--url", "http://127.0.0.1:1", "--key", "id", "--text", "text"],
    "evaluate": ["golden.jsonl"],
}


FAILED = rag_index.care.index_status.FailedDocument("notes", "7", "why", 1, "then", "now")
METRICS = ("recall@10", "MRR@10", "nDCG@10")
POOR = PoorQuery("no paper", dict.fromkeys(METRICS, 0.0), (Place("notes", "7"),), (Place("notes", "8", 1),))
ESTIMATES = dict.fromkeys(METRICS, Estimate(0.5, 0.4, 0.6))
WAY = Way("dense", 1.0, ESTIMATES)
FAULTS = dict.fromkeys(FAULT_KINDS, 1), {kind: ["7"] for kind in FAULT_KINDS}
AUDITED = Audit("notes", "theirs", "id", "text", 2, 2, *FAULTS, RunCost(1, 1, False, None, None, 1, None, None))
SCOPE = Scope("notes", 1, (WAY,), (POOR,))
RESULTS: dict[str, tuple[object, str, object]] = {
    **dict.fromkeys(["index-all", "rebuild"], (runs, "launch_run", RunReport([OUTCOME], 1.0))),
    "status --failed": (rag_index.care.index_status, "failed", [FAILED]),
    "audit": (rag_index.care.audit, "audit", AUDITED),
    "evaluate": (rag_index.cli.search, "_evaluate", Evaluation((SCOPE,))),
    "verify": (Retriever, "verify_sync", Verified("cited", "changed", AsOf(), "then", "now", "new")),
    "search --why": (
        Retriever,
        "why_sync",
        Why("notes", "7", "rank", "said", "remedy", 12, 0.4, 0.6, ("a",), ("b",), {"car": "c"}),
    ),
    "rollback": (rag_index.etl.publish, "roll_back", ("test_notes__2", "test_notes__1", 3)),
    "doctor": (rag_index.care.doctor, "examine", Diagnosis([FINDING], [Advice("notes", "what")], [FINDING])),
}
"""What the function behind a command returns: one of everything, so that every key is printed. Other commands run."""


def printed_json(name: str, project: Project, monkeypatch, capsys) -> object:
    """Return what the command prints."""
    run_plain(project.fill(2))
    project.fill(1, first=3)
    if name in RESULTS:
        module, function, result = RESULTS[name]
        monkeypatch.setattr(module, function, lambda *_, **__: result)
    with pytest.raises(SystemExit):
        cli.main(["--config", str(project.config), *name.split(), *ARGUMENTS.get(name, []), "--json"])
    return json.loads(capsys.readouterr().out)


def test_the_commands_that_scripts_call_have_an_example():
    assert documented_json().keys() >= MAIN | {"export"}


@pytest.mark.parametrize("name", sorted(documented_json().keys() - {"export"}))
def test_json_is_as_documented(name, tmp_path, monkeypatch, capsys):
    project = Project(tmp_path / "project")
    assert shape(printed_json(name, project, monkeypatch, capsys)) == documented_json()[name]


def test_a_line_of_an_export_is_as_documented():
    point = StoredPoint("1", {RESERVED_KEY: {"document_id": "7"}}, [0.5])
    example = documented_json()["export"]
    assert shape(json.loads(json_line(point))) == {**example, "vector": [None]}
