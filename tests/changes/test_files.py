"""Changed files: what people and their tools do in a folder of source code."""

import shutil
from contextlib import closing

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.sources import listing
from rag_index.etl.changed import index_documents
from rag_index.watch.changes import Received, poll
from rag_index.watch.changes.poll import FileFeed
from tests.project import Project
from tests.waiting import eventually

SETTINGS = """\
project = "test"
watch.poll_seconds = 0.05
[[indexes]]
name = "notes"
kind = "code"
root = "src"
exclude = ["vendor/**"]
"""


class Folder:
    """A project of source code that is indexed, and the feed of its index."""

    def __init__(self, path) -> None:
        self.project = Project(path)
        self.project.write_settings(SETTINGS)
        self.root = path / "src"
        for name in ("a.py", "pkg/b.py", "pkg/deep/c.py", "vendor/v.py"):
            self.write(name)
        self.write(".gitignore", "out/\n*.tmp.py\n")
        self.ledger = Ledger(self.project.settings.ledger_url)
        index_documents(self.project.settings, "notes", ["a.py", "pkg/b.py", "pkg/deep/c.py"])
        self.feed = self.open()

    def open(self, **more) -> FileFeed:
        settings = self.project.settings
        return FileFeed(settings, settings.indexes[0], self.ledger, **more)

    def write(self, name: str, text: str = "def f():\n    return 1\n") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def receive(self, feed: FileFeed | None = None, *, acknowledge: bool = True) -> Received:
        """Wait for changes, and return them."""
        feed = feed or self.feed

        def some() -> Received | None:
            feed.wait(0.2)
            received = feed.receive(1000)
            if acknowledge:
                feed.acknowledge(received)
            return received if received.changes or received.overflow else None

        return eventually(some)

    def changes(self, feed: FileFeed | None = None, *, acknowledge: bool = True) -> set[str]:
        """Wait for changes, and return their ids."""
        return {change.id for change in self.receive(feed, acknowledge=acknowledge).changes}

    def settle(self) -> None:
        """Take what there is."""
        self.feed.wait(10)
        self.feed.acknowledge(self.feed.receive(1000))

    def close(self) -> None:
        self.feed.close()
        self.ledger.close()


@pytest.fixture
def folder(tmp_path):
    with closing(Folder(tmp_path / "project")) as made:
        yield made


def test_files_and_folders_that_are_written_replaced_renamed_and_deleted_are_given(folder):
    folder.settle()
    folder.write("a.py", "def g(): pass\n")
    assert folder.changes() == {"a.py"}
    folder.write(".a.py.swp", "x")  # as editors save: beside it, and then over it
    folder.write("a.tmp.py", "def h(): pass\n")
    (folder.root / "a.tmp.py").replace(folder.root / "a.py")
    assert folder.changes() == {"a.py"}
    (folder.root / "a.py").unlink()
    assert folder.changes() == {"a.py"}
    (folder.root / "pkg").rename(folder.root / "lib")
    assert folder.changes() == {"pkg/b.py", "pkg/deep/c.py", "lib/b.py", "lib/deep/c.py"}
    (folder.root / "new" / "deep").mkdir(parents=True)
    folder.write("new/deep/d.py")
    assert folder.changes() == {"new/deep/d.py"}
    folder.write(".gitignore", "lib/\n")
    assert folder.changes() == {"lib/b.py", "lib/deep/c.py"}


def test_what_changed_before_the_watch_began_is_not_missed(folder):
    folder.write("a.py", "def other(): pass\n")
    folder.write("z.py")
    (folder.root / "pkg" / "b.py").unlink()
    folder.feed.check()
    received = folder.feed.receive(1000)
    assert {"a.py", "z.py", "pkg/b.py"} <= {change.id for change in received.changes}
    again = folder.open()
    with closing(again):
        assert {"a.py", "z.py", "pkg/b.py"} <= {change.id for change in again.receive(1000).changes}


def test_without_an_acknowledgement_the_same_comes_again(folder):
    folder.settle()
    folder.write("a.py", "def g(): pass\n")
    assert [folder.changes(acknowledge=False) for _ in range(2)] == [{"a.py"}, {"a.py"}]


def test_another_branch_with_thousands_of_files_is_left_to_a_run(folder, monkeypatch):
    monkeypatch.setattr(poll, "MAX_FILES", 20)
    folder.settle()
    for number in range(30):
        folder.write(f"branch/m{number}.py")
    eventually(lambda: folder.receive().overflow == ("notes",))


def test_documents_in_a_folder_that_cannot_be_read_are_kept(folder, monkeypatch):
    folder.settle()
    real = listing.open_below

    def open_below(root, name):
        if name.startswith("pkg/"):
            raise PermissionError(13, "Permission denied")
        return real(root, name)

    monkeypatch.setattr(listing, "open_below", open_below)
    folder.write("z.py")
    assert folder.changes() == {"z.py"}
    monkeypatch.setattr(listing, "open_below", real)
    shutil.rmtree(folder.root / "pkg")
    assert folder.changes() == {"pkg/b.py", "pkg/deep/c.py"}


def test_listing_takes_a_fiftieth_of_the_time(folder, monkeypatch):
    now = [0.0]
    with closing(folder.open(clock=lambda: now[0])) as feed:
        list_files = feed._source.stamps

        def slowly():
            now[0] += 5
            return list_files()

        monkeypatch.setattr(feed._source, "stamps", slowly)
        feed.acknowledge(feed.receive(1000))
        folder.write("a.py", "def g(): pass\n")
        now[0] += 249
        assert not feed.receive(1000).changes
        now[0] += 2
        assert [change.id for change in feed.receive(1000).changes] == ["a.py"]
