"""The files in deployments/ for containers and systemd, as far as they can be checked without
these. The compose file is held against its schema, and the command of each service of ours is run
as a plain process, with the same arguments and environment: only addresses and ports are others.
The images are not built here."""

import datetime as dt
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
import yaml
from qdrant_client.common.version_check import is_compatible

from rag_index.core.settings import Settings
from rag_index.search.service.tokens import new_token, token_line
from tests.deployments.server import ROOT, PrefectServer, kill_all
from tests.docs import pages
from tests.docs.pages import page
from tests.live.postgres import postgres
from tests.ports import free_port
from tests.project import Project
from tests.waiting import answers, eventually

__all__ = ["postgres"]

FOLDER = ROOT / "deployments"
COMPOSE = (FOLDER / "compose.yaml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
SECRET = "correct-horse-battery"


def test_the_compose_file_fits_its_schema():
    parsed = pytest.importorskip("compose_spec").PyCompose.from_json(
        json.dumps(yaml.safe_load(COMPOSE))
    )
    parsed.validate()
    assert set(parsed.service_names()) == set(SERVICES)


def stages() -> list[list[tuple[str, str]]]:
    """Return the instructions of each stage of the container file: name and arguments."""
    lines = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    found: list[list[tuple[str, str]]] = []
    for line in lines:
        if line and not line.startswith("#"):
            name, _, arguments = line.partition(" ")
            found += [[]] if name == "FROM" else []
            found[-1].append((name, arguments))
    return found


def test_the_image_holds_what_is_needed_and_no_user_is_root():
    """What is copied exists, is in the context, and makes the wheel; the last stage installs
    nothing."""
    *builds, last = stages()
    assert len(builds) == 1
    ignored, *allowed = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    instructions = [one for stage in (*builds, last) for one in stage]
    copies = [
        given.split()[:-1]
        for name, given in instructions
        if name == "COPY" and "--from" not in given
    ]
    copied = {source for sources in copies for source in sources}
    assert ignored == "**"
    assert copied == {name.lstrip("!") for name in allowed if name.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    [readme] = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["fragments"]
    assert copied >= {"pyproject.toml", readme["path"], *wheel}
    assert not [arguments for name, arguments in last if name == "RUN" and "install" in arguments]
    names = [name for name, _ in last]
    assert [arguments for name, arguments in last if name == "USER"] == ["1000"], (
        "a number, which Kubernetes can check"
    )
    assert names.index("USER") > max(
        place for place, name in enumerate(names) if name in ("RUN", "COPY")
    )
    assert json.loads(dict(last)["CMD"]) == SERVICES["search"]["command"]


def test_what_others_wait_for_has_a_health_check_and_the_images_is_for_the_service_alone():
    for name, service in SERVICES.items():
        if service.get("image") == "rag-index":
            assert ("healthcheck" in service) == (name != "search"), name
    waited_for = [
        one for service in SERVICES.values() for one in service.get("depends_on", {}).items()
    ]
    assert all(
        "healthcheck" in SERVICES[name]
        for name, how in waited_for
        if how["condition"] == "service_healthy"
    )


def test_ports_are_on_loopback_and_nothing_has_a_default_password():
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not service.get("image", "").endswith(":latest"), name
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY|AUTH|SECRET", key):
                assert re.fullmatch(r"\$\{[A-Z_]+(:\?.+)?\}", value), (name, key)
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE))
    assert asked == set(
        re.findall(r"^([A-Z_]+)=", (FOLDER / "env.example").read_text(), re.MULTILINE)
    )
    assert not re.findall(r"^[A-Z_]+=.+$", (FOLDER / "env.example").read_text(), re.MULTILINE)


