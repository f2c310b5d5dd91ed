"""Runs and searches of an index whose model runs in the process: with children and Dask workers,
after its folder was moved, on another processor, at the revision of the hub that made it, and once
its plug-in is not installed any more."""

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from rag_index.components.embedders import EmbedderIdentity, identify, open_embedder
from rag_index.components.embedders.fastembed import PROBED
from rag_index.components.stores.protocol import Store
from rag_index.core.documents.vectors import probe_digest
from rag_index.errors import SettingsError
from tests.etl.plain import Died, die, printed
from tests.fakes.hub import READ_AGAIN, Hub
from tests.fakes.onnx_models import LIMIT, tiny_model, write_model
from tests.forked_program import run_code
from tests.project import Project, run_here

COMMAND = "from rag_index.cli import main\nmain()"
EMBEDDER = (
    '[embedder]\nkind = "fastembed"\nmodel = "{model}"\ndocument_prefix = ""\nquery_prefix ='
    ' ""\n{more}'
)
NAME, SOURCE = "all-MiniLM-L6-v2", "Qdrant/all-MiniLM-L6-v2-onnx"
WORDS = [f"w{number}" for number in range(7, 32)]


class Notes(Project):
    """A project whose notes are of words that the tiny models know."""

    def use(self, model: Path | str, more: str = "") -> "Notes":
        """Let the settings name a model."""
        text = self.config.read_text()
        before, _, after = text.partition("[embedder]\n")
        rest = after.partition("[[indexes]]")[2]
        self.write_settings(f"{before}{EMBEDDER.format(model=model, more=more)}[[indexes]]{rest}")
        return self

    def add(self, count: int, first: int = 1) -> "Notes":
        for number in range(first, first + count):
            text = f"{WORDS[number % 25]} {WORDS[number * 7 % 25]}"
            self.execute("INSERT INTO note VALUES (?, ?, ?, 'ann', 1)", number, "", text)
        return self

    def found(self, query: str, *options: str) -> dict:
        return json.loads(run_here(self.config, "search", query, "--json", *options)[0])

    def ranked(self, query: str) -> list[tuple[str, float]]:
        return [(hit["document_id"], hit["score"]) for hit in self.found(query)["hits"]]

    def refused(self, query: str) -> str:
        """Return what is said about a search that has no answer."""
        return "".join(run_here(self.config, "search", query, code=1))

    def fresh(self, *arguments: str, **environment: str) -> dict:
        """Run the program in a forked process, in which the hub's library reads its variables."""
        command = ["--config", str(self.config), *arguments, "--json"]
        done = run_code(READ_AGAIN + COMMAND, os.environ | environment, *command)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return json.loads(done.stdout)

    def live(self, store: Store) -> str:
        return store.aliases()[self.settings.alias("notes")]

    def metadata(self) -> dict:
        with self.store() as store:
            return dict(store.points(self.live(store)).metadata())

    def record(self, **changed: str) -> None:
        """Let the live collection have been made by a model that differs in this."""
        with self.store() as store:
            name = self.live(store)
            made_by = store.points(name).metadata()["embedder_identity"] | changed
            found = EmbedderIdentity.from_metadata(made_by)
            store.points(name).set_metadata(
                {
                    "embedder_identity": made_by,
                    "embedder_fingerprint": found.fingerprint,
                    "embedder": str(found),
                },
            )
        with self.ledger() as ledger:
            collection = ledger.collection(name)
            ledger.update_collection(
                collection.id, embedder_fingerprint=found.fingerprint, embedder=str(found)
            )


@pytest.fixture
def model(tmp_path) -> Path:
    return write_model(tmp_path / "mini")


@pytest.fixture
def project(tmp_path, model) -> Notes:
    made = Notes(tmp_path / "project", EMBEDDER.format(model=model, more=""))
    return made.add(40)


def test_children_of_a_plain_run_embed_as_the_run_itself_does(project, tmp_path):
    parallel = "[parallel]\nworkers = 2\nshard_documents = 10\n"
    many = Notes(tmp_path / "many", EMBEDDER.format(model=tmp_path / "mini", more=parallel)).add(40)
    assert project.run().indexes[0].new == 40
    report = many.json("index-all")["indexes"][0]
    assert (report["state"], report["new"]) == ("completed", 40)
    assert many.points() == project.points()
    assert many.json("index-all")["indexes"][0]["unchanged"] == 40
    hit = project.found("w9 w31", "--limit", "1", "--dense-weight", "1")["hits"][0]
    assert hit["score"] > 0.5


