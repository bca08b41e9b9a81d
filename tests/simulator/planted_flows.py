"""Bugs of workflows to be found, as in `planted`. Most are in the rules as well, so all agree with them."""

from __future__ import annotations

from typing import Any

from colonies import inputs, releasing
from colonies.conducting import Conductor
from colonies.core import dag, nodes
from colonies.core.dag import Dag, Input, Unfolded
from colonies.core.events import VALID
from colonies.core.process import Process, Running, derived_id
from colonies.knowing import Knowledge
from colonies.opened import Open

Patch = tuple[Any, str, Any]


def one_parent_will_do() -> list[Patch]:
    """A node is released when the first of its parents has ended."""
    unfold, ended = Dag.unfold, Open.ended_name

    def unfolded(self: Dag, node: Any, *more: Any) -> Unfolded:
        found = unfold(self, node, *more)
        if found.inputs and not node.last:
            found.missing.clear()
        return found

    def ended_name(self: Open, name: str) -> None:
        children = list(self.children.get(name, ()))
        ended(self, name)
        self.ready.extend(child for child in children if child not in self.last)

    return [(Dag, "unfold", unfolded), (Open, "ended_name", ended_name)]


def failure_is_success() -> list[Patch]:
    """Children run whatever became of their parents."""
    return [(Input, "failure", lambda self: None)]


def skips_nothing() -> list[Patch]:
    """Every condition holds."""
    return [(dag.when, "holds", lambda expression, given: True)]


def finally_at_once() -> list[Patch]:
    """What runs last waits for nobody."""
    real = Dag.parents
    return [(Dag, "parents", lambda self, node: () if node.last else real(self, node))]


def running_nodes_go_on() -> list[Patch]:
    """A cancel stops what has not begun, and nothing else."""
    real = Conductor._saying

    async def nothing() -> None:
        return None

    def saying(self: Conductor, opened: Any, node: Any, label: str, say: Any) -> Any:
        process = self._known(opened, label)
        if isinstance(say, dag.Stop) and process is not None and isinstance(process.phase, Running):
            return nothing()
        return real(self, opened, node, label, say)

    return [(Conductor, "_saying", saying)]


def another_id() -> list[Patch]:
    """A worker releases a child under an id of its own making, and nobody compares it with the node's."""

    class Any_(str):
        __slots__ = ()

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    return [
        (releasing, "node_id", lambda workflow, label: derived_id("node", workflow, label, "again")),
        (nodes, "node_id", lambda workflow, label: Any_("")),
    ]


def one_part_less() -> list[Patch]:
    """The last item of a list is left out."""
    real = Dag.parts

    def parts(self: Dag, *arguments: Any) -> Any:
        found = real(self, *arguments)
        return found - 1 if isinstance(found, int) and found > 1 else found

    return [(Dag, "parts", parts)]


def signal_lost() -> list[Patch]:
    """A signal that was sent before its node waits is not seen."""
    real = Conductor._signal

    def signal(self: Conductor, opened: Any, node: Any, process: Process) -> Any:
        if node.wait_signal is None:
            return real(self, opened, node, process)
        came = opened.workflow.signal(node.wait_signal.name)
        return (
            [] if came is not None and came.sequence < process.sequence else real(self, opened, node, process)
        )

    return [(Conductor, "_signal", signal)]


def stop_ignored() -> list[Patch]:
    """A workflow that stops at a failure goes on."""
    real = Conductor._stop

    def stop(self: Conductor, opened: Any, sequence: int, reason: str, cause: str | None) -> None:
        if cause is None:
            real(self, opened, sequence, reason, cause)

    return [(Conductor, "_stop", stop)]


def delay_ignored() -> list[Patch]:
    """A node's delay is nothing."""
    return [(Dag, "_until", lambda self, node, ends: 0)]


def cancel_ignored() -> list[Patch]:
    """What follows is released as if the workflow were not cancelled."""

    def stop(self: Conductor, opened: Any, sequence: int, reason: str, cause: str | None) -> None:
        if cause is not None:
            real(self, opened, sequence, reason, cause)

    real = Conductor._stop
    return [(Conductor, "_stop", stop), (Dag, "decide", Dag.by_parents)]


def outputs_in_no_order() -> list[Patch]:
    """The outputs of a node's parts come as they like."""
    real = inputs.Inputs._value

    async def value(self: Any, given: Input) -> Any:
        found = await real(self, given)
        return found[::-1] if given.mapped else found

    return [(inputs.Inputs, "_value", value)]


def nodes_read_beside_the_fold() -> list[Patch]:
    """The orchestrator looks at a node, and does not see later how it ended."""
    return [(Conductor, "conducts", lambda self, process: False)]


def added_nodes_wait_for_nobody() -> list[Patch]:
    """What a process put between itself and its children is not waited for."""
    real = dag._last_of
    return [(dag, "_last_of", lambda end, everything: real(end, everything) if everything else [])]


def believes_its_own_release() -> list[Patch]:
    """What was judged before the cancel was known is believed for ever."""
    return [(Knowledge, "_doubt", lambda self, workflow, cancelled_at: None)]


def maps_end_as_they_like() -> list[Patch]:
    """A node that maps is cancelled as a whole, whether it has parts or not."""

    def stopping(self: Conductor, opened: Any, node: Any, label: str) -> Any:
        sequence, reason, cause = opened.stopped
        return [self._saying(opened, node, label, dag.Stop(sequence, reason, cause))]

    return [(Conductor, "_stopping", stopping), (nodes, "_misplaced", lambda dag, node, label: None)]


def cites_nothing_asked() -> list[Patch]:
    """Whoever is a service may cancel a node."""
    real = Conductor._look

    def look(self: Conductor, opened: Any, label: str, now: int) -> Any:
        node = opened.dag.node(label)
        process = self._known(opened, label)
        if process is None and node is not None and node.allow_failure and not node.map:
            say = dag.Stop(opened.workflow.sequence, "nobody needs it")
            return [self._saying(opened, node, label, say)]
        return real(self, opened, label, now)

    return [(Conductor, "_look", look), (nodes, "_stopped", lambda dag, label, event: VALID)]


FLOW_BUGS = [
    ("released when one parent has ended", one_parent_will_do, 200),
    ("released after a parent's failure", failure_is_success, 200),
    ("a skip is ignored", skips_nothing, 400),
    ("finally too early", finally_at_once, 200),
    ("a workflow's cancel does not reach running nodes", running_nodes_go_on, 1_500),
    ("a child released under another id", another_id, 200),
    ("a map with one part missing", one_part_less, 200),
    ("a signal is lost", signal_lost, 800),
    ("stop on failure is ignored", stop_ignored, 800),
    ("a node's delay is ignored", delay_ignored, 300),
    ("released after the cancel", cancel_ignored, 400),
    ("the outputs of parts in another order", outputs_in_no_order, 400, 9_340),
    ("a node is read beside the fold", nodes_read_beside_the_fold, 400, 6_100),
    ("nodes put between are not waited for", added_nodes_wait_for_nobody, 400),
    ("ends judged before the cancel are believed", believes_its_own_release, 3_000, 8_350),
    ("a node that maps ends as a whole beside its parts", maps_end_as_they_like, 1_500),
    ("cancelled for no reason", cites_nothing_asked, 200),
]
