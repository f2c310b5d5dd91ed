"""How good the settings are that `init` writes for databases that nobody here wrote.

    python benchmarks/strangers.py FOLDER [NAME …] [--answers FOLDER]

The settings are those of `init --yes`. With --answers, a database NAME gets those of `init
--answers NAME.json`, if there is such a file in that folder.

FOLDER holds NAME.db for SQLite and NAME.sql, a dump, for MariaDB or PostgreSQL, of the sources that
`strangers.toml` names; those that are missing are left out. For each it prints how many questions
find the right document first and their evidence among five hits, how many hidden texts and secrets
are in the indexes, the share of documents that nobody looks for, and the share of the letters of
these tables that the documents hold. Below stands what failed, also because no document has the
evidence, and what was asked. The last line is the whole: sums, and the shares of all documents and
of all letters.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import io
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.components.stores import open_store
from rag_index.core.settings import load_settings
from rag_index.etl.opened import RunOptions
from rag_index.first_run.schema import Answers, scaffold
from rag_index.first_run.schema.screen import treatment
from rag_index.orchestration.launch import run_locally
from rag_index.search.retriever import Retriever
from tests.live.mariadb import MariadbServer, find_mariadb
from tests.live.postgres import PostgresServer, find_postgres
from tests.wild.judge import answers_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.core.settings import Settings

HEAD = "database        right  evidence  of  hidden  secrets  noise  letters  questions  documents"
MIN_CHARS = 20
"""Shorter values are states and codes, and count for no text."""
MIN_WORDS = 3
MARKUP = re.compile(
    r"<[^<>]*>|s:\d+:\"|\";|&\w+;|[\r\n]+|\[\[|\]\]|\[/?\w[^\[\]]*\]|`|['*=!|{}^,~_-]{2,}"
)
PIECE = 40
"""Letters of a value by which it is looked for in the documents."""


class Figures(NamedTuple):
    """What one database, or all of them, came to."""

    right: int
    evidence: int
    questions: int
    hidden: int
    secrets: int
    noise: int
    reached: int
    letters: int
    asked: int
    documents: int

    def line(self, name: str) -> str:
        return (
            f"{name:<14}  {self.right:>5}  {self.evidence:>8}  {self.questions:>2} "
            f" {self.hidden:>6}  {self.secrets:>7}  {self.noise / max(1, self.documents):>5.0%} "
            f" {self.reached / max(1, self.letters):>7.1%}  {self.asked:>9}  {self.documents:>9}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--answers", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    known = tomllib.loads((Path(__file__).parent / "strangers.toml").read_text(encoding="utf-8"))
    print(HEAD)
    whole = [0] * len(Figures._fields)
    for name in arguments.names or known:
        with (
            tempfile.TemporaryDirectory(prefix="rag-index-strangers-") as place,
            database(arguments.folder, name, known[name]["kind"]) as url,
        ):
            if url is not None:
                answers = answers_in(arguments.answers, name)
                found = judge(name, known[name], url, Path(place), answers)
                whole = [*map(sum, zip(whole, found, strict=True))]
    print(Figures(*whole).line("all of them"))


@contextmanager
def database(folder: Path, name: str, kind: str) -> Iterator[sa.URL | None]:
    """Yield the URL of a database; None if its file is missing."""
    file = folder / f"{name}.{'db' if kind == 'sqlite' else 'sql'}"
    if not file.exists():
        print(f"{name}: there is no {file}", file=sys.stderr)
        yield None
    elif kind == "sqlite":
        yield sa.make_url(f"sqlite:///{file.absolute()}")
    elif kind == "postgresql":
        with PostgresServer(find_postgres()) as server:
            url = server.url("postgres")
            client = [
                "psql",
                "-qd",
                url.set(drivername="postgresql").render_as_string(hide_password=False),
            ]
            with file.open("rb") as dump:
                subprocess.run(
                    client,
                    stdin=dump,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
            yield url
    else:
        with MariadbServer(*find_mariadb()) as server:
            url = server.url
            client = [
                "mariadb",
                "--force",
                f"-h{url.host}",
                f"-P{url.port}",
                f"-u{url.username}",
                f"-p{url.password}",
            ]
            with file.open("rb") as dump:
                subprocess.run(
                    [*client, str(url.database)], stdin=dump, stderr=subprocess.DEVNULL, check=False
                )
            yield url


def judge(
    name: str, asked: dict[str, Any], url: sa.URL, folder: Path, answers: Answers | None
) -> Figures:
    """Index a database with what `init` writes, ask the questions, print the figures and return
    them."""
    whole = url.render_as_string(hide_password=False)
    made = scaffold(whole, folder, answers=answers)
    if not made.proposal.indexes:
        # a database of which all tables are left out
        letters = reached(url, asked["wanted"], "")
        figures = Figures(0, 0, len(asked["questions"]), 0, 0, 0, *letters, 0, 0)
        print(figures.line(name))
        return figures
    (folder / "rag-index.toml").write_text(made.text, encoding="utf-8")
    patient = {"timeout": 120}  # a busy machine leaves out no index
    own: dict[str, Any] = {
        "source": {"url": whole},
        "parallel": {"serial": True},
        "retrieve": patient,
    }
    settings = load_settings(folder / "rag-index.toml", **own)
    with contextlib.redirect_stderr(io.StringIO()):
        run_locally(settings, settings.indexes, RunOptions())
    texts, noise = documents(settings, asked["wanted"])
    held, right, evidence, failed = plain(*texts), 0, 0, []
    with Retriever.from_settings(settings) as retriever:
        for question, shows, proof in asked["questions"]:
            hits = retriever.search_sync(question, limit=5).hits
            read = [
                plain(
                    one.title,
                    one.document_id,
                    *map(str, one.payload.values()),
                    one.text,
                    *[chunk.text for chunk in one.chunks],
                )
                for one in hits
            ]
            first, among = plain(shows) in "".join(read[:1]), plain(proof) in "".join(read)
            right, evidence = right + first, evidence + among
            if not (first and among):
                lacks = (
                    "" if as_stored(plain(proof)) in held else " (the evidence is in no document)"
                )
                failed.append(
                    f"{question} ->"
                    f" {hits[0].index + ': ' + read[0][:90] if hits else 'nothing'}{lacks}"
                )
    everything = made.text + "\n".join(texts)
    found = [
        [one for one in asked.get(kind, []) if one in everything] for kind in ("hidden", "secrets")
    ]
    figures = Figures(
        right,
        evidence,
        len(asked["questions"]),
        *map(len, found),
        noise,
        *reached(url, asked["wanted"], held),
        len(made.proposal.questions),
        len(texts),
    )
    print(figures.line(name))
    for line in [*failed, *[f"shown: {one}" for one in (*found[0], *found[1])]]:
        print(f"  - {line}")
    for one in made.proposal.questions:
        print(f"  ? {one.id}: {treatment(one)}")
    return figures


def plain(*texts: str) -> str:
    """Return texts in small letters without blanks."""
    return "".join(" ".join(texts).lower().split())


def as_stored(text: str) -> str:
    """Return a text as it stands in the JSON of a payload."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def documents(settings: Settings, wanted: list[str]) -> tuple[list[str], int]:
    """Return a text for each document, and how many of them are of tables that nobody looks for."""
    texts: list[str] = []
    noise, store = 0, open_store(settings.store)
    try:
        for index in settings.indexes:
            found: dict[str, str] = {}
            for point in store.points(settings.alias(index.name)).scroll(vectors=False):
                ours = point.payload["_rag"]["document_id"]
                found[ours] = (
                    found.get(ours, "") + "\n" + json.dumps(point.payload, ensure_ascii=False)
                )
            texts += found.values()
            noise += 0 if index.table in wanted else len(found)
    finally:
        store.close()
    return texts, noise


