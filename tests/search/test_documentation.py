"""docs/retrieval.md: its options are those of the command."""

import re
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

TEXT = (Path(__file__).parents[2] / "docs" / "retrieval.md").read_text(encoding="utf-8")


def block(language: str, having: str) -> str:
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if having in code]
    return found


def test_the_examples_at_the_top_run_as_files(embedded, capsys):
    code = block("python", "timeout=0.5").replace("timeout=0.5", "timeout=20")
    code = f"{block('python', 'print(')}\n{code}".replace("rag-index.toml", str(embedded.config))
    scope: dict[str, object] = {}
    exec(code, scope)
    result = scope["result"]
    assert "comments/" in capsys.readouterr().out
    assert {hit.index for hit in result.hits} == {"comments", "solutions"}
    for name in re.findall(r"^\| `result\.(\w+)`", TEXT, re.MULTILINE):
        assert hasattr(result, name)
    for name in ("index", "document_id", "score", "rank", "text", "payload", "chunks", "fused"):
        assert hasattr(result.hits[0], name)


def test_prometheus_text_is_that_of_the_documentation(embedded):
    with embedded.retriever() as retriever:
        retriever.search_sync("printer")
        retriever.search_sync("printer")
        text = generate_latest(retriever.metrics()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {(s.name, *sorted(s.labels.items())): s.value for family in families.values() for s in family.samples}
    assert samples["rag_index_search_seconds_bucket", ("le", "+Inf"), ("stage", "total")] == 2
    assert samples["rag_index_search_seconds_bucket", ("le", "0.0001"), ("stage", "total")] == 0
    assert samples["rag_index_search_index_seconds_count", ("index", "titles")] == 2
    assert samples["rag_index_query_vectors_total",] == 2
    assert samples["rag_index_query_embeds_total",] == 1
    assert "rag_index_search" not in generate_latest().decode(), "nothing is in the registry of the process"
    documentation = (Path(__file__).parents[2] / "docs" / "retrieval.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(rag_index_\w+)`", documentation))
    assert documented == set(re.findall(r"^# TYPE (\w+(?<!_created)) ", text, re.MULTILINE))
