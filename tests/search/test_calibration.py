"""The calibrated score: what it is learned from, that nothing fits nonsense, `min_relevance`, and
collapsed hits."""

import random
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from rag_index.components.embedders.local import LocalEmbedder
from rag_index.components.embedders.traits import ModelTraits
from rag_index.components.ledger import Ledger
from rag_index.components.stores import TRAITS, lend, open_store
from rag_index.errors import EmbedderUnavailable, SettingsError
from rag_index.orchestration.hooks import to_learn
from rag_index.search import Retriever
from rag_index.search.evaluation import calibrate
from rag_index.search.json_answers import HitAnswer
from rag_index.search.live_collections import (
    WEIGHT_OF_ORDER,
    WEIGHT_OF_TOKENS,
    WITH_WORDS,
    WITHOUT_WORDS,
    Calibration,
)
from rag_index.search.relevance import FITS, MIN_EVIDENCE, NEAR, relevance
from tests.etl.plain import run_plain
from tests.fakes.ollama import FakeOllama
from tests.project import Project

SUBJECTS = {
    "printer": "paper jam toner tray cartridge ink roller scanner page feeder".split(),
    "network": "router switch cable firewall packet gateway wireless antenna proxy tunnel".split(),
    "payroll": "salary invoice tax bonus pension receipt employer deduction overtime wage".split(),
    "kitchen": "coffee fridge kettle dishwasher sugar spoon oven sandwich microwave plate".split(),
    "garden": "tree hedge lawn tulip spade compost fence greenhouse watering pond".split(),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("calibration") / "project").fill(600)
    choose = random.Random(1)
    for number in range(1, 601):
        title = list(SUBJECTS)[number % 5]
        body = " ".join(choose.choices(SUBJECTS[title], k=9))
        project.execute("UPDATE note SET title = ?, body = ? WHERE id = ?", title, body, number)
    project.execute(
        "UPDATE note SET title = 'printer', body = 'The stapler  hides behind it' WHERE id IN (5,"
        " 10, 15)"
    )
    assert run_plain(project).state == "completed"
    return project


@pytest.fixture(scope="module")
def retriever(project):
    with Retriever.from_settings(project.settings) as retriever:
        yield retriever


def test_a_first_run_records_what_scores_mean_and_a_small_index_has_weights_of_others(
    project, tmp_path, monkeypatch
):
    with closing(open_store(project.settings.store)) as store:
        recorded = store.points(store.aliases()["test_notes"]).metadata()["calibration"]
    learned = Calibration.from_metadata(recorded, words=True)
    assert learned.trusted
    assert learned not in (WITH_WORDS, WITHOUT_WORDS)
    assert relevance(learned, 0.9, 1.0) > 0.8 > FITS > relevance(learned, 0.0, 0.0)
    assert (
        relevance(learned, 0.5, 1.0) >= relevance(learned, 0.5, 0.5) >= relevance(learned, 0.2, 0.5)
    )
    monkeypatch.setattr(calibrate.Learner, "ask_own_texts", None)
    assert run_plain(project).state == "completed", "it is not learned again"
    small = Project(tmp_path / "project").fill(20)
    assert run_plain(small).state == "completed"
    with Retriever.from_settings(small.settings) as retriever:
        assert 0 <= retriever.search_sync("Note 3").hits[0].relevance <= 1


def test_an_embedder_that_knows_nothing_of_the_texts_is_not_trusted(project, monkeypatch):
    def noise(texts):
        return list(np.random.default_rng(1).normal(size=(len(texts), 256)).astype(np.float32))

    settings = project.settings
    with (
        closing(open_store(settings.store)) as store,
        closing(Ledger(settings.ledger_url)) as ledger,
    ):
        [collection] = ledger.collections("test_notes")
        keys = [key for key, _ in ledger.rows(collection.id, limit=200)]
        monkeypatch.setattr(ledger, "sample", lambda *_: keys)
        for embedder, trusted in (
            (LocalEmbedder(settings.embedder), True),
            (SimpleNamespace(embed_queries=noise, close=bool), False),
        ):
            index = settings.indexes[0]
            learner = calibrate.Learner(index, ledger, store, collection, embedder)
            assert learner.ask_own_texts().trusted is trusted
        down = SimpleNamespace(
            embed_queries=lambda texts: [EmbedderUnavailable("down")] * len(texts), close=bool
        )
        # So nothing is recorded, and the next run asks again.
        with pytest.raises(EmbedderUnavailable):
            calibrate.Learner(index, ledger, store, collection, down).ask_own_texts()


