"""docs/tutorial.md, typed from its SQL to the watch, with a PostgreSQL server and a fake Ollama."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import blocks, page, section
from tests.fakes.ollama import FakeOllama
from tests.live.postgres import find_postgres, postgres
from tests.ports import free_port
from tests.waiting import eventually

__all__ = ["postgres"]

PAGE = page("tutorial")


@pytest.mark.long
def test_a_row_is_found_by_a_search_that_follows_changes(postgres, tmp_path):
    (sql,), (settings,) = blocks(PAGE, "sql"), blocks(PAGE, "toml")
    port, running = str(free_port()), []
    with postgres.database() as name, FakeOllama() as ollama:
        owner = postgres.url(name).set(drivername="postgresql").render_as_string(hide_password=False)
        here = {"127.0.0.1/desk": f"127.0.0.1:{postgres.port}/{name}", "psql -d desk": f"psql {owner}", "8765": port}
        environment = {
            **os.environ, "PATH": f"{Path(sys.executable).parent}:{find_postgres()}:{os.environ['PATH']}",
            "RAG_INDEX_EMBEDDER__HOSTS": ollama.url, "RAG_INDEX_EMBEDDER__MODEL": ollama.model,
            "RAG_INDEX_EMBEDDER__DOCUMENT_PREFIX": "", "RAG_INDEX_EMBEDDER__QUERY_PREFIX": "",
            "RAG_INDEX_SERVE__PORT": port,
        }  # fmt: skip

        def typed(text: str) -> str:
            for there, place in here.items():
                text = text.replace(there, place)
            return text

        def shell(commands: str, **how: object) -> subprocess.Popen[str]:
            return subprocess.Popen(
                ["bash", "-ec", typed(commands)], cwd=tmp_path, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how,
            )  # fmt: skip

        (tmp_path / "desk.sql").write_text(sql)
        (tmp_path / "rag-index.toml").write_text(typed(settings))
        try:
            with postgres.connect(name) as connection:
                connection.execute(sql)
            first = section(PAGE, "## The first run")
            printed, _ = shell(blocks(first, "sh")[0]).communicate(timeout=120)
            said = r"tickets: 4 documents: 4 new, 4 chunks embedded in .*\nCompleted: 1 index: 4 documents indexed\."
            assert re.search(said, printed), printed
            assert (tmp_path / "rag-index.env").stat().st_mode & 0o77 == 0
            read = "set -a; . ./rag-index.env; set +a; exec "
            for heading in ("## A query over HTTP", "## Follow changes"):
                stays, asks = blocks(section(PAGE, heading), "sh")
                running.append(shell(read + stays))
                if heading == "## A query over HTTP":
                    ready = f"curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:{port}/readyz"
                    shell(ready).communicate(timeout=100)
                answer = shell(asks).communicate(timeout=60)[0]
                if heading == "## A query over HTTP":
                    assert '"document_id":"1"' in answer, answer
            search = f"curl --silent 'http://127.0.0.1:{port}/search?query=E17&limit=1'"
            eventually(lambda: '"document_id":"5"' in shell(search).communicate()[0], "ticket 5 is found", every=0.5)
        finally:
            for one in running:
                one.terminate()
                one.wait(30)
            with postgres.connect(name) as connection:
                connection.execute("DROP OWNED BY reader; DROP ROLE reader")