@pytest.mark.long
def test_dask_workers_embed_as_the_run_itself_does(project, tmp_path, prefect_server):
    project.run()
    other = Notes(tmp_path / "flow", EMBEDDER.format(model=tmp_path / "mini", more="")).add(40)
    report = other.index(workers=2, shard_documents=10).indexes[0]
    assert (report.state, report.new) == ("completed", 40)
    assert other.points() == project.points()


def test_texts_that_are_too_long_are_split_and_one_without_a_vector_fails_alone(project):
    project.execute("UPDATE note SET body = ? WHERE id = 1", "w7 w8 w9 w10 " * 6)
    project.execute("UPDATE note SET body = 'nan' WHERE id = 2")
    project.execute("UPDATE note SET body = 'zero' WHERE id = 3")
    report = project.run().indexes[0]
    assert (report.new, report.failed) == (38, 2)
    chunks = project.texts()
    assert len(chunks["1"]) >= 4, "24 words, of which the model takes six"
    assert not {"2", "3"} & chunks.keys()
    assert all(len(text.split()) <= LIMIT - 2 for text in chunks["1"])
    failed = json.loads(run_here(project.config, "status", "notes", "--failed", "--json")[0])
    assert [one["document_id"] for one in failed["failed"]] == ["2", "3"]
    assert all(
        "returned a vector of nothing but zeros" in one["reason"] for one in failed["failed"]
    )


# The place of a model


def test_an_index_stays_searchable_when_its_folder_moves_and_a_run_finds_nothing_to_do(
    project, model, tmp_path
):
    project.run()
    before = project.ranked("w9 w31")
    moved = model.rename(tmp_path / "another-name")
    project.use(moved)
    assert project.ranked("w9 w31") == before
    assert project.run().indexes[0].unchanged == 40
    made_by = project.metadata()["embedder_identity"]
    assert (made_by["place"], made_by["pooling"]) == (str(moved), "MEAN, by 1_Pooling/config.json")
    project.use("BAAI/bge-small-en-v1.5")  # and the run that noticed the new folder has recorded it
    assert project.ranked("w9 w31") == before


@pytest.mark.parametrize("named", ["other", "BAAI/bge-small-en-v1.5", "no-such-model"])
def test_an_index_is_searched_by_its_model_while_settings_name_another_one(
    project, tmp_path, named, monkeypatch
):
    """Nothing is downloaded for that, neither: the hub that is named would refuse."""
    project.run()
    before = project.ranked("w9 w31")
    monkeypatch.setattr("rag_index.components.embedders.model_files._downloaded", pytest.fail)
    write_model(tmp_path / "other", tiny_model())
    project.use(tmp_path / named if named == "other" else named)
    assert project.ranked("w9 w31") == before
    assert "missing" not in project.found("w9 w31")


def test_an_index_whose_model_is_nowhere_names_the_model_and_the_rebuild(
    project, model, tmp_path, monkeypatch
):
    project.run()
    model.rename(tmp_path / "gone")
    answer = project.refused("w9")
    assert "and that model is no longer available (the files of model mini were not found" in answer
    assert "rag-index rebuild INDEX" in answer
    other = write_model(model, tiny_model())
    assert f"{other} has other files now" in project.refused("w9")
    monkeypatch.setattr("rag_index.components.embedders.model_files._downloaded", pytest.fail)
    project.use(
        "BAAI/bge-small-en-v1.5"
    )  # which is not downloaded for a search that it cannot help
    assert "that model is no longer available" in project.refused("w9")


def test_settings_that_shorten_vectors_of_another_model_change_nothing_of_a_search(
    project, tmp_path
):
    project.run()
    before = [hit["document_id"] for hit in project.found("w9 w31")["hits"]]
    project.use(write_model(tmp_path / "other", tiny_model()), "dimensions = 4\n")
    assert [hit["document_id"] for hit in project.found("w9 w31")["hits"]] == before


