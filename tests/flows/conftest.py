"""What flows are run against."""

import pytest


class Recorder:
    """A display that keeps every sentence it is shown."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def show(self, progress) -> None:
        self.sentences.append(progress.sentence())

    def announce(self, sentence) -> None:
        self.sentences.append(sentence)

    def finish(self, progress, sentence) -> None:
        self.sentences.append(sentence)

    def says(self, *parts: str) -> bool:
        return any(all(part in sentence for part in parts) for sentence in self.sentences)


@pytest.fixture
def shown(monkeypatch) -> Recorder:
    """What a person sees of the progress."""
    recorder = Recorder()
    for module in ("launch", "reporting"):
        monkeypatch.setattr(f"rag_index.orchestration.{module}.open_display", lambda: recorder)
    return recorder
