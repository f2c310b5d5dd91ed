"""What was deleted or changed is gone from every file once it is erased; a scanner that knows no index looks for it."""

import gzip
import hashlib
import hmac
import json
import os
import shutil
import struct
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.stores.file_scanner import Scanner
from rag_index.core.documents.batches import Failure
from rag_index.errors import RagIndexError
from rag_index.etl import erase
from rag_index.search import Retriever
from tests.etl.plain import printed
from tests.forked_program import run_code
from tests.project import Project, run_here
from tests.waiting import eventually

SECRETS = {
    5: "Erika Mustermann lives at Heidestrasse 17 in the second house",
    6: "Iban DE02120300000000202051 of the second bank belongs to her",
    7: "Her sister Ida Musterfrau has moved to Schillerplatz 3, first floor",
}
RANDOM = np.random.default_rng(5)
VECTOR = np.asarray(RANDOM.normal(size=64), dtype=np.float32)
SCALED = (VECTOR - VECTOR.min()) / np.ptp(VECTOR)
PLANTED = {
    "cbor": b"".join(b"\xfa" + struct.pack(">f", one) for one in VECTOR),
    "float16": VECTOR.astype(np.float16).tobytes(),
    "float32": VECTOR.tobytes(),
    "float64": VECTOR.astype(np.float64).tobytes(),
    "gzip": gzip.compress(RANDOM.bytes(500) + SECRETS[5].encode()),
    "int8": np.round(SCALED * 250 - 125).astype(np.int8).tobytes(),
    "lz4": b"\x60notes \x02\x00" + bytes([0xF0, len(SECRETS[5]) - 15]) + SECRETS[5].encode(),
    "short": b"..Heidestrasse..",
    "uint8": np.round(SCALED * 127).astype(np.uint8).tobytes(),
    "utf16": SECRETS[5].encode("utf-16-le"),
    "utf8": SECRETS[5][:40].encode(),
    "where blocks meet": RANDOM.bytes((1 << 20) - 107) + SECRETS[5][:40].encode(),
}


def residues(folder, texts=(), vectors=()):
    """Return the files below a folder that hold something of these texts or vectors."""
    scanner = Scanner()
    for text in texts:
        (scanner.add_text if len(text) > 39 else scanner.add_words)(text)
    for vector in vectors:
        scanner.add_vector(vector)
    return sorted(name.removeprefix(f"{folder}/") for name in scanner.scan([folder]).found)


def test_the_scanner_finds_what_is_planted(tmp_path):
    for name, content in PLANTED.items():
        (tmp_path / name).write_bytes(content if name == "gzip" else RANDOM.bytes(77) + content + bytes(50))
    (tmp_path / "clean").write_bytes(SECRETS[5][:12].encode() + VECTOR[:7].tobytes() + RANDOM.bytes(2 << 20))
    assert residues(tmp_path, [SECRETS[5], "Heidestrasse"], [VECTOR]) == sorted(PLANTED)
    assert residues(tmp_path, ["Nobody lives here, and nobody ever did"], [VECTOR[::-1]]) == []


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(erase, "PAUSES", (0.0,))  # no server here deletes files in its own time
    project = Project(tmp_path, "[store]\nkeep_previous = 1\n").fill(40)
    for number, secret in SECRETS.items():
        project.execute("UPDATE note SET body = ? WHERE id = ?", secret, number)
    project.run()
    return project


def data(project):
    return project.settings.store.path.parent


def forget(project):
    """Delete one secret and change the other, and return the vectors that they had."""
    vectors = [v for payload, v in project.points().values() if payload["_rag"]["document_id"] in ("5", "6")]
    assert len(vectors) == 2
    project.run(full=True)  # so that a former collection is kept
    project.execute("DELETE FROM note WHERE id = 5")
    project.execute("UPDATE note SET body = 'moved away' WHERE id = 6")
    project.run(allow_deletes=True)
    return vectors


