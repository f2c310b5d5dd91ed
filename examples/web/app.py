"""A web application that searches: a form, and the answers of the service below it."""

import os
from html import escape

import httpx
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

PAGE = """<!doctype html><meta charset="utf-8"><title>Help</title>
<form><input name="q" value="{query}" placeholder="What is broken?"><button>Search</button></form>
<p>{note}</p><ol>{hits}</ol>"""
HIT = "<li><b>{title}</b> ({place})<br>{text}</li>"

app = FastAPI()
service = httpx.AsyncClient(
    base_url=os.environ.get("SERVICE", "http://127.0.0.1:8765"),
    headers={"Authorization": f"Bearer {os.environ['TOKEN']}"},
    timeout=10,
)


@app.get("/", response_class=HTMLResponse)
async def search(q: str = ""):
    if not q:
        return PAGE.format(query="", note="", hits="")
    answer = (await service.post("/search", json={"query": q, "limit": 5})).json()
    if "hits" not in answer:  # a problem, which says what is wrong
        return PAGE.format(query=escape(q), note=escape(answer["detail"]), hits="")
    note = (
        "Nothing fits. The nearest:"
        if answer.get("nothing_fits")
        else escape(answer.get("missing", ""))
    )
    hits = [
        HIT.format(
            title=escape(hit.get("title", "")),
            place=escape(hit["document_id"]),
            text=escape(hit["text"]),
        )
        for hit in answer["hits"]
    ]
    return PAGE.format(query=escape(q), note=note, hits="".join(hits))
