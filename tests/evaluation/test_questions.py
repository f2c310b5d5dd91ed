"""Questions that a model writes: one about a passage of each document, cleaned, noted and not asked for twice."""

import pytest

from rag_index.errors import SettingsError
from rag_index.evaluation.known_items import model_of, write_questions
from rag_index.settings.sections import ContextSettings
from rag_index.sources.sample import read_sample
from tests.fakes.ollama import FakeOllama
from tests.project import Project


@pytest.fixture
def ollama():
    with FakeOllama(model="writer") as server:
        yield server


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path).fill(10)


def write(project, ollama):
    settings = project.settings
    index = settings.index("notes")
    model = ContextSettings(model="writer", hosts=[ollama.url])
    return write_questions(settings, index, read_sample(settings, index, 10).documents, model)


def prompts(ollama):
    found = [request.body for request in ollama.requests if request.path == "/api/generate"]
    return [body["prompt"] for body in found if body["options"]["num_predict"] > 1]


def test_each_document_gets_a_question_about_one_of_its_passages_once(project, ollama):
    ollama.fault("generated", response="<think>What?</think>“Why does the printer not work?” ", path="/api/generate")
    questions = write(project, ollama)
    assert questions.reasons == []
    assert sorted(document for one in questions.queries for document in one.relevant) == sorted(map(str, range(1, 11)))
    assert {(one.query, one.index) for one in questions.queries} == {("Why does the printer not work?", "notes")}
    by_id = {next(iter(one.relevant)): one.note for one in questions.queries}
    assert by_id["3"].startswith("Note 3 The ")
    sent = prompts(ollama)
    assert all("of ticket 3 does not work" in one for one in sent if by_id["3"] in " ".join(one.split()))
    assert len(sent) == 10
    assert all("Write one question, in the language of the document" in prompt for prompt in sent)
    assert write(project, ollama) == questions
    assert len(prompts(ollama)) == 10, "they come from the cache"


def test_documents_without_a_question_are_counted_with_the_reason(project, ollama):
    ollama.fault("generated", response="", path="/api/generate", marker="ticket 3 ")
    questions = write(project, ollama)
    assert (len(questions.queries), questions.reasons) == (9, ["the answer is empty"])


def test_the_model_is_that_of_the_contexts(project):
    settings = project.settings
    with pytest.raises(SettingsError, match="no index has a table"):
        model_of(settings, settings.index("notes"))
    text = project.config.read_text(encoding="utf-8")
    project.write_settings(f'{text}[indexes.context]\nmodel = "writer"\n')
    assert model_of(project.settings, project.settings.index("notes")).model == "writer"