def test_what_was_deleted_or_changed_is_gone_from_every_file(project):
    vectors = forget(project)
    gone = [SECRETS[5], SECRETS[6]]
    before = residues(data(project), gone, vectors)
    assert before, "or the scanner looks for nothing"
    living = {number: texts for number, texts in project.texts().items() if number != "5"}
    told = printed(project, "erase", "notes")
    assert (told["documents"], told["points"]) == (2, len(project.points()))
    assert residues(data(project), gone, vectors) == []
    assert project.texts() == living
    assert "Nothing found." in run_here(project.config, "doctor")[0]
    assert project.run().indexes[0].unchanged == 39
    _, error = run_here(project.config, "rollback", "notes", code=2)
    assert "no earlier collection" in error


def test_a_reader_lets_go_of_what_was_erased_at_its_next_searches(project):
    with Retriever.from_settings(project.config) as retriever:
        assert retriever.search_sync("ticket").hits
        project.execute("DELETE FROM note WHERE id = 5")
        project.run(allow_deletes=True)
        run_here(project.config, "erase", "notes")

        def erased():
            return retriever.search_sync("ticket").hits and not residues(data(project), [SECRETS[5]])

        assert eventually(erased)


def test_a_single_document_is_erased_although_the_source_has_it(project):
    run_here(project.config, "erase", "notes", "--id", "5")
    assert residues(data(project), [SECRETS[5]]) == []
    assert "5" not in project.texts()
    for options in ({}, {"full": True}):
        project.run(**options)
        assert "5" not in project.texts(), "it stays away"
    assert printed(project, "plan")["indexes"][0]["new"] == 0
    assert "Nothing found." in run_here(project.config, "doctor")[0]
    run_here(project.config, "erase", "notes", "--id", "5")  # once more does no harm
    assert "has no document '777'" in run_here(project.config, "erase", "notes", "--id", "777", code=2)[1]
    run_here(project.config, "index", "notes", "--id", "5")
    assert "5" in project.texts(), "somebody wants it back"


def test_a_nightly_run_erases_by_itself_and_says_what_is_pending_without(project):
    project.write_settings(project.config.read_text().replace("keep_previous = 1", "erase = true"))
    project.execute("DELETE FROM note WHERE id = 5")
    project.run(allow_deletes=True)
    assert residues(data(project), [SECRETS[5]]) == []
    assert "may keep texts" not in run_here(project.config, "status")[0]
    project.write_settings(project.config.read_text().replace("erase = true", "erase = false"))
    project.execute("UPDATE note SET body = 'moved away' WHERE id = 6")
    project.run()
    project.execute("UPDATE note SET author = 'her former name' WHERE id = 7")
    project.run()
    sentence = "the store's files may keep texts of 2 deleted or changed documents since"
    assert sentence in run_here(project.config, "status")[0]
    [status] = project.json("status")["indexes"]
    assert (status["erasable"], status["erasable_since"] > "2020") == (2, True)
    assert f"advice: {sentence}" in run_here(project.config, "doctor")[0]
    project.write_settings(project.config.read_text().replace("erase = false", "erase = true"))
    assert f"pending_erasures: {sentence}" in run_here(project.config, "doctor", code=3)[0]


def test_a_proof_says_what_was_erased_without_its_words(project, tmp_path):
    forget(project)
    (tmp_path / "persons.txt").write_text("Mustermann\n")
    asked = ("erase", "notes", "--id", "7", "--proof", tmp_path / "proof.json", "--look-for", tmp_path / "persons.txt")
    told = printed(project, *asked)["proof"]
    written = (tmp_path / "proof.json").read_text()
    proof, key = json.loads(written), bytes.fromhex(told.pop("key"))
    assert proof == told
    assert not [word for word in ("Mustermann", "DE021203", "moved away") if word in written]
    assert proof["documents"] == [hmac.new(key, hashlib.sha256(b"7").digest(), hashlib.sha256).hexdigest()]
    assert proof["not_looked_for"] == 2, "nobody knows which texts the others had before they were deleted"
    assert proof["looked_for"]["texts"] > 3 < proof["found_before"]["files"]
    assert proof["read"]["bytes"] > 10_000
    assert proof["erased"] >= proof["complete_at"]
    assert ["Prefect" in one for one in proof["not_read"]] == [True]
    assert proof["outside"][0].startswith("backups")
    assert "exists" in run_here(project.config, *asked, code=2)[1]