def test_kubernetes_runs_the_commands_of_the_compose_file_and_probes_what_answers():
    """Commands, variables and addresses are those that the tests run as plain processes; nothing
    secret is in it."""
    items = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())["items"]
    pods = [
        item["spec"].get("jobTemplate", item)["spec"]["template"]["spec"]
        for item in items
        if pod_in(item)
    ]
    of_compose = [
        service["command"] for service in SERVICES.values() if service.get("image") == "rag-index"
    ]
    known = {name for service in SERVICES.values() for name in service.get("environment", {})}
    for pod in pods:
        [container] = pod["containers"]
        assert container["command"] in [*of_compose, ["rag-index", "index-all", "--wait", "600"]]
        assert {variable["name"] for variable in container["env"]} <= known
        assert {mount["name"] for mount in container["volumeMounts"]} <= {
            volume["name"] for volume in pod["volumes"]
        }
        gets = [
            probe["httpGet"]
            for name, probe in container.items()
            if "Probe" in name and "httpGet" in probe
        ]
        assert {get["path"] for get in gets} <= {"/healthz", "/readyz", "/health"}
        assert pod["securityContext"]["runAsUser"] == 1000, "the user of the image"
    [config] = [item for item in items if item["kind"] == "ConfigMap"]
    Settings.model_validate(tomllib.loads(config["data"]["rag-index.toml"]))
    assert set(re.findall(r"--from-literal=([A-Z_]+)=", page("kubernetes"))) <= known


def pod_in(item: dict) -> bool:
    return "template" in item["spec"].get("jobTemplate", item)["spec"] if "spec" in item else False


def test_the_client_goes_with_the_qdrant_server():
    (client,) = re.findall(
        r"^qdrant-client==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    server = SERVICES["qdrant"]["image"].split(":v")[1]
    assert is_compatible(client, server), f"client {client}, server {server}"


def test_each_variable_is_explained_and_ollama_servers_share_their_models():
    example = (FOLDER / "env.example").read_text()
    for name in set(re.findall(r"\$\{([A-Z_]+)", COMPOSE)) - {"PREFECT_UI_API_URL"}:
        assert re.search(rf"^# .+\n(# )?{name}=$", example, re.MULTILINE), name
    servers = [
        service for service in SERVICES.values() if service.get("image", "").startswith("ollama/")
    ]
    assert {mount for service in servers for mount in service.get("volumes", [])} == {
        "models:/root/.ollama"
    }


def test_the_systemd_units_are_valid_and_listen_on_loopback():
    units = sorted((FOLDER / "systemd").glob("*.service"))
    assert [unit.stem.removeprefix("rag-index-") for unit in units] == [
        "prefect",
        "serve",
        "watch",
        "worker",
    ]
    for unit in units:
        text = unit.read_text()
        assert re.search(
            r"^ExecStart=/opt/rag-index/venv/bin/(prefect|rag-index (serve|watch)$)",
            text,
            re.MULTILINE,
        )
        assert not re.search(r"(?i)password=|0\.0\.0\.0", text)
        [file] = re.findall(r"^EnvironmentFile=-(.+)$", text, re.MULTILINE)
        [row] = [
            row
            for row in pages.table(page("operations"), "way of running")
            if f"`{unit.stem}`" in row[0]
        ]
        assert f"`{file}`" in row[1], "where the page says that passwords go"
    if Path("/usr/bin/systemd-analyze").exists():
        verify = ["systemd-analyze", "verify", "--man=no", *units]
        said = subprocess.run(
            verify, capture_output=True, text=True, check=False
        ).stderr.splitlines()
        assert not [
            line for line in said if "rag-index" in line and "is not executable" not in line
        ], said


def test_the_line_of_cron_names_its_user_and_reads_the_passwords(tmp_path):
    (line,) = pages.blocks(page("operations"), "crontab")
    *_, user, command = line.strip().split(maxsplit=6)
    assert user == "rag"
    for place in ("/var/lib/rag-index", "/etc/rag-index", "/opt/rag-index/venv/bin"):
        (tmp_path / place[1:]).mkdir(parents=True)
        command = command.replace(f"{place}/", f"{tmp_path}{place}/").replace(
            f"{place} ", f"{tmp_path}{place} "
        )
    (tmp_path / "etc/rag-index/rag-index.env").write_text(
        "RAG_INDEX_SOURCE__URL='postgresql://a:b@c/d?e=f&g=$h'\n"
    )
    program = tmp_path / "opt/rag-index/venv/bin/rag-index"
    program.write_text('#!/bin/sh\necho "$PWD $RAG_INDEX_SOURCE__URL $*"\nexit "$FAILS"\n')
    program.chmod(0o755)
    said = f"{tmp_path}/var/lib/rag-index postgresql://a:b@c/d?e=f&g=$h --config "
    for fails in ("0", "3"):
        environment = {"PATH": "/usr/bin:/bin", "FAILS": fails}
        ended = subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, check=False
        )
        assert (tmp_path / "var/lib/rag-index/night.log").read_text().startswith(said), ended.stderr
        assert bool(ended.stdout) == (fails == "3"), "mail of bad nights alone"