def test_another_model_in_the_folder_is_refused_by_a_run_with_the_name_of_rebuild(project, model):
    project.run()
    points = project.points()
    write_model(model, tiny_model())
    report = project.run().indexes[0]
    assert (report.state, "run `rag-index rebuild notes`" in report.message) == ("failed", True)
    assert project.points() == points
    rebuilt = project.run(full=True).indexes[0]
    assert (rebuilt.state, rebuilt.new) == ("completed", 40)


def test_a_rebuild_takes_the_vectors_of_the_same_files_in_a_folder_of_another_name(
    project, model, tmp_path
):
    project.run()
    project.use(model.rename(tmp_path / "another-name"))
    rebuilt = project.run(full=True).indexes[0]
    assert (rebuilt.state, rebuilt.new, rebuilt.chunks_embedded) == ("completed", 40, 0)
    project.record(probe=probe_digest(-vector(project)), processor="Chip without VNNI")
    assert project.run(full=True).indexes[0].chunks_embedded == 40


# The processor


def test_a_run_on_another_kind_of_processor_writes_nothing_and_names_both(project):
    project.run()
    points = project.points()
    project.record(probe=probe_digest(-vector(project)), processor="Chip without VNNI")
    project.execute("UPDATE note SET body = 'w30 w30' WHERE id = 1")
    project.execute("DELETE FROM note WHERE id = 2")
    report = project.run(allow_deletes=True).indexes[0]
    assert (report.state, project.points()) == ("failed", points)
    assert "than on the one that made the collection (Chip without VNNI)" in report.message
    assert f"on this processor ({identity_of(project).processor})" in report.message
    assert "Chip without VNNI" in printed(project, "plan", code=1)["indexes"][0]["error"]
    rebuilt = project.run(full=True, allow_deletes=True).indexes[0]
    assert (rebuilt.state, rebuilt.new) == ("completed", 39)
    assert project.metadata()["embedder_identity"]["processor"] == identity_of(project).processor
    assert project.run().indexes[0].state == "completed"


def test_a_rebuild_that_another_kind_of_processor_began_is_begun_anew(project, monkeypatch):
    project.run()
    with monkeypatch.context() as patched:
        patched.setattr("rag_index.etl.run.publish", die)
        with pytest.raises(Died):
            project.run(full=True)
    with project.store() as store:
        (begun,) = store.collections().keys() - {project.live(store)}
        made_by = store.points(begun).metadata()["embedder_identity"]
        changed = made_by | {
            "probe": probe_digest(-vector(project)),
            "processor": "Chip without VNNI",
        }
        store.points(begun).set_metadata({"embedder_identity": changed})
    project.record(probe=changed["probe"], processor=changed["processor"])
    assert project.run(full=True).indexes[0].chunks_embedded == 40
    assert project.metadata()["embedder_identity"]["processor"] == identity_of(project).processor


def test_a_search_on_another_kind_of_processor_is_an_error_that_names_both(project):
    project.run()
    project.record(probe=probe_digest(-vector(project)), processor="Chip without VNNI")
    answer = project.refused("w9")
    assert (
        "than on the one that made the collection (Chip without VNNI): use processors of one kind"
        in answer
    )
    assert "no longer available" not in answer


def test_a_worker_on_another_kind_of_processor_ends_the_run_and_writes_nothing(
    project, monkeypatch
):
    """The flow's processor makes what was recorded, the worker's does not."""
    project.run()
    points = project.points()
    project.execute("UPDATE note SET body = 'w30 w30' WHERE id = 1")
    monkeypatch.setattr(
        "rag_index.etl.collection.on_its_processor", lambda found, metadata: recorded_of(metadata)
    )
    project.record(probe=probe_digest(-vector(project)), processor="Chip without VNNI")
    report = project.run().indexes[0]
    assert report.state == "failed"
    assert "than on the one that made the collection (Chip without VNNI)" in report.message
    assert project.points() == points


def test_an_index_without_a_recorded_probe_is_brought_up_to_date(project):
    project.run()
    project.record(probe="", processor="")
    project.execute("UPDATE note SET body = 'w30 w30' WHERE id = 1")
    assert project.run().indexes[0].changed == 1


