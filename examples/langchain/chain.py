"""A chain: find what fits, and write the prompt that has a model answer from it."""

import sys

from rag_index import Retriever
from rag_index.errors import install_command

try:
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnablePassthrough

    from rag_index.search.frameworks.langchain import RagIndexRetriever
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}: {install_command('langchain')}")

PROMPT = ChatPromptTemplate.from_template(
    "Answer from these documents alone, and cite them by their ids.\n\n{documents}\n\nQuestion:"
    " {question}"
)


def as_text(documents):
    return "\n\n".join(f"[{one.id}] {one.page_content}" for one in documents)


with Retriever.from_settings() as retriever:
    found = RagIndexRetriever(retriever=retriever, options={"limit": 3, "min_relevance": 0.2})
    chain = {
        "documents": found | as_text,
        "question": RunnablePassthrough(),
    } | PROMPT  # | your model
    print(chain.invoke(sys.argv[1]).to_string())
