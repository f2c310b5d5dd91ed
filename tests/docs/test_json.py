"""docs/json.md and docs/how-it-works.md: keys, tables and numbers are those of the code."""

import json
import re
import sqlite3

import numpy as np
import pytest

from rag_index import cli
from rag_index.care import doctor, index_status
from rag_index.care.doctor import Advice, Diagnosis, Finding
from rag_index.care.export import json_line
from rag_index.cli import runs, search
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.embedders import EmbedderIdentity
from rag_index.components.embedders.bm25 import Bm25Model
from rag_index.components.hosts import host
from rag_index.components.ledger import tables
from rag_index.components.ledger.runs import LEASE_SECONDS, RENEW_SECONDS
from rag_index.components.stores.edge import store as edge_store
from rag_index.components.stores.server import server_points as server
from rag_index.core.documents import batches
from rag_index.core.documents.batches import RESERVED_KEY, DocumentBatch, StoredPoint
from rag_index.core.documents.work import Work
from rag_index.core.reports.outcome import GateVerdict, IndexOutcome, RunReport, WorseQuery
from rag_index.etl import deletes, publish, upsert
from rag_index.etl.collection import CollectionMaker
from rag_index.etl.opened import RunOptions, open_index
from rag_index.search import AsOf, Retriever, Verified
from rag_index.search.evaluation.evaluation import Evaluation, Place, PoorQuery, Scope, Way
from rag_index.search.evaluation.measures import Estimate
from rag_index.search.json_answers import (
    ChunkAnswer,
    ExplainedAnswer,
    ExplainedHit,
    HitAnswer,
    SearchAnswer,
    WhyAnswer,
)
from rag_index.search.why import Why
from tests.docs.pages import code, page, section, table
from tests.etl.plain import run_plain
from tests.project import Project

PAGE = page("json")
RUNS = ["index-all", "rebuild"]
MAIN = {
    *RUNS,
    "status",
    "status --failed",
    "plan",
    "search",
    "verify",
    "evaluate",
    "rollback",
    "doctor",
}
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
    "evaluate": ["golden.jsonl"],
}
FAILED = index_status.ListedDocument("notes", "7", "why", 1, "then", "now", "then")
METRICS = ("recall@10", "MRR@10", "nDCG@10")
POOR = PoorQuery(
    "no paper", dict.fromkeys(METRICS, 0.0), (Place("notes", "7"),), (Place("notes", "8", 1),)
)
ESTIMATES = dict.fromkeys(METRICS, Estimate(0.5, 0.4, 0.6))
WAY = Way("dense", 1.0, ESTIMATES)
WHY = Why("notes", "7", "rank", "said", "remedy", 12, 0.4, 0.6, ("a",), ("b",), {"car": "c"})
SCOPE = Scope("notes", 1, (WAY,), (POOR,))
RESULTS: dict[str, tuple[object, str, object]] = {
    **dict.fromkeys(["index-all", "rebuild"], (runs, "launch_run", RunReport([OUTCOME], 1.0))),
    "status --failed": (index_status, "failed", [FAILED]),
    "evaluate": (search, "_evaluate", Evaluation((SCOPE,))),
    "verify": (
        Retriever,
        "verify_sync",
        Verified("cited", "changed", AsOf(), "then", "now", "new"),
    ),
    "search --why": (Retriever, "why_sync", WHY),
    "rollback": (publish, "roll_back", ("test_notes__2", "test_notes__1", 3)),
    "doctor": (doctor, "examine", Diagnosis([FINDING], [Advice("notes", "what")], [FINDING])),
}
"""What the function behind a command returns: one of everything, so that every key is printed.
Other commands run."""
HOW_IT_WORKS = page("how-it-works")
NUMBERS = [
    ("how-it-works", "for five nights with the same text"),
    (
        "how-it-works",
        f"a lease of {LEASE_SECONDS:.0f} s, which the run renews every {RENEW_SECONDS:.0f} s",
    ),
    ("how-it-works", f"{publish.VERIFIED_SAMPLE} sampled documents"),
    ("how-it-works", f"more than {deletes.UNGUARDED_DELETES} documents"),
    ("troubleshooting", f"fewer than {edge_store.MIN_FREE // 1024**2} MB are free"),
    ("servers", f"{server.REQUEST_POINTS}, at most {server.BATCH_BYTES // 10**6} MB"),
    ("servers", f"rests for {host.FIRST_REST} s, doubled each time, up to {host.MAX_REST:.0f} s"),
]


