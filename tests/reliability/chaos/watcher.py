"""A watch in a process of its own, which writes down each text that it embeds.

python -m tests.reliability.chaos.watcher SETTINGS TEXTS
"""

import logging
import sys
import uuid
from contextlib import closing
from functools import partial
from pathlib import Path

from rag_index.components.embedders.local import LocalEmbedder
from rag_index.core.reports.progress import RunRecord
from rag_index.core.settings import Settings, load_settings
from rag_index.etl.changed import serially
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from rag_index.watch import follow
from rag_index.watch.loop import Stop, stopped_by_signals


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    note_embedded(Path(sys.argv[2]))
    stop = Stop()
    with stopped_by_signals(stop):
        follow(partial(load_settings, Path(sys.argv[1])), None, stop)


def whole_run(settings: Settings, name: str):
    """Bring an index up to date by reading everything, and return the outcome."""
    record = RunRecord(name)
    with (
        open_index(settings, name, RunOptions(), run_id=str(uuid.uuid4())) as opened,
        closing(LocalSteps(serially(settings))) as steps,
    ):
        run_index(opened, steps, record)
        if record.error is not None:
            raise record.error
        return record.outcome


def note_embedded(file: Path) -> None:
    """Append each text that this process embeds to a file, a line each."""
    embed = LocalEmbedder.embed_documents

    def noting(self, texts):
        made = embed(self, texts)
        with file.open("a", encoding="utf-8") as lines:
            lines.write("".join(f"{text}\n" for text in texts))
        return made

    LocalEmbedder.embed_documents = noting


if __name__ == "__main__":
    main()
