"""docs/retrieval.md: its options are those of the command."""

import re
from pathlib import Path

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
