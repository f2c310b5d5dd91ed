"""Prefect's automations: who is told, and when, that a run failed, died, or did not happen.

rag-index: not complete     a run ended as Failed, PartiallyIndexed or with Findings
rag-index: crashed          a run's process died
rag-index: not heard of     no heartbeat for some minutes: marked as Crashed (which the one above then tells)
rag-index: late             a planned run was not started in time: no worker is there
rag-index: missing          no run of index-all for more than a day: no schedule, or it is paused
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

__all__ = ["FLOWS", "create_automations"]

FLOWS = ("index-all", "index-collection", "doctor", "benchmark")
"""Names of flows and of deployments."""
BLOCK = "rag-index-webhook"
RUN = "prefect.flow-run."
ENDS = ("Completed", "Failed", "PartiallyIndexed", "Findings", "Crashed", "Cancelled")


def create_automations(webhook: str, *, silent: float, late: float, missing: float) -> list[str]:
    """Make the automations, or bring those that are there up to date; `webhook` is called with JSON. Their names.

    `silent`: seconds without a heartbeat after which a run is taken for dead. `late`: seconds that a late run may take
    to be started. `missing`: seconds without any run of index-all.
    """
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client

    block: Any = Webhook(url=webhook).save(BLOCK, overwrite=True)  # type: ignore[arg-type]
    wanted = automations(block, silent=silent, late=late, missing=missing)
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


def automations(block: Any, *, silent: float, late: float, missing: float) -> list[AutomationCore]:
    """See the module. `block` is the id of a Webhook block."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import CallWebhook, ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    every_run: dict[str, Any] = {"prefect.resource.id": f"{RUN}*"}
    deployed: dict[str, Any] = {"prefect.resource.role": "deployment", "prefect.resource.name": list(FLOWS)}
    ours: dict[str, Any] = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
    nightly: dict[str, Any] = {"prefect.resource.role": "deployment", "prefect.resource.name": ["index-all"]}

    def ended(name: str, what: str, *states: str) -> AutomationCore:
        trigger = EventTrigger(
            match=every_run, match_related=deployed, expect={RUN + state for state in states}, posture=Posture.Reactive,
            threshold=1, within=timedelta(0),
        )  # fmt: skip
        action = CallWebhook(block_document_id=block, payload=_of_run(what))
        return AutomationCore(name=f"rag-index: {name}", description=what, trigger=trigger, actions=[action])

    heart = f"{RUN}heartbeat"
    not_heard_of = AutomationCore(
        name="rag-index: not heard of",
        description=f"a run whose process sends no heartbeat for {silent:.0f} s is marked as crashed",
        trigger=EventTrigger(
            match=every_run, match_related=ours, for_each={"prefect.resource.id"}, posture=Posture.Proactive,
            after={heart}, expect={heart, *(RUN + state for state in ENDS)}, threshold=1,
            within=timedelta(seconds=silent),
        ),
        actions=[
            ChangeFlowRunState(
                force=False,
                state=StateType.CRASHED, name="Crashed",
                message=f"not heard of for {silent:.0f} s: its process or its machine died (killed, out of memory?); "
                "what was done is kept, the next run goes on from there",
            )
        ],
    )  # fmt: skip
    not_started = AutomationCore(
        name="rag-index: late",
        description=f"a planned run is not started {late:.0f} s after it was found to be late",
        trigger=EventTrigger(
            match=every_run, match_related=deployed, for_each={"prefect.resource.id"}, posture=Posture.Proactive,
            after={f"{RUN}Late"}, expect={RUN + state for state in ("Pending", "Running", *ENDS)}, threshold=1,
            within=timedelta(seconds=late),
        ),
        actions=[CallWebhook(block_document_id=block, payload=_of_run("was not started: is a worker running?"))],
    )  # fmt: skip
    none_at_all = AutomationCore(
        name="rag-index: missing",
        description=f"index-all did not run for {missing / 3600:.1f} hours",
        trigger=EventTrigger(
            match=every_run, match_related=nightly, posture=Posture.Proactive, expect={f"{RUN}Running"}, threshold=1,
            within=timedelta(seconds=missing),
        ),
        actions=[
            CallWebhook(
                block_document_id=block,
                payload=json.dumps({
                    "text": f"rag-index: index-all did not run for {missing / 3600:.1f} hours: is its schedule paused?",
                    "deployment": "index-all", "state": "Missing",
                }),
            )
        ],
    )  # fmt: skip
    return [
        ended("not complete", "ended incomplete", "Failed", "PartiallyIndexed", "Findings"),
        ended("crashed", "died", "Crashed"),
        not_heard_of,
        not_started,
        none_at_all,
    ]


def _of_run(what: str) -> str:
    """A payload for a webhook (`text` is what Slack, Mattermost and Teams show), as a template over the flow run."""
    said = f'"rag-index: " ~ flow_run.name ~ " {what}: " ~ flow_run.state.name ~ " " ~ (flow_run.state.message or "")'
    values = {
        "text": said,
        "flow_run": "flow_run.name",
        "id": "flow_run.id | string",
        "state": "flow_run.state.name",
        "message": 'flow_run.state.message or ""',
        "url": "flow_run | ui_url",
    }
    return "{" + ", ".join(f'"{key}": {{{{ ({value}) | tojson }}}}' for key, value in values.items()) + "}"
