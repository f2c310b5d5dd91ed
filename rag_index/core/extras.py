"""The command that adds an extra of rag-index, such as `mcp`, to the environment that lacks it."""

import json
import shlex
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit


@cache
def install_command(extra: str) -> str:
    """Return the command that installs an extra from where rag-index itself was installed. That is a checkout, a wheel
    or, if pip noted neither, a registry: `pip install -e '/srv/rag-index[mcp]'`."""
    try:
        noted = json.loads(distribution("rag-index").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # it runs from a folder that nothing installed
        noted = {"url": "file:"}
    url = urlsplit(noted.get("url", ""))
    if url.scheme != "file":
        return f"pip install 'rag-index[{extra}]'"
    place = Path(unquote(url.path))
    if not url.path or not place.exists():
        return f"pip install '.[{extra}]' in a checkout of rag-index"
    editable = "-e " if noted.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(f'{place}[{extra}]')}"
