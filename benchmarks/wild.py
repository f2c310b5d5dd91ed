"""How good the settings are that `init` writes for databases it has never seen. Quoted in
README.md.

    python benchmarks/wild.py [KIND …] [--database sqlite|postgresql|mariadb] [--answers FOLDER]

The settings are those of `init --yes`. With --answers, a kind gets those of `init --answers
KIND.json`, if there is such a file in that folder.

For each sample database of tests/wild: how many questions find the right document first and their
evidence among five hits, how many hidden rows and secrets are shown, and the seconds of `init` and
of the first run. The servers are started as for the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.live.mariadb import MariadbServer, find_mariadb
from tests.live.postgres import PostgresServer, find_postgres
from tests.wild.judge import Verdict, answers_in, judge, proposed
from tests.wild.sample import SEEN, UNSEEN, sample, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.first_run.schema import Answers

HEAD = (
    "kind        right  evidence  of  hidden  secrets  indexes  empty  documents  init s  index s"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "mariadb"], default="sqlite")
    parser.add_argument("--answers", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    print(HEAD)
    with server(arguments.database) as database:
        for group in (SEEN, UNSEEN):
            kinds = [kind for kind in arguments.kinds or group if kind in group]
            verdicts = [
                verdict(kind, database, answers_in(arguments.answers, kind)) for kind in kinds
            ]
            if verdicts:
                print_line("seen" if group is SEEN else "unseen", total(verdicts))


def verdict(kind: str, database: Any, answers: Answers | None) -> Verdict:
    """Judge one kind, and print its line."""
    made = sample(kind)
    with tempfile.TemporaryDirectory(prefix="rag-index-wild-") as name, database(Path(name)) as url:
        engine = sa.create_engine(url)
        write(made, engine)
        engine.dispose()
        folder = Path(name)
        with contextlib.redirect_stderr(io.StringIO()):
            seconds = proposed(url, folder, answers)
            found = judge(made, folder, seconds)
    print_line(kind, found)
    for question in found.wrong:
        print(f"    {question}")
    for word in [*found.hidden, *found.secrets]:
        print(f"    shown: {word}")
    return found


def print_line(name: str, found: Verdict) -> None:
    print(
        f"{name:<10} {found.right:>6} {found.evidence:>9} {found.questions:>3}"
        f" {len(found.hidden):>7} {len(found.secrets):>8} {found.indexes:>8} {found.empty:>6}"
        f" {found.documents:>10} {found.init_seconds:>7.1f} {found.index_seconds:>8.1f}"
    )


def total(verdicts: list[Verdict]) -> Verdict:
    """Return the sums of all numbers."""
    added = Verdict(0)
    for one in verdicts:
        for name in (
            "questions",
            "right",
            "evidence",
            "hidden",
            "secrets",
            "indexes",
            "empty",
            "documents",
        ):
            setattr(added, name, getattr(added, name) + getattr(one, name))
        added.init_seconds += one.init_seconds
        added.index_seconds += one.index_seconds
    return added


@contextmanager
def server(database: str) -> Iterator:
    """Yield a function that gives the URL of an empty database as long as its block lasts."""
    if database == "sqlite":
        yield file_in
        return
    if database == "postgresql":
        with PostgresServer(find_postgres()) as running:

            @contextmanager
            def empty(_: Path) -> Iterator[sa.URL]:
                with running.database() as name:
                    yield running.url(name)

            yield empty
        return
    with MariadbServer(*find_mariadb()) as running:

        @contextmanager
        def emptied(_: Path) -> Iterator[sa.URL]:
            yield running.url
            with running.connect() as connection, connection.cursor() as cursor:
                cursor.execute("DROP DATABASE desk")
                cursor.execute("CREATE DATABASE desk CHARACTER SET utf8mb4")

        yield emptied


@contextmanager
def file_in(folder: Path) -> Iterator[sa.URL]:
    yield sa.make_url(f"sqlite:///{folder}/source.db")


if __name__ == "__main__":
    main()
