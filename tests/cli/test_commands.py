"""The program as a user starts it: its output, its exit codes, its messages about bad input, what
`config` says of settings, and what quick commands import: most of their time is imports, so a new
one is a decision, not an accident."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from rag_index.care import effective_settings
from rag_index.cli import COMMANDS, main
from rag_index.core.machine.resources import Machine
from rag_index.core.settings import SECTIONS, IndexSettings
from rag_index.core.settings.parts import keys_of, tables_of
from tests.dask_workers import workers_among
from tests.etl.plain import printed
from tests.forked_program import run_code, without_api
from tests.project import PROGRAM, Project, run_here

TEXT = "The network password was changed, and the printer has to be told on each floor"
LISTED = """
import atexit, json, sys
before = set(sys.modules)
atexit.register(lambda: print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr))
from rag_index.cli import main
main()
"""
WITHOUT = """
import sys
gone = set(sys.argv.pop(1).split(","))
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
from rag_index.cli import main
main()
"""
TERMINATED = """
import os, signal, sys
at = sys.argv.pop(1)
class Terminates:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Terminates())
from rag_index.cli import main
main()
"""
IMPATIENT = """
from rag_index.components.stores.edge import store
store.WRITER_PATIENCE = 0.0
from rag_index.cli import main
main()
"""
UNNEEDED = "prefect,prefect_dask,dask,distributed,qdrant_client,grpc,ollama"
SECRET = "hunter2-correct-horse"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> Project:
    """An indexed project, shared by the tests of this module."""
    project = Project(tmp_path_factory.mktemp("cli") / "project").fill(120)
    project.run()
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").fill(20)


def one_line(ended: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the message of a command that failed as it should: one line, no traceback."""
    assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


def test_everything_that_is_kept_lies_in_the_folder_data(project, tmp_path):
    kept = tmp_path / "var" / "rag-index"
    before = {path.name for path in project.folder.iterdir()}
    [report] = project.json("index-all", RAG_INDEX_DATA=str(kept))["indexes"]
    assert (report["state"], {path.name for path in project.folder.iterdir()}) == (
        "completed",
        before,
    )
    assert {"qdrant", "ledger.db"} <= {path.name for path in kept.iterdir()}
    assert project.json("status", RAG_INDEX_DATA=str(kept))["indexes"][0]["documents"] == 20


def test_words_of_servers_and_names_reach_no_terminal_as_commands(tmp_path, fake):
    project = Project(tmp_path / "project", fake.settings).fill(3)
    fake.fault("status", code=400, words="\x1b]0;owned\x07 \x9b31m", marker="Note")
    project.run()
    fake.fault("status", code=404, words="model \x1b[2J not \x9bfound", path=None)
    for command in ("status", "status --report", "status --failed", "doctor", "index-all"):
        ended = project.cli(*command.split())
        said = (ended.stdout + ended.stderr).replace("\n", "")
        assert said.isprintable(), said


@pytest.mark.parametrize("command", ["index-all", "search x"])
def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(project, tmp_path, command):
    (tmp_path / "file").touch()
    ended = project.cli(*command.split(), RAG_INDEX_DATA=str(tmp_path / "file" / "data"))
    message = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode in (1, 2), ended
    assert str(tmp_path / "file") in message
    assert re.search("set `data` to a(nother)? folder", message) or "is a file" in message


def test_wrong_usage_ends_with_2(project):
    for arguments, message in (
        (["index", "note"], "did you mean 'notes'?"),
        (["plan", "notse"], "did you mean 'notes'?"),
        (["index", "notes", "--workers", "0"], "--workers"),
        (["index", "--workers", "four"], "'four' is not a valid whole number"),
        (["index", "notes", "--id", "5", "--serial"], "cannot be combined with --serial"),
        (["search", "  "], "empty"),
        (["search", "x", "--index", "note"], "did you mean 'notes'?"),
        (
            ["search", "x", "--max-age", "a while"],
            "max_age = 'a while': give seconds, or a text such as '10 s'",
        ),
        (["search", "\udcff"], "is not valid Unicode"),
        (["serach", "x"], "No such command 'serach'"),
    ):
        assert message in run_here(project.config, *arguments, code=2)[1], arguments