def vector(project):
    with closing(open_embedder(project.settings.embedder)) as embedder:
        return embedder.embed_query(PROBED)


def identity_of(project) -> EmbedderIdentity:
    return identify(project.settings.embedder)


def recorded_of(metadata) -> EmbedderIdentity:
    return EmbedderIdentity.from_metadata(metadata["embedder_identity"])


# The revision


def test_the_next_run_asks_for_the_revision_that_made_the_index_and_a_rebuild_for_the_present_one(
    project, model, tmp_path
):
    with Hub(SOURCE) as hub:
        first = hub.commit(model)
        project.use(NAME)
        home = hub.settings(tmp_path / "home")
        project.fresh("index-all", **home)
        assert project.metadata()["embedder_identity"]["revision"] == first
        (model / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
        second = hub.commit(model)
        empty = hub.settings(tmp_path / "another home")
        project.add(1, first=41)
        report = project.fresh("index-all", **empty)["indexes"][0]
        assert (report["state"], report["new"]) == ("completed", 1)
        plan = project.fresh("plan", **empty)["indexes"][0]
        assert plan["unchanged"] == 41
        assert project.fresh("search", "w9", **empty)["hits"]
        assert [
            file.name for file in (tmp_path / "another home/hub").glob("models--*/snapshots/*")
        ] == [first]
        project.fresh("rebuild", "notes", **empty)
        assert project.metadata()["embedder_identity"]["revision"] == second


# A plug-in that is not installed any more


def made_by_a_plug_in(project) -> None:
    """Let the live collection be one of a plug-in that was removed."""
    with project.store() as store:
        name = project.live(store)
        made_by = {
            "kind": "words",
            "model": "mini",
            "digest": "d" * 64,
            "dimension": 8,
            "document_prefix": "",
            "query_prefix": "",
        }
        found = EmbedderIdentity.from_metadata(made_by)
        changed = {
            "embedder_identity": made_by,
            "embedder_fingerprint": found.fingerprint,
            "embedder": str(found),
        }
        store.points(name).set_metadata(changed)
    with project.ledger() as ledger:
        collection = ledger.collection(name)
        ledger.update_collection(
            collection.id, embedder_fingerprint=found.fingerprint, embedder=str(found)
        )


def test_an_index_of_a_plug_in_that_was_removed_is_searched_by_words_until_its_rebuild_is_live(
    project,
):
    project.run()
    made_by_a_plug_in(project)
    for weight in ([], ["--dense-weight", "0.5"], ["--dense-weight", "0"]):
        answer = project.found("w9 w31", *weight)
        assert answer["hits"]
        if weight != ["--dense-weight", "0"]:
            assert (
                "notes was searched by words alone, since test_notes__1 holds vectors of"
                in answer["missing"]
            )
            assert (
                "no embedder of kind 'words' any more: run `rag-index rebuild notes`"
                in answer["missing"]
            )
    report = project.run().indexes[0]
    assert (report.state, "run `rag-index rebuild notes`" in report.message) == ("failed", True)
    assert project.run(full=True).indexes[0].state == "completed"
    assert "missing" not in project.found("w9 w31")


def test_an_index_without_words_of_a_plug_in_that_was_removed_is_refused_with_the_name_of_rebuild(
    project,
):
    project.write_settings(project.config.read_text() + 'search = "dense"\n')
    project.run()
    made_by_a_plug_in(project)
    answer = project.refused("w9 w31")
    assert "run `rag-index rebuild notes`" in answer
    project.write_settings(project.config.read_text().replace('search = "dense"\n', ""))


def test_settings_with_batches_are_refused(project):
    project.use("mini", "batch_texts = 8\n")
    with pytest.raises(SettingsError, match="batch_texts is for servers"):
        _ = project.settings


def test_plan_says_what_decides_the_pooling(project, model):
    plan = printed(project, "plan")["indexes"][0]
    assert "pooling MEAN, by 1_Pooling/config.json" in plan["embedder"]
    shutil.rmtree(model / "1_Pooling")
    renamed = model.rename(model.with_name(NAME))
    plan = printed(project.use(renamed), "plan")["indexes"][0]
    assert f"pooling MEAN, by the name sentence-transformers/{NAME}" in plan["embedder"]