def reached(url: sa.URL, wanted: list[str], read: str) -> tuple[int, int]:
    """Return how many letters of wanted texts have a piece in a document, and how many there are.

    Texts are what people read of a value, of several words; of a text with markup, the longest
    piece without any.
    """
    engine, total, there = sa.create_engine(url), 0, 0
    if engine.dialect.name == "sqlite":  # a text need not be UTF-8 there
        sa.event.listen(engine, "connect", lambda opened, _: setattr(opened, "text_factory", lossy))
    with engine.connect() as connection:
        for table in {*sa.inspect(engine).get_table_names()} & {*wanted}:
            columns = [
                sa.column(one["name"])
                for one in sa.inspect(engine).get_columns(table)
                if not isinstance(one["type"], TSVECTOR)
            ]  # made for searching, and no text
            for row in connection.execute(sa.select(*columns).select_from(sa.table(table))):
                for value in row:
                    text = (
                        max(MARKUP.split(html.unescape(value)), key=len)
                        if isinstance(value, str)
                        else ""
                    )
                    if (
                        len(text) >= MIN_CHARS
                        and len(text.split()) >= MIN_WORDS
                        and value[:1] not in "{["
                    ):
                        bare, total = plain(text), total + len(text)
                        pieces = [
                            bare[at * len(bare) // 4 :][:PIECE] for at in (2, 1, 3)
                        ]  # chunks end in any place
                        there += len(text) * any(as_stored(one) in read for one in pieces)
    engine.dispose()
    return there, total


def lossy(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("cp1252", errors="replace")


if __name__ == "__main__":
    main()
