"""Anything may be killed at any moment: after one more run, the index equals that of a clean run. A
run in processes of its own is watched through its ledger until a random share of its changes is
committed; then one target is killed. No process of the run may remain, and nothing may be written
any more. After one more run, the point ids, the payloads, the vectors and the ledger's rows must
equal those of a project that was indexed once, from nothing."""

import os
import random
import re
import shutil
import signal
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.dask_workers import command
from tests.fakes.ollama import FakeOllama
from tests.fakes.qdrant import FakeQdrant
from tests.live.models import write_embedding_gguf
from tests.live.ollama_server import OllamaServer, find_ollama
from tests.live.qdrant import project_on
from tests.prefect_api import temporary_server
from tests.project import Project
from tests.reliability.scenario import edit_corpus, make_project
from tests.reliability.victim import Victim, file_stamps, kill_qdrant, ledger_rows, project_in
from tests.waiting import eventually

SEED = random.SystemRandom().randrange(1_000_000)
DOCUMENTS = 480
SHARD_DOCUMENTS = {"first": 24, "second": 10}
"""Documents in a shard: few, so that a run has many shards."""
GONE_SECONDS = 60.0
"""How long the processes of a killed run may take to end."""
END_SECONDS = 240.0
"""How long a run that is not killed itself may take to end."""
PAYLOAD_BATCH = 500
"""Documents in one payload update; a kill in the middle of it makes the next run embed them
again."""
SURVIVED = ("worker", "ollama", "qdrant")
"""Targets that a run survives: it must complete by itself."""


@contextmanager
def prefect_to_kill():
    """Yield the variables and the process of a Prefect server that a test may kill."""
    children = psutil.Process().children
    before = {child.pid for child in children()}
    with temporary_server() as variables:
        [server] = [c for c in children() if c.pid not in before and "create_app" in command(c)]
        yield variables, server


class TooLate(Exception):
    """The run ended before the moment of the kill."""


@dataclass(frozen=True)
class Case:
    """What is killed in which run, and when: `delay` seconds after `share` of the run's changes are
    committed."""

    target: str
    run: str = "first"
    embedder: str = "local"
    store: str = "embedded"
    """One of `STORES`."""
    workers: int = 2
    plain: bool = False
    """Whether the run has no Prefect server, as for a user without one."""
    share: float = 0.0
    delay: float = 0.0


CASES = (
    Case("flow", "second", plain=True),
    Case("flow", "first", workers=1),
    Case("group", "first", embedder="ollama"),
    Case("group", "second", store="loopback"),
    Case("worker", "first"),
    Case("ollama", "second", embedder="ollama"),
    Case("qdrant", "first", store="loopback"),
    Case("worker", "second", store="loopback", plain=True),
    Case("prefect-external", "first"),
    Case("flow", "first", store="real"),
    Case("worker", "second", store="real"),
    Case("prefect-external", "second", store="real"),
)


