"""docs/retrieval.md: its options are those of the command."""

import asyncio
import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "retrieval.md").read_text(encoding="utf-8")


def block(language: str, having: str) -> str:
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if having in code]
    return found


def test_the_example_at_the_top_runs(embedded):
    code = (
        block("python", "timeout=0.5")
        .replace("rag-index.toml", str(embedded.config))
        .replace("timeout=0.5", "timeout=20")
    )
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    scope: dict[str, object] = {}
    exec(f"async def main():\n{lines}    return result", scope)
    result = asyncio.run(scope["main"]())
    assert {hit.index for hit in result.hits} == {"comments", "solutions"}
    for name in re.findall(r"^\| `result\.(\w+)`", TEXT, re.MULTILINE):
        assert hasattr(result, name)
    for name in ("index", "document_id", "score", "rank", "text", "payload", "chunks", "fused"):
        assert hasattr(result.hits[0], name)
