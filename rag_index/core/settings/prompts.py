"""What models were trained to read before each document and each query, by their names.

From the models' cards on Hugging Face, and from `config_sentence_transformers.json` beside their weights.
"""

from __future__ import annotations

import re

_SENTENCE = "Represent this sentence for searching relevant passages: "
_WEB = "Given a web search query, retrieve relevant passages that answer the query"
_NO_PROMPTS = (
    "all-(minilm|mpnet|distilroberta)|paraphrase|multi-qa|labse|bge-m3|granite-embedding|jina-embeddings-v2|"
    "gte-(small|base|large|multilingual|modernbert)|text-embedding-(3|ada)|mistral-embed|static-retrieval"
)
_INSTRUCTED = "e5-(large|mistral-7b)-instruct|gte-qwen[0-9-]+b-instruct|linq-embed-mistral|sfr-embedding-(mistral|2-r)"
PROMPTS = (
    ("nomic-embed-code", "", "Represent this query for searching relevant code: "),
    ("nomic-embed-text|modernbert-embed", "search_document: ", "search_query: "),
    ("arctic-embed2|arctic-embed-[a-z]-v2", "", "query: "),
    ("bge-(small|base|large)-zh", "", "为这个句子生成表示以用于检索相关文章："),
    ("bge-(small|base|large)|arctic-embed|mxbai-embed-(2d-)?large|uae-large", "", _SENTENCE),
    ("bge-multilingual-gemma2", "", f"<instruct>{_WEB}.\n<query>"),
    (_INSTRUCTED, "", f"Instruct: {_WEB}\nQuery: "),
    ("e5-(small|base|large)", "passage: ", "query: "),
    ("qwen3-embedding", "", f"Instruct: {_WEB}\nQuery:"),
    ("stella-en", "", f"Instruct: {_WEB}.\nQuery: "),
    ("embedding-?gemma", "title: none | text: ", "task: search result | query: "),
    ("jina-embeddings-v3", "Represent the document for retrieval: ",
     "Represent the query for retrieving evidence documents: "),
    ("jina-embeddings-v4", "Passage: ", "Query: "),
    ("jina-embeddings-v5", "Document: ", "Query: "),
    ("ruri-v3", "検索文書: ", "検索クエリ: "),
    (_NO_PROMPTS, "", ""),
)  # fmt: skip
"""Patterns of names, with what stands before a document and a query. The first that is a part of a name counts."""


def known_prompts(model: str) -> tuple[str, str] | None:
    """Return document and query prefix of a model, whatever registry, size, quantisation and tag are in its name.

    Returns None if nothing is known of it. A folder of the cache of Hugging Face is named after its model.
    """
    path = re.sub(r"/snapshots/[^/]+$", "", model.lower().rstrip("/"))
    name = re.sub(r"[^a-z0-9]+", "-", path.rsplit("/", 1)[-1])
    for pattern, document, query in PROMPTS:
        if re.search(rf"(^|-)({pattern})(-|$)", name):
            return document, query
    return None