def test_no_proof_is_written_of_what_a_file_still_holds(project, tmp_path):
    (data(project) / "old.log").write_text(f"failed: {SECRETS[5]}")
    asked = ("erase", "notes", "--id", "5", "--proof", tmp_path / "proof.json")
    _, error = run_here(project.config, *asked, code=1)
    assert "1 files still hold something of what was erased" in error
    assert "old.log" in error
    assert not (tmp_path / "proof.json").exists()
    assert "pending_erasures: the store's files may keep texts of 1" in run_here(project.config, "doctor", code=3)[0]
    project.write_settings(project.config.read_text().replace("keep_previous = 1", "erase = true"))
    project.execute("DELETE FROM note WHERE id IN (5, 6)")
    project.run()
    for again in (asked, ("erase", "notes", *asked[-2:])):
        assert "old.log" in run_here(project.config, *again, code=1)[1]
    (data(project) / "old.log").unlink()
    run_here(project.config, "erase", "notes", *asked[-2:])
    proof = json.loads((tmp_path / "proof.json").read_text())
    assert (len(proof["documents"]), proof["not_looked_for"]) == (1, 0), "the nightly run erased 6, and nobody asked"
    run_here(project.config, "erase", "notes", "--proof", tmp_path / "later.json")
    assert json.loads((tmp_path / "later.json").read_text())["documents"] == []


def proof_of(project, tmp_path, *arguments, code=0):
    file = tmp_path / "a proof.json"
    file.unlink(missing_ok=True)
    run_here(project.config, "erase", "notes", "--proof", file, *arguments, code=code)
    return json.loads(file.read_text())


def test_a_proof_names_no_document_of_which_a_former_text_is_unknown(project, tmp_path):
    project.execute("UPDATE note SET body = 'moved away, nobody knows where to' WHERE id = 7")
    project.run()
    proof = proof_of(project, tmp_path, "--id", "7")
    assert (proof["documents"], proof["not_looked_for"]) == ([], 1)
    project.execute("UPDATE note SET title = '', body = 'too short' WHERE id = 8")
    project.run()
    run_here(project.config, "erase", "notes")
    proof = proof_of(project, tmp_path, "--id", "8")
    assert (proof["documents"], proof["not_looked_for"]) == ([], 1)


def test_a_proof_of_a_document_that_is_wanted_back_does_not_name_it(project, tmp_path):
    (data(project) / "old.log").write_text(f"failed: {SECRETS[5]}")
    run_here(project.config, "erase", "notes", "--id", "5", "--proof", tmp_path / "proof.json", code=1)
    run_here(project.config, "index", "notes", "--id", "5")
    assert proof_of(project, tmp_path)["documents"] == []


def test_a_proof_reads_former_stores_and_names_what_was_not_read(project, tmp_path):
    run_here(project.config, "move", "--to", tmp_path / "new")
    old = project.settings.store.path
    project.write_settings(project.config.read_text().replace("[store]", f'[store]\npath = "{tmp_path / "new"}"'))
    project.run()
    file = tmp_path / "proof.json"
    _, error = run_here(project.config, "erase", "notes", "--id", "5", "--proof", file, code=1)
    assert f"hold something of what was erased, such as {old}" in error
    old.rename(tmp_path / "a copy")
    (project.settings.data / "link").symlink_to(tmp_path / "a copy")
    proof = proof_of(project, tmp_path)
    assert len(proof["documents"]) == 1
    assert f"{old}, where the index was: it is not here" in proof["not_read"]
    assert any("a copy" in one and "link" in one for one in proof["not_read"])


