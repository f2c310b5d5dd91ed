"""A run that is told to stop ends in the state that its end has, whoever told it, and however
often."""

import os
import signal
import threading
import time
from contextlib import nullcontext

import pytest
from prefect import get_client

from rag_index.core.machine import terminable
from rag_index.orchestration import stopping
from rag_index.orchestration.stopping import stoppable
from tests.live.qdrant import STORES, project_on
from tests.project import Project
from tests.reliability.victim import Victim
from tests.waiting import eventually


def test_a_part_that_asks_why_it_was_stopped_is_not_stopped_again(monkeypatch):
    """The server may take longer to answer than it takes until the run itself sees that it was
    cancelled."""
    assert threading.current_thread() is threading.main_thread()
    asking, looked = threading.Event(), threading.Event()

    def is_cancelled(_: str) -> bool:
        if threading.current_thread() is threading.main_thread():
            asking.set()
            assert looked.wait(30)
            time.sleep(0.2)  # so long a signal may take
        else:
            assert asking.wait(
                30
            )  # or the run would be told that it is cancelled before the signal arrives
            looked.set()
        return True

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stopping, "_is_cancelled", is_cancelled)
    before = signal.signal(signal.SIGTERM, end)
    try:
        with stoppable() as top, stoppable() as part:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(30)
    except KeyboardInterrupt:
        pytest.fail("it was stopped again")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert part.state.is_cancelled()
    assert top.state.is_cancelled()


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_whatever_the_signal_became_a_cancelled_run_ends_as_cancelled_and_no_other_does(
    monkeypatch, is_cancelled
):
    here = threading.main_thread()  # the run does not see it by itself
    monkeypatch.setattr(
        stopping, "_is_cancelled", lambda _: is_cancelled and threading.current_thread() is here
    )
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            nullcontext() if is_cancelled else pytest.raises(ValueError, match="written"),
            stoppable() as stop,
        ):
            raise ValueError("cannot be written down")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (stop.state is not None) is is_cancelled


def test_a_signal_that_a_library_turns_into_its_own_error_ends_the_block():
    def library() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except BaseException as error:
            raise ValueError("cannot be written down") from error

    with pytest.raises(KeyboardInterrupt), terminable():
        library()
    with pytest.raises(ValueError, match="another"), terminable():
        raise ValueError("another error stays as it is")


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
def test_a_run_in_a_terminal_that_is_cancelled_in_the_ui_ends(
    tmp_path, prefect_server, fake, store
):
    """In one process, or with workers that write to a server."""
    arguments = (
        ["--serial"] if store == "embedded" else ["--workers", "2", "--shard-documents", "20"]
    )
    fake.seconds_per_text = 0.2

    def make(settings: str) -> Project:
        return Project(tmp_path / "project", extra=fake.settings + settings).fill(300)

    with project_on(store, make) as project, get_client(sync_client=True) as client:
        api = client._client
        with Victim(project, *arguments) as running:
            eventually(lambda: len(fake.embeds()) > 3, "documents are being embedded", every=0.1)
            found = api.post(
                "/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 10}
            ).json()
            run = next(one["id"] for one in found if one["name"] == "index all")
            api.post(
                f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}}
            ).raise_for_status()
            assert running.process.wait(100) == 130, running.output
            assert "Traceback" not in running.output
            eventually(running.gone, seconds=60)
        assert "the next run" in running.output.splitlines()[-1], running.output
        state = api.get(f"/flow_runs/{run}").json()["state"]
        assert (state["type"], "cancelled" in state["message"]) == ("CANCELLED", True)
        found = api.post(
            "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run]}}}
        ).json()
        said = {one["key"]: one["description"] for one in found}[
            f"{project.settings.project}-all-progress"
        ]
        assert said.startswith("0 of 1 indexes, cancelled; what was committed is kept")
