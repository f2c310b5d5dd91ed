"""Prefect's automations: a webhook is told when a run failed, died, or did not happen.

rag-index: not complete     a run ended as Failed: it failed, was partial, or the doctor found something
rag-index: crashed          a run's process died
rag-index: not heard of     no heartbeat for some minutes: marked as Crashed, which the one above then reports
rag-index: not begun        a run that was taken up and never sent a heartbeat: likewise
rag-index: not cancelled    a run that nobody is there to cancel: marked as Cancelled
rag-index: late             a scheduled run was not started in time: there is no worker
rag-index: missing          no run of index-all for more than a day: no schedule, or a paused one
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.events.schemas.automations import AutomationCore

FLOWS = ("index-all", "index-collection", "doctor", "benchmark")
"""The names of flows and of deployments."""
BLOCK = "rag-index-webhook"
RUN = "prefect.flow-run."
HEARTBEAT = f"{RUN}heartbeat"
ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "AwaitingRetry")
CANCEL_SECONDS = 120.0
"""Longer than Prefect's worker takes at most, which kills a run after 30 s."""

EVERY_RUN: dict[str, Any] = {"prefect.resource.id": f"{RUN}*"}
OUR_DEPLOYMENTS: dict[str, Any] = {"prefect.resource.role": "deployment", "prefect.resource.name": list(FLOWS)}
OUR_FLOWS: dict[str, Any] = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
OUR_TAG: dict[str, Any] = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.rag-index"}
"""The tag that `prefect.yaml` gives to deployments: heartbeats do not name theirs."""
NIGHTLY: dict[str, Any] = {"prefect.resource.role": "deployment", "prefect.resource.name": ["index-all"]}


def server_url() -> str:
    """Return the URL of the Prefect server that runs the deployments: PREFECT_API_URL, or that of Prefect's profile.

    Raises:
        SettingsError: there is none.
    """
    from prefect.settings import PREFECT_API_URL

    url: str | None = PREFECT_API_URL.value()
    if not url:
        raise SettingsError(
            "PREFECT_API_URL is not set; set it to your Prefect server, such as http://127.0.0.1:4200/api"
        )
    return url


def create_automations(webhook: str, *, silent: float, late: float, missing: float) -> list[str]:
    """Create the automations, or update those that exist, and return their names.

    Args:
        webhook: The URL that is called with JSON.
        silent: Seconds without a heartbeat after which a run counts as dead.
        late: Seconds that a late run may take to be started.
        missing: Seconds without any run of index-all.
    """
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_UI_URL

    block: Any = Webhook(url=webhook).save(BLOCK, overwrite=True)  # type: ignore[arg-type]
    wanted = automations(block, PREFECT_UI_URL.value() or "", silent=silent, late=late, missing=missing)
    with get_client(sync_client=True) as client:
        for automation in wanted:
            there = client.read_automations_by_name(automation.name)
            for old in there[1:]:
                client.delete_automation(old.id)
            if there:
                client.update_automation(there[0].id, automation)
            else:
                client.create_automation(automation)
    return [automation.name for automation in wanted]


def automations(block: Any, page: str, *, silent: float, late: float, missing: float) -> list[AutomationCore]:
    """Return the automations that the module lists. `block` is the id of a Webhook block, `page` Prefect's address."""
    hours = f"{missing / 3600:.1f} hours"
    told = f"rag-index: index-all did not run for {hours}: is its schedule paused?"
    missed = json.dumps({"text": told, "deployment": "index-all", "state": "Missing"})
    return [
        _ended("not complete", _call(block, _payload("ended incomplete", page)), "Failed"),
        _ended("crashed", _call(block, _payload("died", page)), "Crashed"),
        *_marking(silent),
        _automation(
            "late",
            f"a scheduled run is not started {late:.0f} s after it was found to be late",
            _call(block, _payload("was not started: is a worker running?", page)),
            posture="Proactive",
            match_related=OUR_DEPLOYMENTS,
            for_each={"prefect.resource.id"},
            after={f"{RUN}Late"},
            expect={RUN + state for state in ("Pending", "Running", *ENDS)},
            within=timedelta(seconds=late),
        ),
        _automation(
            "missing",
            f"index-all did not run for {hours}",
            _call(block, missed),
            posture="Proactive",
            match_related=NIGHTLY,
            expect={f"{RUN}Running"},
            within=timedelta(seconds=missing),
        ),
    ]