def test_a_proof_waits_for_other_indexes_over_the_same_rows(project, tmp_path):
    text = project.config.read_text()
    project.write_settings(text + text[text.index("[[indexes]]") :].replace('"notes"', '"again"'))
    project.run()
    asked = ("erase", "notes", "--id", "5", "--proof", tmp_path / "proof.json")
    assert "erase other indexes of the same texts" in run_here(project.config, *asked, code=1)[1]
    project.run()
    run_here(project.config, "erase", "again")
    assert len(proof_of(project, tmp_path)["documents"]) == 1


def test_what_the_guard_holds_back_is_counted_and_the_exit_code_says_so(project, tmp_path):
    project.fill(200, first=41)
    project.run()
    project.execute("DELETE FROM note WHERE id > 90")
    project.run()
    out, _ = run_here(project.config, "erase", "notes", code=3)
    assert "notes: not erased: 150 documents are held back" in out
    assert proof_of(project, tmp_path, code=3)["held_back"] == 150
    project.run(allow_deletes=True)
    assert proof_of(project, tmp_path)["held_back"] == 0


def test_a_proof_is_refused_while_a_file_cannot_be_read(project, tmp_path):
    shut = project.settings.data / "shut"
    shut.write_text("what may be in it?")
    shut.chmod(0)
    if os.geteuid() == 0:  # nothing is shut to root but what the kernel itself refuses
        shut = Path("/proc/self/attr/current")
        with suppress(OSError):
            pytest.skip(f"{shut} can be read here: {shut.read_text()}")
    asked = ("erase", "notes", "--id", "5", "--proof", tmp_path / "proof.json", "--folder", shut.parent)
    assert f"cannot be read, such as {shut}" in run_here(project.config, *asked, code=1)[1]
    assert len(proof_of(project, tmp_path)["documents"]) == 1


MAIL = "anna.zwicknagl@example.org"


def test_the_key_of_an_erased_person_is_in_clear_nowhere(tmp_path):
    project = Project(tmp_path)
    with project.source() as db:
        db.executescript("CREATE TABLE person (mail TEXT PRIMARY KEY, body TEXT, at TEXT)")
        people = [(f"p{i}@example.org", f"Person {i} likes the printer", "2024-05-01 10:00:00") for i in range(9)]
        db.executemany("INSERT INTO person VALUES (?, ?, ?)", [*people, (MAIL, "She mends it", "2024-05-02 10:00:00")])
    index = '[[indexes]]\nname = "people"\ntable = "person"\nkey = "mail"\ntext = "body"\n'
    project.write_settings(project.config.read_text().partition("[[indexes]]")[0] + index)
    project.run()
    run_here(project.config, "index", "people", "--id", MAIL)
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        [collection] = ledger.collections()
        report = {"lost": [MAIL], "documents": 10}
        run = ledger.last_run(collection.alias)
        ledger.finish_run(run.id, state="failed", message=f"{MAIL!r} is twice", report=report)
    run_here(project.config, "erase", "people", "--id", MAIL)
    project.run()
    held = (file for file in data(project).rglob("*") if file.is_file() and MAIL.encode() in file.read_bytes())
    assert list(held) == []
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        run = ledger.last_run(collection.alias, run.id)
    assert (run.message, run.report) == ("'(erased)' is twice", {"lost": ["(erased)"], "documents": 10})


def test_a_document_that_was_never_indexed_for_a_fault_is_erased_too(project):
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        [collection] = ledger.collections()
        ledger.fail(collection.id, [Failure("99", "the server refuses it", b"a text")])
        run_here(project.config, "erase", "notes", "--id", "99")
        assert ledger.failures(collection.id) == {}
    project.fill(1, first=99)
    project.run()
    assert "99" not in project.texts()