@pytest.mark.long
def test_servers_delete_runs_that_ended_long_ago(tmp_path):
    unit = (FOLDER / "systemd" / "rag-index-prefect.service").read_text()
    kept = dict(re.findall(r"^Environment=(PREFECT_SERVER_SERVICES_\w+)=(.+)$", unit, re.MULTILINE))
    assert kept
    assert kept.items() <= SERVICES["prefect"]["environment"].items()
    often = {"PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "1"}
    with PrefectServer(tmp_path / "server", **kept, **often) as server:
        flow = server.post("/flows/", name="index-changes")["id"]
        completed = {"type": "COMPLETED", "name": "Completed"}
        runs = [server.post("/flow_runs/", flow_id=flow, state=completed)["id"] for _ in range(2)]
        with closing(sqlite3.connect(tmp_path / "server" / "prefect.db")) as database:
            for run, days in zip(runs, (29, 31), strict=True):
                ended = f"{dt.datetime.now(dt.UTC) - dt.timedelta(days=days):%Y-%m-%d %H:%M:%S.%f}"
                database.execute("UPDATE flow_run SET end_time = ? WHERE id = ?", (ended, run))
            database.commit()
        eventually(
            lambda: [run["id"] for run in server.runs()] == runs[:1],
            "the older run is deleted",
            every=0.25,
        )


@pytest.mark.long
def test_every_command_runs_as_a_plain_process_and_stores_no_secret(
    postgres, tmp_path, fake, qdrant
):
    """Run a night of the compose file, and a watch: PostgreSQL, Prefect with basic auth, Dask,
    worker."""
    auth = f"rag:{SECRET}-prefect"
    key = f"{SECRET}-qdrant"
    with ExitStack() as stack:
        databases = [stack.enter_context(postgres.database()) for _ in range(3)]
        prefect_db, ledger_db, source_db = databases
        urls = [postgres.url(name).render_as_string(hide_password=False) for name in databases]
        with postgres.connect(source_db) as connection:
            connection.execute(
                "CREATE TABLE note (id int PRIMARY KEY, title text, body text, author text,"
                " priority int);INSERT INTO note SELECT i, 'Note ' || i, 'body', 'a', 1 FROM"
                " generate_series(1, 60) AS i"
            )
        settings = Project(tmp_path / "settings")
        settings.write_settings(
            'project = "desk"\n[source]\nurl = "sqlite:///overwritten.db"\n[embedder]\nkind ='
            f' "ollama"\nmodel = "{fake.model}"\n[[indexes]]\nname = "notes"\ntable = "note"\nkey ='
            ' "id"\ntext = ["title", "body"]\npayload = ["author"]\n'
        )
        places = {
            "postgresql+asyncpg://rag:${POSTGRES_PASSWORD}@postgres:5432/prefect": (
                urls[0].replace("psycopg", "asyncpg")
            ),
            "postgresql+psycopg://rag:${POSTGRES_PASSWORD}@postgres:5432/ledger": urls[1],
            "${SOURCE_URL:?the database to index, in deployments/.env}": urls[2],
            "http://qdrant:6333": qdrant.url,
            "http://ollama-1:11434,http://ollama-2:11434": fake.url,
            "/settings/rag-index.toml": str(settings.config),
            "/data": str(tmp_path / "data"),
        }
        ports = {"4200": str(free_port()), "8786": str(free_port()), "8787": "0"}
        token = new_token()
        variables = {
            "PREFECT_AUTH": auth,
            "QDRANT_API_KEY": key,
            "MODEL": fake.model,
            "PREFECT_UI_API_URL": "",
            "SEARCH_TOKENS": token_line("desk", token, []),
        }

        def here(text: str) -> str:
            for place, value in places.items():
                text = text.replace(place, value)
            text = re.sub(r"\$\{([A-Z_]+)(:[?-][^}]*)?\}", lambda found: variables[found[1]], text)
            text = re.sub(r"://(prefect|dask-scheduler)\b", "://127.0.0.1", text).replace(
                "0.0.0.0", "127.0.0.1"
            )
            return re.sub(r"(?<!\d)(4200|8786|8787)(?!\d)", lambda found: ports[found[1]], text)

        def environment(name: str) -> dict[str, str]:
            own = {
                key: here(str(value))
                for key, value in SERVICES[name].get("environment", {}).items()
            }
            clean = {
                k: v
                for k, v in os.environ.items()
                if not k.startswith(("PREFECT_", "RAG_INDEX_", "DASK_"))
            }
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            return {
                **clean,
                "PATH": path,
                "PREFECT_HOME": str(tmp_path / name),
                "DO_NOT_TRACK": "1",
                "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                **own,
            }

        def start(name: str, *more: str) -> Path:
            folder = tmp_path / f"at-{name}"
            folder.mkdir()
            command = [*(here(part) for part in SERVICES[name]["command"]), *more]
            log = folder / "log"
            output = {"stdout": log.open("wb"), "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, cwd=folder, env=environment(name), **output)
            stack.callback(process.wait)
            stack.callback(kill_all, process)
            return log

        api = f"http://127.0.0.1:{ports['4200']}/api"
        start("prefect")
        asked = httpx.Client(trust_env=False, timeout=30)
        eventually(
            lambda: answers(f"{api}/health", auth=tuple(auth.split(":", 1))),
            "Prefect answers",
            every=0.25,
        )
        assert asked.post(f"{api}/flows/filter", json={}).status_code == 401
        assert asked.post(f"{api}/flows/filter", json={}, auth=("rag", "wrong")).status_code == 401
        image = tmp_path / "image"  # it has no other file there
        image.mkdir()
        shutil.copy(ROOT / "prefect.yaml", image)
        deployed = subprocess.run(
            [here(part) for part in SERVICES["deploy"]["command"]],
            cwd=image,
            env=environment("deploy"),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        scheduler = start("dask-scheduler")
        start("dask-worker")
        worker = start("worker")
        server = PrefectServer(tmp_path / "unused", PREFECT_SERVER_API_AUTH_STRING=auth)
        server.client.base_url = api
        ended = server.wait_for_end(server.start("index-all/index-all")["id"])
        said = worker.read_text()[-2000:], scheduler.read_text()[-500:]
        assert ended["state_name"] == "Completed", (ended["state"], said)
        assert "60 documents indexed" in ended["state"]["message"]
        server.client.close()
        search = start("search", "--port", str(port := free_port()))
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: "answers at" in search.read_text(), "the service listens")
        assert asked.get(f"{url}/indexes").status_code == 401
        asked.headers["Authorization"] = f"Bearer {token}"
        eventually(lambda: asked.get(f"{url}/readyz").status_code == 200, "the service is ready")
        check = json.loads(
            dict(stages()[-1])["HEALTHCHECK"].partition("CMD ")[2].replace("8765", str(port))
        )
        assert subprocess.run([sys.executable, *check[1:]], check=False).returncode == 0
        down = [sys.executable, *(part.replace(str(port), str(free_port())) for part in check[1:])]
        assert subprocess.run(down, capture_output=True, check=False).returncode != 0
        assert len(asked.get(f"{url}/search", params={"query": "note"}).json()["hits"]) == 10
        with postgres.connect(ledger_db) as connection:
            assert connection.execute("SELECT count(*) FROM rag_index_documents").fetchone() == (
                60,
            )
        with postgres.connect(source_db) as connection:
            connection.execute("INSERT INTO note VALUES (61, 'Note 61', 'body', 'a', 1)")
        watch = start("watch")
        with postgres.connect(ledger_db) as connection:
            count = "SELECT count(*) FROM rag_index_documents WHERE pending = 0"
            eventually(
                lambda: connection.execute(count).fetchone() == (61,), watch.read_text, every=0.2
            )
        kept = postgres.rows(prefect_db)
        assert "notes 1" in kept
        secrets = [SECRET, urls[2], postgres.url(source_db).password]
        assert not [secret for secret in secrets if secret in kept]
        logs = worker.read_text() + scheduler.read_text() + watch.read_text()
        assert not [secret for secret in secrets if secret in logs]