def test_scores_are_learned_from_what_a_search_may_find(project):
    """The index's `required_filter` hides everything, so there is nothing to learn from."""
    settings = project.settings
    hidden = {"required_filter": {"author": "nobody"}}
    with (
        closing(open_store(settings.store)) as store,
        closing(Ledger(settings.ledger_url)) as ledger,
        closing(LocalEmbedder(settings.embedder)) as embedder,
    ):
        [collection] = ledger.collections("test_notes")
        for update, is_learned in (({}, True), (hidden, False)):
            index = settings.indexes[0].model_copy(update=update)
            learner = calibrate.Learner(index, ledger, store, collection, embedder)
            assert (learner.ask_own_texts() is not None) is is_learned
            assert (learner.ask_foreign_texts() is not None) is is_learned


def test_nothing_fits_nonsense_and_the_nearest_are_shown_as_such(retriever):
    for query in ("zzqqxx wwvvuu", "qwfp zxcdv arstd neio"):
        result = retriever.search_sync(query, limit=5)
        assert result.nothing_fits
        assert result.to_json()["nothing_fits"] is True
        assert len(result.hits) == 5
        assert max(hit.relevance for hit in result.hits) < FITS
        least = retriever.search_sync(query, limit=5, min_relevance=FITS)
        assert (least.hits, least.nothing_fits) == ((), True)
    for weight in (None, 1.0, 0.0):
        result = retriever.search_sync("wireless antenna router", dense_weight=weight)
        assert "nothing_fits" not in result.to_json()
        assert result.hits[0].relevance > 0.5
        assert all(hit.title == "network" or "router" in hit.text for hit in result.hits[:3])


def test_min_relevance_leaves_out_what_is_less_likely_and_collapse_joins_equal_texts(retriever):
    every = retriever.search_sync("sugar coffee", limit=50).hits
    bound = sorted(hit.relevance for hit in every)[25]
    kept = retriever.search_sync("sugar coffee", limit=50, min_relevance=bound).hits
    assert [hit.document_id for hit in kept] == [
        hit.document_id for hit in every if hit.relevance >= bound
    ]
    query = "the stapler hides"
    assert len({hit.text for hit in retriever.search_sync(query, limit=3).hits}) == 1
    by_text = retriever.search_sync(query, limit=3, collapse="text").hits
    assert len(by_text) == len({hit.text for hit in by_text}) == 3
    assert (by_text[0].collapsed, HitAnswer.model_validate(by_text[0]).to_json()["collapsed"]) == (
        2,
        2,
    )
    assert (
        len({hit.payload["author"] for hit in retriever.search_sync(query, collapse="author").hits})
        > 1
    )
    for options, message in (
        ({"min_relevance": 2}, "min_relevance: Input should be less than or equal to 1"),
        (
            {"collapse": "nosuch"},
            "no field 'nosuch' to collapse by; index notes has: author, priority",
        ),
    ):
        with pytest.raises(SettingsError, match=message):
            retriever.search_sync(query, **options)


def test_scale_and_threshold_are_those_of_the_collections_own_texts():
    apart = calibrate.CosineSample([0.6, 0.7, 0.8], [0.2, 0.3, 0.4])
    learned = calibrate.learn([apart], words=True)
    assert relevance(learned, 0.7, 1.0) > 0.5 > FITS > relevance(learned, 0.2, -1.0)
    assert calibrate.learn([apart], words=False).words == 0
    narrow = calibrate.CosineSample([0.75, 0.76, 0.74], [0.68, 0.70, 0.66])
    assert relevance(calibrate.learn([narrow], words=True), 0.6, MIN_EVIDENCE) < NEAR, (
        "a narrow gap is one, too"
    )
    several = calibrate.learn(
        [apart, calibrate.CosineSample([0.7, 0.8, 0.9], [0.3, 0.4, 0.5])], words=True
    )
    assert several == calibrate.learn(
        [calibrate.CosineSample([0.75], [0.25, 0.35, 0.45])], words=True
    ), "means count"


def test_where_cosines_tell_nothing_apart_words_alone_decide_and_reach_both_thresholds():
    blind = calibrate.learn([calibrate.CosineSample([0.31, 0.3], [0.2, 0.3, 0.4])], words=True)
    assert blind.cosine == 0
    assert relevance(blind, 0.9, 2.0) > FITS > NEAR > relevance(blind, 0.9, MIN_EVIDENCE)
    assert relevance(blind, None, 2.0) == relevance(blind, 0.1, 2.0)