@pytest.fixture(scope="module")
def ollama(tmp_path_factory):
    """Yield a real server if there is one, and the name of its model."""
    program, folder = find_ollama(), tmp_path_factory.mktemp("ollama")
    if isinstance(program, str):
        with FakeOllama() as fake:
            fake.kill, fake.start = fake.stop_listening, fake.listen
            yield fake, fake.model
    else:
        with OllamaServer(program, folder) as server:
            yield server, server.create("tiny-embed", write_embedding_gguf(folder / "tiny.gguf"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Return the function that indexes the corpus as a run finds it from nothing, once for each
    sort of settings."""
    known = {}

    def index(run: str, settings: str):
        if (run, settings) not in known:
            project = make_project(
                tmp_path_factory.mktemp("clean") / "p", DOCUMENTS, extra=settings
            )
            if run == "second":
                edit_corpus(project)
            assert project.run().state == "completed"
            known[run, settings] = project
        return known[run, settings]

    return index


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.qdrant_server] * (case.store == "real"))
        for case in CASES
    ],
    ids=lambda case: f"{case.target}, {case.run} run, {case.store}",
)
def test_the_run_after_a_kill_loses_nothing(tmp_path, prefect_server, request, clean, case):
    random_ = random.Random(f"{SEED} {case}")
    share, delay = random_.uniform(0.0, 0.9), random_.uniform(0.0, 0.1)
    ollama, settings = None, ""
    if case.embedder == "ollama":
        ollama, model = request.getfixturevalue("ollama")
        settings = (
            f'[embedder]\nkind = "ollama"\nmodel = "{model}"\nhosts = ["{ollama.url}"]\nnum_thread'
            " = 1\n"
        )
    for number, earlier in enumerate((1.0, 0.7, 0.4, 0.0)):  # if the run ends too soon
        case = replace(case, share=share * earlier, delay=delay)
        print(case)
        make = partial(made, case, tmp_path / f"p{number}", clean, settings)
        with FakeQdrant() as qdrant, project_on(case.store, make, qdrant) as project:
            try:
                Trial(case, clean, settings, ollama, qdrant, project).run()
            except TooLate:
                continue
            return
    pytest.fail("each run ended before the kill")


def made(case: Case, folder: Path, clean, settings: str, store: str) -> Project:
    """Make the project of a case; for a second run the indexed one, where that can be copied."""
    if case.run == "first" or store:
        return make_project(folder, DOCUMENTS, extra=settings + store)
    shutil.copytree(clean("first", settings).folder, folder)
    return project_in(folder)


class Trial:
    """One kill, from start to judgement."""

    def __init__(self, case: Case, clean, settings: str, ollama, qdrant, project: Project) -> None:
        self.case, self.ollama, self.qdrant, self.project = case, ollama, qdrant, project
        expected = clean(case.run, settings)
        self.points, self.rows = expected.points(), ledger_rows(expected)
        if case.run == "second":
            assert ledger_rows(project) or project.run().state == "completed"
            edit_corpus(project)
        self.before = ledger_rows(project)
        self.changes = {
            key for key in {*self.before, *self.rows} if self.before.get(key) != self.rows.get(key)
        }

    def run(self) -> None:
        case = self.case
        arguments = [
            "--workers",
            str(case.workers),
            "--shard-documents",
            str(SHARD_DOCUMENTS[case.run]),
        ]
        with ExitStack() as stack:
            environment, server = {}, None
            if case.target == "prefect-external":
                environment, server = stack.enter_context(prefect_to_kill())
                environment["PREFECT_CLIENT_MAX_RETRIES"] = (
                    "1"  # by default Prefect tries for a minute at each call
                )
            victim = stack.enter_context(
                Victim(self.project, *arguments, plain=case.plain, **environment)
            )
            self.wait_for_moment(victim)
            self.kill(victim, server)
            self.check_end(victim)
        self.check_next_run()

    def wait_for_moment(self, victim: Victim) -> None:
        def come() -> bool:
            rows = ledger_rows(self.project)
            done = sum(rows.get(key) == self.rows.get(key) for key in self.changes) if rows else 0
            assert not victim.ended or victim.process.returncode == 0, victim.output
            if victim.ended or done == len(self.changes):
                raise TooLate
            begun = done > 0 or any(row.pending for row in rows.values())
            wanted = (
                self.case.workers if self.case.embedder == "local" else 1
            )  # one process asks servers
            working = len(victim.workers()) >= wanted  # they start meanwhile
            return begun and working and done >= self.case.share * len(self.changes)

        eventually(come, lambda: victim.output)
        time.sleep(self.case.delay)
        if victim.ended:
            raise TooLate

    def kill(self, victim: Victim, server) -> None:
        target, pause = self.case.target, 0.3 + 2 * self.case.delay
        if target == "flow":
            victim.process.kill()
        elif target == "group":
            os.killpg(victim.process.pid, signal.SIGKILL)
        elif target == "worker":
            if not (workers := victim.workers()):
                raise TooLate
            random.choice(workers).kill()
        elif target == "ollama":
            self.ollama.kill()
            time.sleep(pause)
            self.ollama.start()
        elif target == "qdrant":
            kill_qdrant(self.qdrant, pause)
        else:
            server.kill()

    def check_end(self, victim: Victim) -> None:
        target, folder = self.case.target, self.project.folder / ".rag-index"
        code = victim.process.wait(END_SECONDS)
        eventually(
            victim.gone,
            lambda: [" ".join(one.cmdline()) for one in victim.processes()],
            seconds=GONE_SECONDS,
        )
        assert code == 0 or target not in SURVIVED, victim.output
        if code and target.startswith("prefect"):
            said = (  # Prefect's own threads may log beside it
                "rag-index: the Prefect server does not answer"
            )
            assert (code, said in victim.output) == (1, True), victim.output
        starting = target in ("flow", "group") and re.search(
            "in spawn_main|forkserver.py", victim.output
        )
        assert starting or "Traceback" not in victim.output, victim.output
        before = file_stamps(folder)
        time.sleep(0.3)
        assert file_stamps(folder) == before, "somebody still writes to ledger or store"

    def check_next_run(self) -> None:
        """Run once more, and compare with the clean index, and the counts with what the kill had
        left to do."""
        rows, case = ledger_rows(self.project), self.case
        report = self.project.run()
        assert report.exit_code == 0, report.sentence()
        [outcome] = report.indexes
        left = payloads = 0
        for key, row in self.rows.items():
            known, before = rows.get(key), self.before.get(key)
            if row.chunks and (known is None or known.text_hash != row.text_hash or known.by_words):
                left += not (known and known.pending)
            payloads += bool(
                row.chunks and before and before.text_hash == row.text_hash and before != row
            )
        again = outcome.new + outcome.changed - left
        shards = 3 * case.workers + 1  # they are under way, and one is committed
        assert 0 <= again <= shards * SHARD_DOCUMENTS[case.run] + min(PAYLOAD_BATCH, payloads), (
            "embedded again"
        )
        assert ledger_rows(self.project) == self.rows
        found = self.project.points()
        assert found.keys() == self.points.keys()
        exact = case.embedder == "local" and case.store == "embedded"
        for i, (payload, vector) in self.points.items():
            assert found[i][0] == payload
            assert found[i][1] == (vector if exact else pytest.approx(vector, abs=1e-5)), i
