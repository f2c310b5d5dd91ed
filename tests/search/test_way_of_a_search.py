"""Whoever follows a search reads few files, one after the other, and meets few threads."""

import asyncio
import sys
import threading
from itertools import groupby
from pathlib import Path

import rag_index
from rag_index.search import Retriever, positions
from tests.etl.plain import run_plain
from tests.project import Project


def test_a_search_goes_through_few_files_and_threads(tmp_path, monkeypatch):
    """The ledger is read twice a second, for all searches that there are, and not for this one."""
    monkeypatch.setattr(positions, "REST_SECONDS", 1000.0)
    project = Project(tmp_path / "project").fill(57)
    run_plain(project)
    folder, calls, recording = f"{Path(rag_index.__file__).parent}/", {}, threading.Event()

    def note(frame, event, _):
        file = frame.f_code.co_filename
        if recording.is_set() and event == "call" and file.startswith(folder):
            calls.setdefault(threading.get_ident(), []).append(file.removeprefix(folder))

    before = {*threading.enumerate()} - {threading.current_thread()}

    async def search():
        async with Retriever.from_settings(project.settings) as retriever:
            await retriever.search("note about printers")
            recording.set()
            found = await retriever.search("Body of another note", limit=10)
            recording.clear()
            return found, {*threading.enumerate()} - before

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        found, threads = asyncio.run(search())
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert len(found.hits) == 10
    assert found.hits[0].bm25 > 0, "it was searched for by words, too"
    files = {file for some in calls.values() for file in some}
    own = [file for file, _ in groupby(calls[threading.get_ident()])]
    assert 20 < len(files) <= 29, sorted(files)
    assert 50 < len(own) <= 95, "\n".join(own)
    assert 2 <= len(threads) <= 5, threads