def test_a_small_collection_knows_what_is_foreign_to_it(tmp_path):
    """It is asked queries about other things, so that it says that nothing fits with any model,
    from its first run."""
    small = Project(tmp_path / "project").fill(40)
    for number in range(1, 41):
        body = f"The printer of room {number} shows a paper jam, and toner {number} is empty."
        small.execute("UPDATE note SET title = 'printer', body = ? WHERE id = ?", body, number)
    assert run_plain(small).state == "completed"
    with closing(open_store(small.settings.store)) as store:
        metadata = store.points(store.aliases()["test_notes"]).metadata()
    assert metadata[calibrate.CALIBRATION][calibrate.UNLEARNED] == 40
    assert ModelTraits.from_metadata(metadata[TRAITS]).reads_order is False
    with Retriever.from_settings(small.settings) as retriever:
        assert retriever.search_sync("opera singers of the baroque").nothing_fits
        assert retriever.search_sync("printer with a paper jam").verdict == ""


def test_a_collection_learns_again_once_the_rule_is_another_one(project):
    settings = project.settings
    with (
        closing(open_store(settings.store)) as store,
        closing(Ledger(settings.ledger_url)) as ledger,
    ):
        [collection] = ledger.collections("test_notes")
        recorded = store.points(collection.name).metadata()[calibrate.CALIBRATION]
        assert to_learn(ledger, store, collection) == 0
        former = {name: value for name, value in recorded.items() if name != "rule"}
        store.points(collection.name).set_metadata({calibrate.CALIBRATION: former})
        assert to_learn(ledger, store, collection) == 600
        store.points(collection.name).set_metadata({calibrate.CALIBRATION: recorded})


def test_a_corrected_word_is_weaker_evidence_than_the_word_itself(tmp_path):
    project = Project(tmp_path / "project").fill(300)
    for number in range(1, 301):
        body = (
            f"The printer of room {number} is fine, and brackets hold its cable."
            if number == 7
            else "All is fine."
        )
        project.execute("UPDATE note SET title = '', body = ? WHERE id = ?", body, number)
    assert run_plain(project).state == "completed"
    with Retriever.from_settings(project.settings) as retriever:
        typed, other = retriever.search_sync("brackets").hits[0], retriever.search_sync("brakets")
        assert other.corrected == {"brakets": "brackets"}
        assert (typed.document_id, other.hits[0].document_id) == ("7", "7")
        assert other.hits[0].relevance < typed.relevance


def test_what_a_collection_has_learned_is_not_asked_again(tmp_path):
    with FakeOllama(dimension=32) as server:
        embedder = (
            f'[embedder]\nkind = "ollama"\nmodel = "{server.model}"\nhosts = ["{server.url}"]\n'
        )
        project = Project(tmp_path / "project", embedder).fill(600)
        assert run_plain(project).state == "completed"
        settings = project.settings
        with (
            closing(open_store(settings.store)) as store,
            closing(Ledger(settings.ledger_url)) as ledger,
        ):
            [collection] = ledger.collections("test_notes")
            assert (
                calibrate.UNLEARNED
                not in store.points(collection.name).metadata()[calibrate.CALIBRATION]
            )
            assert to_learn(ledger, store, collection) == 0


def test_a_rebuilt_collection_is_calibrated_before_it_is_live(tmp_path, monkeypatch):
    project = Project(tmp_path / "project").fill(20)
    assert run_plain(project).state == "completed"
    asked = []

    def note(learner, documents):
        asked.append((learner.collection.name, learner.store.aliases()["test_notes"], documents))

    monkeypatch.setattr(calibrate.Learner, "learn", note)
    assert run_plain(project, full=True).state == "completed"
    assert asked[0] == ("test_notes__2", "test_notes__1", 20)


def test_the_weight_of_meaning_is_that_of_the_live_collections_model(tmp_path):
    """Whatever the settings name: between a change of the model and its rebuild, the live
    collection has the former."""
    project = Project(tmp_path / "project").fill(20)
    assert run_plain(project).state == "completed"
    with closing(open_store(project.settings.store)) as store:
        live = store.aliases()["test_notes"]
        traits = store.points(live).metadata()[TRAITS]
        for reads_order, weight in ((False, WEIGHT_OF_TOKENS), (True, WEIGHT_OF_ORDER)):
            store.points(live).set_metadata({TRAITS: {**traits, "reads_order": reads_order}})
            with Retriever(project.settings, open_store=partial(lend, store)) as retriever:
                assert retriever.search_sync("Note 3").dense_weight == weight
                assert retriever.search_sync("Note 3", dense_weight=0.5).dense_weight == 0.5
