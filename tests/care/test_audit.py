"""What other programs made of a source in Qdrant, in the payloads of LangChain and LlamaIndex, with faults planted."""

import json
import uuid
from contextlib import closing

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from rag_index.components.embedders import open_embedder
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project, run_here


def langchain(number, text):
    """Return a payload as `QdrantVectorStore.from_documents` of langchain-qdrant writes it."""
    return {"page_content": text, "metadata": {"page": 4, "id": number, "source": "shop.db"}}


def llama_index(number, text):
    """Return a payload as `VectorStoreIndex.from_documents` writes it by llama-index-vector-stores-qdrant."""
    node = {"id_": str(uuid.uuid4()), "embedding": None, "metadata": {"author": "x"},
            "relationships": {"1": {"node_id": str(number), "node_type": "4", "hash": uuid.uuid4().hex * 2}},
            "metadata_template": "{key}: {value}", "text": text, "class_name": "TextNode"}  # fmt: skip
    return {"author": "x", "_node_content": json.dumps(node), "_node_type": "TextNode",
            **dict.fromkeys(("document_id", "doc_id", "ref_doc_id"), str(number))}  # fmt: skip


FIELDS = {langchain: ("metadata.id", "page_content"), llama_index: ("document_id", "_node_content.text")}


@pytest.fixture(params=FIELDS)
def foreign(request, tmp_path):
    """Return a project, the collection of another program's that is true to it, and how that is audited."""
    project = Project(tmp_path).fill(30)
    with project.source() as db:
        rows = [(i, f"Title: {title}\n{body}") for i, title, body in db.execute("SELECT id, title, body FROM note")]
    with closing(open_embedder(project.settings.embedder)) as embedder:
        vectors = embedder.embed_documents([text for _, text in rows])
    with FakeQdrant() as fake, closing(QdrantClient(fake.url, check_compatibility=False)) as client:
        client.create_collection("theirs", models.VectorParams(size=256, distance=models.Distance.COSINE))

        def put(number, text, vector):
            point = models.PointStruct(
                id=str(uuid.uuid4()), payload=request.param(number, text), vector=vector.tolist()
            )
            client.upsert("theirs", [point])

        for (number, text), vector in zip(rows, vectors, strict=True):
            put(number, text, vector)

        def audit(*options, code):
            fields = "--key", key, "--text", text
            asked = ("audit", "notes", "--collection", "theirs", "--url", fake.url, *fields, *options)
            return run_here(project.config, *asked, "--json", code=code)[0]

        key, text = FIELDS[request.param]
        yield project, put, audit, (key, text)


def test_a_true_collection_has_no_faults(foreign):
    _, _, audit, _ = foreign
    found = json.loads(audit(code=0))
    assert (found["documents"], found["points"], found["faults"]) == (30, 30, 0)
    assert found["switch"]["chunks"] >= 30


def test_each_planted_fault_is_found_and_nothing_is_written(foreign):
    project, put, audit, _ = foreign
    project.fill(3, first=31)
    project.execute("UPDATE note SET body = 'The printer was given away.' WHERE id IN (4, 5)")
    project.execute("UPDATE note SET body = body || ' Solved meanwhile.' WHERE id = 6")
    project.execute("DELETE FROM note WHERE id = 7")
    with project.source() as db:
        [(title, body)] = db.execute("SELECT title, body FROM note WHERE id = 8")
    put(8, f"Title: {title}\n{body}", np.ones(256))
    put("x-99", "A document of nobody", np.ones(256))
    found = json.loads(audit(code=3))
    assert found["counts"] == {"missing": 3, "orphaned": 2, "stale": 3, "duplicated": 1}
    assert (found["examples"]["missing"], found["examples"]["stale"]) == (["31", "32", "33"], ["4", "5", "6"])
    assert (found["examples"]["orphaned"], found["examples"]["duplicated"]) == (["7", "x-99"], ["8"])


def test_a_field_that_is_not_there_is_refused_with_those_that_are(foreign):
    _, _, audit, (key, text) = foreign
    for given in (("--key", "ticket"), ("--text", "body")):
        said = audit(*given, code=2)
        assert f"no payload has a field {given[1]}" in said
        assert f"{key} (" in said
        assert f"{text} (" in said
