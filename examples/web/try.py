"""Start the service with a new token and the application on free ports, ask the application once,
and stop both."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

import httpx


@contextmanager
def started(*command, **variables):
    """Yield the address that a server prints, and stop it in the end."""
    with subprocess.Popen(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            for line in server.stdout:
                if found := re.search(r"http://[\d.:]+", line):
                    yield found[0]
                    return
            raise SystemExit(f"{command[0]} does not start")
        finally:
            server.terminate()


made = subprocess.run(
    ["rag-index", "serve", "--new-token", "app"], check=True, capture_output=True, text=True
).stdout
token, line = re.findall(r"^  (rag_\S+|app .*)$", made, re.M)
with (
    started("rag-index", "serve", "--port", "0", RAG_INDEX_SERVE__TOKENS=line) as service,
    started("uvicorn", "app:app", "--port", "0", SERVICE=service, TOKEN=token) as application,
):
    print(httpx.get(application, params={"q": sys.argv[1]}, timeout=30).text)
