"""Ask the tools of `rag-index mcp` a question: search, then read the document of the first hit
around its chunk."""

import asyncio
import re
import sys

from mcp import Client, StdioServerParameters

FIRST = re.compile(
    r"1\. \[(?P<index>[^/]+)/(?P<document_id>[^]#]+)#.*?\](?:.*?, chunk (?P<chunk>\d+))?"
)


async def ask(question: str) -> None:
    """Print what an agent would read."""
    async with Client(StdioServerParameters(command="rag-index", args=["mcp"])) as client:
        print("tools:", ", ".join(tool.name for tool in (await client.list_tools()).tools))
        hits = (await client.call_tool("search", {"query": question, "limit": 3})).content[0].text
        print(f"\nsearch:\n{hits}")
        if found := FIRST.match(hits):
            place = {**found.groupdict(), "around": int(found["chunk"] or 0), "max_chars": 1000}
            del place["chunk"]
            print(
                "\nread get_document"
                f" {place}:\n{(await client.call_tool('get_document', place)).content[0].text}"
            )


asyncio.run(ask(sys.argv[1]))
