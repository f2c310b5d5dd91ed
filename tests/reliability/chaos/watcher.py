"""A watch in a process of its own, without Prefect, which writes down each text that it embeds.

python -m tests.reliability.chaos.watcher SETTINGS TEXTS
"""

import logging
import sys
import uuid
from contextlib import closing
from pathlib import Path

from rag_index.components.embedders.local import LocalEmbedder
from rag_index.core.reports.record import RunRecord
from rag_index.core.settings import Settings, load_settings
from rag_index.errors import RagIndexError
from rag_index.etl.changed import Applied, serially
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.plain import Plainly
from rag_index.etl.run import AllDocuments, execute
from rag_index.watch import PlainRunner, loop, open_watch
from rag_index.watch.loop import Stop, stopped_by_signals
from tests.watch.feeds import EndedRun


class Runner(PlainRunner):
    """The runner of a watch without Prefect, whose ordinary runs are in this process too: they start at once."""

    def begin_run(self, name: str) -> EndedRun:
        self.close()
        try:
            return EndedRun(Applied(whole_run(self._settings, name)))
        except RagIndexError as error:
            return EndedRun(Applied(None, error))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = load_settings(Path(sys.argv[1]))
    note_embedded(Path(sys.argv[2]))
    loop.SETTLE_SECONDS, loop.NOTE_SECONDS = 2.0, 1.0  # what runs found first is judged sooner
    stop = Stop()
    with (
        closing(Runner(settings)) as runner,
        stopped_by_signals(stop),
        open_watch(settings, None, runner, stop) as watch,
    ):
        watch.run()


def whole_run(settings: Settings, name: str, documents: AllDocuments | None = None):
    """Bring an index up to date by reading everything, and return the outcome."""
    record = RunRecord(name)
    with (
        open_index(settings, name, RunOptions(), run_id=str(uuid.uuid4())) as opened,
        closing(Plainly(serially(settings))) as steps,
    ):
        execute(opened, steps, record, documents=documents)
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