@pytest.mark.parametrize("name", list(COMMANDS))
def test_wrong_usage_with_json_is_an_object_on_standard_output(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--json", "--nonsense"])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert json.loads(said.out)["error"].startswith("No such option")
    assert "No such option" in said.err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('table = "note"', 'table = "nots"'), "table 'nots' cannot be read: no such table: nots"),
        (('"body"]', '"boddy"]'), "table 'note' cannot be read: no such column: note.boddy"),
        (
            ('["title", "body"]', '"priority"'),
            "column 'priority' of table 'note' gives int, not text",
        ),
        (("sqlite:///source.db", "sqlite:///nowhere.db"), "there is no file"),
        (("sqlite:///source.db", "oracle://u:secret@h/x"), "no driver for 'oracle'"),
    ],
)
def test_wrong_settings_end_with_2_and_say_which(project, change, expected):
    project.write_settings(project.config.read_text().replace(*change))
    out, err = run_here(project.config, "index", "--json", code=2)
    assert "secret" not in out + err
    assert expected in json.loads(out)["indexes"][0]["message"]


def test_a_missing_settings_file_ends_with_2(tmp_path):
    for options, said in (
        (["--config", "no.toml"], "there is no settings file no.toml"),
        ([], "rag-index init"),
    ):
        command = [*PROGRAM, *options, "status"]
        assert said in one_line(
            subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False), 2
        )


def test_debug_shows_where_an_error_comes_from(project):
    assert "Traceback" in project.cli("--debug", "plan", "nothing").stderr


def test_a_store_that_another_process_writes_is_an_error_that_names_the_process(indexed):
    with indexed.store() as store:
        store.points("test_notes__1").count()
        command = ["--config", str(indexed.config), "erase", "notes"]
        message = one_line(run_code(IMPATIENT, os.environ, *command), 1)
        assert f"process {os.getpid()}" in message
        assert "--wait" in message
        assert indexed.cli("search", "printer").returncode == 0


