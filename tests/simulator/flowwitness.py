"""The witness of workflows: what clients were told and believe, what nodes got, by when they stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.simulator.flowplan import Flow
from tests.simulator.flows import Tale
from tests.simulator.link import Host
from tests.simulator.loop import VirtualLoop
from tests.simulator.oracle import Ledger

REACH_S = 6.0  # from a workflow's cancel, or what stops it, until none of its nodes goes on


@dataclass(slots=True)
class SeenFlow:
    """What became of a workflow as its client sees it. `sent` are the signals that were acknowledged."""

    flow: Flow
    id: str | None = None
    cancelled: bool = False
    settled: bool = False
    tries: int = 0
    sent: set[int] = field(default_factory=set)


class FlowWitness:
    """All that must hold of the workflows of one lifetime."""

    def __init__(
        self, flows: Iterable[Flow], loop: VirtualLoop, ledger: Ledger, broken: Callable[..., None]
    ) -> None:
        self.seen = [SeenFlow(flow) for flow in flows]
        self.orchestrators: Callable[[], list[Host]] = list
        self.plan_check: Callable[..., Any] = lambda when, check, *args: None
        self._loop = loop
        self._tales = ledger.tales
        self._ledger = ledger
        self._broken = broken
        ledger.on_stopped = self._stopped

    # --- stopping ------------------------------------------------------------------------------------

    def _stopped(self, tale: Tale) -> None:
        self.plan_check(self._loop.now + REACH_S, self._check_reached, tale, self._loop.now)

    def _check_reached(self, tale: Tale, since: float) -> None:
        """An orchestrator to which nothing happened meanwhile has reached all nodes."""
        well = [host for host in self.orchestrators() if host.troubled_at < since - 1.0 and host.up]
        if not any(not host.dead and not host.paused for host in well):
            self.plan_check(self._loop.now + REACH_S, self._check_reached, tale, self._loop.now)
            return
        for label in tale.all_labels():
            name = label.partition("[")[0] if label not in tale.nodes else label
            # What was added by a node that runs last may come later.
            if name in tale.nodes and not tale.nodes[name].get("finally") and not name.startswith("last/"):
                life = tale.lives.get(label)
                if life is None or not life.final:
                    state = life.state if life is not None else "there to come"
                    self._broken(
                        f"{label} is {state}, though its workflow has stopped: {tale.stopped}", tale.id
                    )

    # --- what clients see ----------------------------------------------------------------------------

    def acknowledged(self, seen: SeenFlow, id: str) -> None:
        seen.id = id
        tale = self._tales.get(id)
        asked = seen.flow.spec
        if tale is None:
            self._broken("a workflow was acknowledged and is not there", id)
        elif tale.spec.get("name") != asked["name"] or list(tale.nodes)[: len(asked["nodes"])] != [
            node["name"] for node in asked["nodes"]
        ]:
            self._broken("a workflow was acknowledged and is another one", id)

    def cancel_acknowledged(self, seen: SeenFlow, id: str) -> None:
        seen.cancelled = True
        if self._tales[id].cancelled_at is None:
            self._broken("a cancel was acknowledged and the workflow is not cancelled", id)

    def refused(self, id: str) -> None:
        """A cancel or a signal was refused, for the workflow has ended or is cancelled."""
        if not self._tales[id].ended and self._tales[id].cancelled_at is None:
            self._broken("a cancel or signal was refused, and the workflow goes on", id)

    def signal_acknowledged(self, seen: SeenFlow, id: str, number: int) -> None:
        seen.sent.add(number)
        if (seen.flow.signals[number][0], number) not in [(s[2], s[3]) for s in self._tales[id].signals]:
            self._broken("a signal was acknowledged and is not there", id)

    def believed(self, id: str, state: str, nodes: dict[str, str]) -> None:
        tale = self._tales[id]
        told = {label: life.state for label, life in tale.lives.items()}
        if tale.state != state or nodes != told:
            self._broken(f"a client believes {state} {nodes}, it is {tale.state} {told}", id)

    def believed_output(self, id: str, output: Any) -> None:
        if output != self._tales[id].outputs():
            self._broken(f"a client believes the output {output}, it is {self._tales[id].outputs()}", id)

    # --- what nodes get ------------------------------------------------------------------------------

    def got(self, process: str, inputs: dict[str, Any], given: Any, item: Any) -> None:
        """A node's function began with this."""
        life = self._ledger.lives.get(process)
        tale = life.tale if life is not None else None
        if life is None or tale is None:
            return
        want = tale.inputs(life.node), tale.given(life.node), tale.item(life.node)
        if (inputs, given, item) != want or list(inputs) != list(want[0]):
            self._broken(f"{life.node} got {(inputs, given, item)}, its parents have {want}", process)

    # --- the end -------------------------------------------------------------------------------------

    def done(self) -> bool:
        return all(seen.settled for seen in self.seen) and all(t.ended for t in self._tales.values())

    def unfinished(self) -> list[str]:
        found = [
            f"node {label} of {tale.id} has not begun"
            for tale in self._tales.values()
            for label in tale.all_labels()
            if label not in tale.lives
        ]
        return found + [
            f"a client still waits for workflow {s.flow.number}" for s in self.seen if not s.settled
        ]

    def at_the_end(self) -> None:
        for seen in self.seen:
            name = seen.flow.spec["name"]
            same = [tale.id for tale in self._tales.values() if tale.spec.get("name") == name]
            if len(same) > (1 if seen.flow.key is not None else seen.tries):
                self._broken(f"submitted {seen.tries} times, and there are {len(same)} workflows", same)
        for tale in self._tales.values():
            labels = list(tale.all_labels())
            if sorted(labels) != sorted(tale.lives):
                self._broken(f"the nodes are {labels}, and those that ended {list(tale.lives)}", tale.id)
