"""Prefect's automations: a webhook is told when a run failed, died, or did not happen. See docs/operations.md."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prefect.events.schemas.automations import AutomationCore

FLOWS = ("index-all", "index-collection", "doctor", "benchmark")
BLOCK = "rag-index-webhook"
RUN = "prefect.flow-run."
ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "AwaitingRetry", "Suspended", "Paused")
"""States of a run that no process works at: a person may suspend a run for as long as they like."""
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
    """Return the automations. `block` is the id of a Webhook block, `page` the address of Prefect's page."""
    from prefect.events.actions import CallWebhook

    def call(what: str) -> CallWebhook:
        return CallWebhook(block_document_id=block, payload=_payload(what, page))

    ended, hours = "a run of a deployment ended as", f"{missing / 3600:.1f} hours"
    text = f"rag-index: index-all did not run for {hours}: is its schedule paused?"
    missed = json.dumps({"text": text, "deployment": "index-all", "state": "Missing"})
    not_run = CallWebhook(block_document_id=block, payload=missed)
    unstarted = f"a scheduled run is not started {late:.0f} s after it was found to be late"
    not_started, any_state = call("was not started: is a worker running?"), ("Pending", "Running", *ENDS)
    return [
        _automation("not complete", f"{ended} Failed", call("ended incomplete"), OUR_DEPLOYMENTS, ["Failed"]),
        _automation("crashed", f"{ended} Crashed", call("died"), OUR_DEPLOYMENTS, ["Crashed"]),
        *_marking(silent),
        _automation("late", unstarted, not_started, OUR_DEPLOYMENTS, any_state, after=["Late"], within=late),
        _automation("missing", f"index-all did not run for {hours}", not_run, NIGHTLY, ["Running"], within=missing),
    ]


def _marking(silent: float) -> Iterator[AutomationCore]:
    """Yield the automations that end a run in Prefect whose process or machine does not, or start it again.

    "not begun" and "not started" are for deployed runs only: those of the command line send no heartbeat.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState

    died = "its process or its machine died (killed, out of memory?)"
    kept = "what was committed is kept, the next run continues from there"
    alive, taken_up = ["heartbeat", *ENDS], f"{silent:.0f} s after it was taken up"
    for name, which, why, whose, after in (
        ("not heard of", f"whose process sends no heartbeat for {silent:.0f} s", f"for {silent:.0f} s", OUR_FLOWS,
         ["heartbeat"]),
        ("not begun", f"that sends no heartbeat {taken_up}", taken_up, OUR_TAG, ["Running"]),
    ):  # fmt: skip
        message = f"not heard of {why}: {died}; {kept}"
        action = ChangeFlowRunState(force=False, state=StateType.CRASHED, name="Crashed", message=message)
        described = f"a run {which} is marked as crashed"
        yield _automation(name, described, action, whose, alive, after=after, within=silent)
    message = "its process was ended while it started (by a restart of the worker?), so it is started again"
    action = ChangeFlowRunState(force=False, state=StateType.SCHEDULED, name="Scheduled", message=message)
    described, begun = f"a run that does not begin {taken_up} is scheduled again", ["Running", *alive]
    yield _automation("not started", described, action, OUR_TAG, begun, after=["Pending", "Submitting"], within=silent)
    message = "cancelled; its process is not heard of, and what was committed is kept"
    action = ChangeFlowRunState(force=True, state=StateType.CANCELLED, name="Cancelled", message=message)
    described = f"a run that is still cancelling after {CANCEL_SECONDS:.0f} s is marked as cancelled"
    yield _automation("not cancelled", described, action, OUR_FLOWS, ENDS, after=["Cancelling"], within=CANCEL_SECONDS)


def _automation(
    name: str,
    description: str,
    action: Any,
    whose: dict[str, Any],
    expect: Iterable[str],
    *,
    after: Iterable[str] = (),
    within: float = 0.0,
) -> AutomationCore:
    """Return an automation that acts when an expected event comes, or with `within` seconds if none comes in time."""
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    trigger = EventTrigger(
        posture=Posture.Proactive if within else Posture.Reactive,
        match=EVERY_RUN,
        match_related=whose,
        for_each={"prefect.resource.id"} if after else set(),
        after={RUN + event for event in after},
        expect={RUN + event for event in expect},
        threshold=1,
        within=timedelta(seconds=within),
    )
    return AutomationCore(name=f"rag-index: {name}", description=description, trigger=trigger, actions=[action])


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