def test_the_ledger_forgets_what_a_failure_said_of_a_text(project, ledger, tmp_path):
    [collection] = ledger.collections()
    ledger.fail(collection.id, [Failure("5", f"the server refuses {SECRETS[5]!r}", b"another text")])
    ledger.close()
    assert "ledger.db" in " ".join(residues(data(project), [SECRETS[5]]))
    project.execute("DELETE FROM note WHERE id = 5")
    project.run(allow_deletes=True)
    run_here(project.config, "erase", "notes", "--proof", tmp_path / "proof.json")
    assert residues(data(project), [SECRETS[5]]) == []


def test_an_older_store_that_is_put_back_shows_nothing_that_was_erased_since(project, tmp_path):
    shutil.copytree(project.settings.store.path, tmp_path / "copy")
    project.execute("DELETE FROM note WHERE id = 5")
    project.run(allow_deletes=True)
    run_here(project.config, "erase", "notes", "--id", "6")
    shutil.rmtree(project.settings.store.path)
    shutil.copytree(tmp_path / "copy", project.settings.store.path)
    with Retriever.from_settings(project.config) as retriever, pytest.raises(RagIndexError, match="in the ledger"):
        retriever.search_sync("Mustermann Iban")
    run_here(project.config, "doctor", "--repair")
    project.run()
    assert project.texts().keys() & {"5", "6", "7"} == {"7"}
    run_here(project.config, "erase", "notes")
    assert residues(data(project), [SECRETS[5], SECRETS[6]]) == []


DYING = """
import os, sys
from functools import partial
from pathlib import Path
import sqlalchemy as sa
from rag_index.cli import main
from rag_index.components.stores.edge.store import EdgeStore

config, proof, left = {config!r}, {proof!r}, {writes}

def count(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)

def before(real, self, *given, **named):
    count()
    return real(self, *given, **named)

for name in "create set_metadata index_fields upsert flush set_commit_mark point_alias drop delete_points".split():
    run = partial(before, getattr(EdgeStore, name))
    setattr(EdgeStore, name, lambda self, *given, _run=run, **named: _run(self, *given, **named))
sa.event.listen(sa.Engine, "before_cursor_execute",
                lambda c, cur, sql, *rest: count() if sql.split()[0] in ("INSERT", "UPDATE", "DELETE") else None)
sys.addaudithook(lambda event, given: count() if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
                 else None)
main(["--config", config, "erase", "notes", "--id", "7", "--proof", proof])
"""


@pytest.mark.long
def test_a_document_that_was_deleted_just_before_a_kill_is_looked_for_by_the_next_erasure(project, tmp_path):
    dying = DYING.format(config=str(project.config), proof=str(tmp_path / "proof.json"), writes=0)
    head, _, rest = dying.partition("for name in ")
    code = f"{head}for name in ['flush']:{rest.partition('.split():')[2].partition('sa.event')[0]}"
    assert run_code(f"{code}\n{dying.splitlines()[-1]}", {}).returncode == -9
    assert "7" not in project.texts()
    assert len(proof_of(project, tmp_path, "--id", "7")["documents"]) == 1


@pytest.mark.parametrize("writes", [47, pytest.param(14, marks=pytest.mark.long)])
def test_a_kill_at_any_write_loses_nothing_proves_nothing_and_the_next_erasure_ends_it(project, tmp_path, writes):
    vectors, proof, deaths = forget(project), tmp_path / "proof.json", 0
    living = {number: text for number, text in project.texts().items() if number != "7"}
    while True:
        ended = run_code(DYING.format(config=str(project.config), proof=str(proof), writes=deaths), {})
        if proof.exists():
            assert residues(data(project), SECRETS.values(), vectors) == []
        if ended.returncode == 0:
            break
        assert ended.returncode == -9, ended.stderr
        proof.unlink(missing_ok=True)
        deaths += writes
        assert {number: text for number, text in project.texts().items() if number != "7"} == living
    assert deaths > 50
    assert len(json.loads(proof.read_text())["documents"]) == 1
    assert "Nothing found." in run_here(project.config, "doctor")[0]
    assert project.run().indexes[0].unchanged == 38
