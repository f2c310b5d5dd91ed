"""A pipeline of Haystack: a component that finds documents, and the prompt that has a model answer
from them."""

import sys

from haystack import Document, Pipeline, component
from haystack.components.builders import PromptBuilder

from rag_index import Retriever
from rag_index.search.frameworks import found_in

PROMPT = """Answer from these documents alone, and cite them by their ids.

{% for document in documents %}[{{ document.id }}] {{ document.content }}
{% endfor %}
Question: {{ question }}"""


@component
class RagIndexRetriever:
    """Finds the documents of a project. A `Retriever` or a `Service` is asked, with options of a
    search."""

    def __init__(self, retriever, **options):
        self.retriever, self.options = retriever, options

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: dict | None = None, top_k: int | None = None):
        """Return the documents. `filters` are those of rag-index: {"priority": "high"}."""
        given = {"filter": filters, "limit": top_k}
        options = {
            **self.options,
            **{name: value for name, value in given.items() if value is not None},
        }
        hits, _ = found_in(self.retriever.search_sync(query, **options))
        return {
            "documents": [
                Document(id=name, content=text, meta=payload) for name, text, payload in hits
            ]
        }


with Retriever.from_settings() as retriever:
    pipeline = Pipeline()
    pipeline.add_component("found", RagIndexRetriever(retriever, limit=3, min_relevance=0.2))
    pipeline.add_component("prompt", PromptBuilder(PROMPT, required_variables="*"))
    pipeline.connect("found.documents", "prompt.documents")
    answer = pipeline.run({"found": {"query": sys.argv[1]}, "prompt": {"question": sys.argv[1]}})
    print(answer["prompt"]["prompt"])  # give it to your generator