def shape(value: object) -> object:
    """Return the keys of JSON, at all levels; the keys of a payload are the user's."""
    if isinstance(value, dict):
        return {key: None if key == "payload" else shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


def documented_json() -> dict[str, object]:
    """Return the keys of each command's example."""
    (answer,) = re.findall(
        r"^`POST /search`:\n\n```json\n(.*?)```", page("service"), re.MULTILINE | re.DOTALL
    )
    found = {"search": shape(json.loads(answer.replace("comments", "notes")))}
    for label, example in re.findall(r"^(`.*):\n\n```json\n((?:.*\n)*?)```", PAGE, re.MULTILINE):
        named = re.match(r"(?:`[\w -]+`(?:, )?)+", label)
        assert named, f"no command before {example!r}"
        found.update(
            {name: shape(json.loads(example)) for name in re.findall(r"`([\w -]+)`", named[0])}
        )
    return found


def test_the_commands_that_scripts_call_have_an_example_and_a_line_of_an_export_is_as_documented():
    assert documented_json().keys() >= MAIN | {"export"}
    point = StoredPoint("1", {RESERVED_KEY: {"document_id": "7"}}, [0.5])
    example = documented_json()["export"]
    assert shape(json.loads(json_line(point))) == {**example, "vector": [None]}


@pytest.mark.parametrize("name", sorted(documented_json().keys() - {"export", "init"}))
def test_json_is_as_documented(name, project, monkeypatch, capsys):
    run_plain(project.fill(2))
    project.fill(1, first=3)
    if name in RESULTS:
        module, function, result = RESULTS[name]
        monkeypatch.setattr(module, function, lambda *_, **__: result)
    with pytest.raises(SystemExit):
        cli.main(
            ["--config", str(project.config), *name.split(), *ARGUMENTS.get(name, []), "--json"]
        )
    assert shape(json.loads(capsys.readouterr().out)) == documented_json()[name]


def test_a_proposal_and_each_of_its_keys_are_as_documented(tmp_path, capsys):
    with sqlite3.connect(tmp_path / "desk.db") as db:
        db.execute("CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, body TEXT)")
        db.execute(
            "CREATE TABLE comment (id INTEGER PRIMARY KEY, ticket_id INT REFERENCES ticket, body"
            " TEXT, odd INT)"
        )
        for n in range(1, 61):
            said = (
                f"The printer in room {n} prints blank pages again and again, said the person at"
                f" desk {n}."
            )
            db.execute("INSERT INTO ticket VALUES (?, ?, ?)", (n, f"Printer {n} is offline", said))
            answer = (
                f"A new toner for room {n} has been ordered from the dealer, and it will arrive in"
                f" {n} days."
            )
            db.execute(
                "INSERT INTO comment VALUES (?, ?, ?, ?)", (n, n, f"{answer} {2 * answer}", n == 7)
            )
    db.close()
    (tmp_path / "answers.json").write_text('{"comment.odd": {"hide": ["yes"]}}')
    answers = ["--answers", str(tmp_path / "answers.json")]
    with pytest.raises(SystemExit):
        cli.main(["init", str(tmp_path / "desk.db"), "--json", *answers])
    printed, documented = shape(json.loads(capsys.readouterr().out)), documented_json()["init"]
    for own in ("indexes", "answers"):  # their keys are those of the settings, and ids
        assert isinstance(printed.pop(own), type(documented.pop(own)))
    assert printed == documented
    parts = {"question": documented["questions"][0], "table": documented["tables"][0]}
    for name, keys in parts.items():
        rows = table(section(PAGE, "## Proposals"), f"key of a {name}")
        assert {key for row in rows for key in re.findall(r"`(\w+)`", row[0])} <= keys.keys()
        explained = set(re.findall(r"`(\w+)`", str(rows)))
        assert keys.keys() <= explained | {"id", "name", "rows", "table", "why"}


def test_what_a_gate_found_is_as_documented():
    verdict = GateVerdict(
        "recall@10", 2, 0.02, 1.0, 0.5, worse=(WorseQuery("printer", 1.0, 0.0),)
    ).to_json()
    rows = {row[0]: row[1] for row in table(section(PAGE, "## Runs"), "key of `gate`")}
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == verdict.keys()
    assert set(re.findall(r"`(\w+)`", rows["`worse`"])) == verdict["worse"][0].keys()


def test_the_keys_of_a_search_are_as_documented():
    of = {
        row[0]: set(re.findall(r"`(\w+)`", row[1]))
        for row in table(section(PAGE, "## Searching"), "of")
    }
    assert of["the answer"] == SearchAnswer.model_fields.keys()
    assert of["the answer"] | of["`--explain`"] == ExplainedAnswer.model_fields.keys()
    assert of["a hit"] == HitAnswer.model_fields.keys()
    assert of["a hit"] | of["a hit, `--explain`"] == ExplainedHit.model_fields.keys()
    assert of["one of `chunks`"] == ChunkAnswer.model_fields.keys()
    why = set(
        re.findall(r"`(\w+)`", section(PAGE, "## Searching").partition("`search --why` prints")[2])
    )
    assert why >= WhyAnswer.model_fields.keys()


def test_the_payload_of_a_point_is_as_documented():
    documents = DocumentBatch(
        ["7"], ["text"], [b'{"_rag":{"groups":["staff"]},"author":"kim"}'], [b"t"], [b"p"]
    )
    vectors = np.ones((1, 2), dtype=np.float32)
    chunked, work = [batches.ChunkedDocument(["text"])], Work()
    (batch,) = upsert.batches(
        batches.EmbeddedShard("notes", 1, documents, chunked, vectors, [], work)
    )
    documented = [
        code(row[0])
        for row in table(section(HOW_IT_WORKS, "## Keys and points"), f"key in `{RESERVED_KEY}`")
    ]
    assert set(batch.payloads[0]) == {"author", RESERVED_KEY}
    assert sorted(documented) == sorted(batch.payloads[0][RESERVED_KEY])


def test_the_metadata_of_a_collection_and_the_tables_of_the_ledger_are_as_documented(tmp_path):
    settings = Project(tmp_path / "project").settings
    identity = EmbedderIdentity("local", "wordllama", "digest", 4)
    with open_index(settings, "notes", RunOptions(), run_id="documented") as opened:
        collection = CollectionMaker(
            opened, identity, TextChunker(100, 10), Bm25Model("english")
        ).current()
        metadata = opened.store.collections()[collection.name]
    (documented,) = re.findall(
        r"^A collection has .*metadata.*", section(HOW_IT_WORKS, "## Keys and points"), re.MULTILINE
    )
    assert set(re.findall(r"`(\w+)`", documented)) == metadata.keys()
    assert collection.name == "test_notes__1"
    (prefix,) = re.findall(r"tables begin with `(\w+)`", section(HOW_IT_WORKS, "## The ledger"))
    assert all(name.startswith(prefix) for name in tables.metadata.tables)


@pytest.mark.parametrize(("name", "words"), NUMBERS, ids=[words for _, words in NUMBERS])
def test_numbers_are_those_of_the_code(name, words):
    assert words in page(name)