def _marking(silent: float) -> Iterator[AutomationCore]:
    """Yield the automations that end a run in Prefect whose process or machine does not.

    "not begun" is for deployed runs only: those of the command line send no heartbeat.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState

    def crashed(what: str) -> ChangeFlowRunState:
        why = "its process or its machine died (killed, out of memory?)"
        kept = "what was committed is kept, the next run continues from there"
        message = f"{what}: {why}; {kept}"
        return ChangeFlowRunState(force=False, state=StateType.CRASHED, name="Crashed", message=message)

    message = "cancelled; its process is not heard of, and what was committed is kept"
    cancelled = ChangeFlowRunState(force=True, state=StateType.CANCELLED, name="Cancelled", message=message)
    ends = {RUN + state for state in ENDS}
    taken_up = f"{silent:.0f} s after it was taken up"
    for name, description, action, whose, after, expect, seconds in (
        ("not heard of", f"a run whose process sends no heartbeat for {silent:.0f} s is marked as crashed",
         crashed(f"not heard of for {silent:.0f} s"), OUR_FLOWS, {HEARTBEAT}, {HEARTBEAT, *ends}, silent),
        ("not begun", f"a run that sends no heartbeat {taken_up} is marked as crashed",
         crashed(f"not heard of {taken_up}"), OUR_TAG, {f"{RUN}Pending", f"{RUN}Running"}, {HEARTBEAT, *ends}, silent),
        ("not cancelled", f"a run that is still cancelling after {CANCEL_SECONDS:.0f} s is marked as cancelled",
         cancelled, OUR_FLOWS, {f"{RUN}Cancelling"}, ends, CANCEL_SECONDS),
    ):  # fmt: skip
        yield _automation(
            name, description, action, posture="Proactive",
            match_related=whose, for_each={"prefect.resource.id"}, after=after, expect=expect,
            within=timedelta(seconds=seconds),
        )  # fmt: skip


def _ended(name: str, action: Any, state: str) -> AutomationCore:
    """Return the automation for a run of a deployment that ended in this state."""
    description = f"a run of a deployment ended as {state}"
    trigger = {"match_related": OUR_DEPLOYMENTS, "expect": {RUN + state}, "within": timedelta(0)}
    return _automation(name, description, action, posture="Reactive", **trigger)


def _automation(name: str, description: str, action: Any, **trigger: Any) -> AutomationCore:
    """Return an automation; a proactive one acts if what it expects does not happen in time."""
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    when = EventTrigger(match=EVERY_RUN, threshold=1, **trigger)
    return AutomationCore(name=f"rag-index: {name}", description=description, trigger=when, actions=[action])


def _call(block: Any, payload: str) -> Any:
    from prefect.events.actions import CallWebhook

    return CallWebhook(block_document_id=block, payload=payload)


def _payload(what: str, page: str) -> str:
    """Return the payload of the webhook as a template over the flow run; chats such as Slack show its `text`.

    The template holds the address of Prefect's page as this client knows it. The server's own filter for it (`ui_url`)
    gives null unless the server was started with its own address in its settings.
    """
    from prefect.utilities.urls import UI_URL_FORMATS

    runs = f"{page}/{UI_URL_FORMATS['flow-run'].format(obj_id='')}"
    said = f'"rag-index: " ~ flow_run.name ~ " {what}: " ~ flow_run.state.name ~ " " ~ (flow_run.state.message or "")'
    values = {
        "text": said,
        "flow_run": "flow_run.name",
        "id": "flow_run.id | string",
        "state": "flow_run.state.name",
        "message": 'flow_run.state.message or ""',
        "url": f'"{runs}" ~ flow_run.id',
    }
    return "{" + ", ".join(f'"{key}": {{{{ ({value}) | tojson }}}}' for key, value in values.items()) + "}"