def test_init_proposes_an_index_for_each_table_with_text(tmp_path):
    project = Project(tmp_path / "a").fill(5)
    project.execute(
        'CREATE TABLE "Order Line" (a INTEGER, b INTEGER, "what is it" TEXT, PRIMARY KEY (a, b))'
    )
    project.execute("CREATE TABLE measurements (id INTEGER PRIMARY KEY, value REAL)")
    project.execute("CREATE TABLE remarks (body TEXT)")
    for table, values in (("Order Line", "1, 2, ?"), ("remarks", "?")):
        for number in range(5):
            text = f"{TEXT} {number}. It was read at once."
            project.execute(
                f'INSERT INTO "{table}" VALUES ({values.replace("1", str(number))})', text
            )
    project.config.unlink()
    ended = project.cli("init", "--source", f"sqlite:///{project.folder}/source.db")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^ +\d+  remarks +5 +\d+%  left out: ", ended.stdout, re.MULTILINE)
    assert re.search(r"^ +1 table left out: is empty \(1\)$", ended.stdout, re.MULTILINE)
    plan = project.json("plan")["indexes"]
    assert {(one["index"], one["documents"]) for one in plan} == {("note", 5), ("order-line", 5)}
    assert "#:schema" not in project.config.read_text(), (
        "editors complain of a schema that is not there"
    )
    (project.folder / "rag-index.schema.json").write_text(project.cli("config", "--schema").stdout)
    assert "a template: put your database into it" in project.cli("init", "--force").stdout
    assert project.config.read_text().startswith("#:schema ./rag-index.schema.json\n")
    again = project.cli("init")
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_init_where_nothing_can_be_written_says_so(tmp_path):
    message = run_here(tmp_path / "missing" / "a.toml", "init", code=2)[1]
    assert (
        "a.toml cannot be written: No such file or directory; name a file in another folder"
        in message
    )


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def test_ctrl_c_at_any_moment_shows_no_traceback(project):
    """Only what comes before the first line of the program, of some milliseconds, cannot be kept
    from it."""
    command = [sys.executable, "-P", "-c", "from rag_index.__main__ import main; main()", "status"]
    for moment in range(0, 24, 2):
        running = subprocess.Popen(
            command, cwd=project.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        time.sleep(moment / 100)
        running.send_signal(signal.SIGINT)
        said = running.communicate()[1].decode()
        assert set(re.findall(r"/rag_index/(\S+)\"", said)) <= {"__init__.py", "__main__.py"}, (
            moment,
            said,
        )


@pytest.mark.long
def test_a_signal_stops_the_run_and_its_processes_and_the_next_run_resumes(tmp_path):
    """The run starts workers, as for a user without a Prefect server. Ctrl-C goes to the whole
    group."""
    project = Project(tmp_path / "project").fill(6000)
    command = [
        *PROGRAM,
        "--config",
        str(project.config),
        "index-all",
        "--workers",
        "2",
        "--shard-documents",
        "200",
    ]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, env=without_api(), start_new_session=True, **streams)
    try:
        while running.poll() is None and len(workers_among(children(running.pid))) < 2:
            time.sleep(0.02)
        while running.poll() is None and not project.json("status")["indexes"][0]["documents"]:
            time.sleep(0.1)
        assert running.poll() is None, running.communicate()
        family = children(running.pid)
        os.killpg(running.pid, signal.SIGINT)
        _, stderr = running.communicate(timeout=120)
        assert running.returncode == 130, stderr
        said = [line for line in stderr.splitlines() if line and not line.startswith("notes: ")]
        assert said[-1] == "rag-index: stopped"
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive, [p.cmdline() for p in alive]
    finally:
        running.kill()
    done = project.json("status")["indexes"][0]["documents"]
    report = project.json("index", "notes", "--serial")["indexes"][0]
    assert 0 < done <= report["unchanged"]
    assert (report["unchanged"] + report["new"] + report["changed"], len(project.texts())) == (
        6000,
        6000,
    )


def test_report_shows_where_the_time_went_and_what_would_help(indexed):
    run = printed(indexed, "status", "--report")["runs"][0]
    assert run["state"] == "completed"
    metrics = run["metrics"]
    assert set(metrics["stages"]) >= {"start", "fetch", "diff", "publish", "other"}
    assert sum(metrics["stages"].values()) == pytest.approx(metrics["seconds"], abs=0.05)
    assert run["advice"]
    assert printed(indexed, "status", "--report", run["run"][:8])["runs"][0]["run"] == run["run"]
    said = run_here(indexed.config, "status", "--report")[0]
    assert "documents in" in said
    assert re.search(r"workers \(\d\) busy \d", said)
    run_here(indexed.config, "status", "--report", "nothing", code=2)


def test_a_shell_completes_commands(tmp_path):
    completion = {
        "_RAG_INDEX_COMPLETE": "bash_complete",
        "COMP_WORDS": "rag-index pla",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        PROGRAM, cwd=tmp_path, env={**os.environ, **completion}, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"plain,plan\n", b"")


@pytest.mark.long
@pytest.mark.parametrize(
    "command", ["try source.db", "init source.db --force", "plan", "index-all"]
)
def test_a_line_is_said_before_anything_that_takes_long_is_imported(indexed, command):
    program = [
        sys.executable,
        "-c",
        TERMINATED,
        "pydantic",
        "--config",
        str(indexed.config),
        *command.split(),
    ]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, cwd=indexed.folder)
    assert re.match(r"(?:Reading|Opening) .* …\n", ended.stderr), ended.stderr


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_help_and_version_import_nothing_but_click(indexed, option):
    command = [sys.executable, "-c", LISTED, "--config", str(indexed.config), option]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = {
        module.split(".")[0]
        for module in json.loads(ended.stderr.splitlines()[-1])
        if not module.startswith("_")
    }
    assert found - sys.stdlib_module_names - {"rag_index", "cython_runtime"} == {"click"}


@pytest.mark.long
def test_an_embedded_index_and_its_service_need_neither_prefect_and_dask_nor_the_clients_of_servers(
    tmp_path,
):
    project = Project(tmp_path / "project").fill(5)
    program, environment = (
        [sys.executable, "-c", WITHOUT, UNNEEDED, "--config", str(project.config)],
        without_api(),
    )
    for arguments in (["index-all"], ["plan"], ["search", "the printer"]):
        ended = subprocess.run(
            [*program, *arguments], capture_output=True, text=True, check=False, env=environment
        )
        assert ended.returncode == 0, (arguments, ended.stdout + ended.stderr)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(
        [*program, "serve", "--port", "0"], env=environment, **streams
    ) as serving:
        try:
            said = serving.stdout.readline()
            url = re.search(r"http://[\d.:]+", said)
            assert url, said + serving.stdout.read()
            assert httpx.post(f"{url[0]}/search", json={"query": "the printer"}, timeout=60).json()[
                "hits"
            ]
        finally:
            serving.terminate()


def test_each_value_names_its_origin(tmp_path):
    configured = Project(tmp_path / "project", extra="[parallel]\nshard_documents = 3").fill(20)
    answer = configured.json(
        "config", RAG_INDEX_RUN__DELETE_GUARD="0.5", RAG_INDEX_RUN__WAIT_FOR_RECOVERY="2"
    )
    found = {value["key"]: value for value in answer["settings"]}
    assert answer["file"] == str(configured.config)
    for key, value, source in (
        ("parallel.shard_documents", 3, "rag-index.toml"),
        ("run.delete_guard", 0.5, "RAG_INDEX_RUN__DELETE_GUARD"),
        ("run.wait_for_recovery", 2, "RAG_INDEX_RUN__WAIT_FOR_RECOVERY"),
        ("embedder.kind", "local", "default"),
    ):
        assert (found[key]["value"], found[key]["source"]) == (value, source)
    assert found["indexes.notes.text"]["value"] == ["title", "body"]


def test_every_key_of_every_table_is_listed(project):
    keys = {value.key for value in effective_settings.effective_settings(project.settings)}
    assert {key.split(".")[0] for key in keys} == {"project", "data", "indexes", *SECTIONS}
    for section, model in SECTIONS.items():
        tables = tables_of(model)
        assert {f"{section}.{name}" for name in keys_of(model).keys() - tables.keys()} <= keys
        assert {
            f"{section}.{table}.{name}"
            for table, inner in tables.items()
            for name in inner.model_fields
        } <= keys
    assert {
        f"indexes.notes.{field.alias or name}" for name, field in IndexSettings.model_fields.items()
    } <= keys


def test_secrets_are_masked(project):
    url = f"postgresql+psycopg://reader:{SECRET}@db.example:5432/desk?sslpassword={SECRET}"
    for arguments in (["config"], ["config", "--json"]):
        ended = project.cli(*arguments, RAG_INDEX_LEDGER__URL=url, RAG_INDEX_STORE__API_KEY=SECRET)
        assert ended.returncode == 0, ended.stderr
        assert SECRET not in ended.stdout + ended.stderr
        assert "reader:***@db.example:5432/desk" in ended.stdout


def test_the_reason_for_the_number_of_workers(project, monkeypatch):
    for machine, reason in (
        (Machine(8, 2.0, 10**12), "1: 2 processors less one"),
        (
            Machine(8, None, 1_500_000_000),
            "2: 8 processors less one for the flow, but at least one, if memory",
        ),
        (
            Machine(8, None, 900_000_000),
            "0: memory has no room for a worker of 300 MB beside the flow",
        ),
    ):
        monkeypatch.setattr(effective_settings, "detect_machine", lambda machine=machine: machine)
        values = {
            value.key: value for value in effective_settings.effective_settings(project.settings)
        }
        assert values["parallel.workers"].why.startswith(reason), machine
