"""What a node gets to run with: its parents' outputs, and its arguments with values in place of references.

The ends behind it were judged when its release was; large outputs are loaded here, and checked against what
the ledger names. It decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from colonies import values
from colonies.core.dag import Dag, Input
from colonies.core.node import Node, label_of, seen_from, split
from colonies.core.process import Process, Successful
from colonies.core.references import Reference, followed, resolved
from colonies.core.workflow import Workflow, dag_of
from colonies.errors import Invalid
from colonies.session import Session

MAX_VALUES_KEPT = 4  # large ones: the parts of a node that maps each take theirs out of the same list


@dataclass(frozen=True, slots=True)
class Given:
    """Arguments without references, and the outputs of the parents by name, in the order of dependencies."""

    args: list[Any]
    kwargs: dict[str, Any]
    inputs: dict[str, Any]


class Inputs:
    """Finds what nodes get, for one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._lists: OrderedDict[tuple[str, str], list[Any] | None] = OrderedDict()

    async def of(self, process: Process, args: list[Any], kwargs: dict[str, Any]) -> Given:
        """What this node gets, whose release was judged here.

        Raises:
            Invalid: a reference leads nowhere. Unavailable, NotFound: as `values.load`.
        """
        knowledge = self._session.knowledge
        workflow = knowledge.workflow(process.workflow or "")
        if workflow is None:
            workflow = await self._session.workflow(process.workflow or "")
        assert process.node is not None
        dag = dag_of(workflow, knowledge)
        node = dag.node(process.node)
        if node is None:
            await self._session.story(process.id)
            node = dag.node(process.node)
        assert node is not None
        inputs = {given.name: await self._value(given) for given in dag.unfold(node).inputs}
        found = await self._references(workflow, dag, node, process.node, inputs)
        given_args = resolved(args, found.__getitem__, "args")
        named = {seen_from(node, name): value for name, value in inputs.items()}
        return Given(given_args, resolved(kwargs, found.__getitem__, "kwargs"), named)

    async def _references(
        self, workflow: Workflow, dag: Dag, node: Node, label: str, inputs: dict[str, Any]
    ) -> dict[Reference, Any]:
        found: dict[Reference, Any] = {}
        for reference in node.references:
            match reference.kind:
                case "output":
                    value = inputs.get(reference.name)
                case "parameter":
                    value = workflow.spec.parameters[reference.name]
                case "packed":
                    value = list(workflow.packed)
                case "item":
                    value = await self._item(workflow, dag, node, label)
                case _:
                    value = await self._previous(workflow, reference)
            # Of what failed, was skipped or never ran there is nothing: so there is of any part of it.
            found[reference] = None if value is None else followed(value, reference)
        return found

    async def _item(self, workflow: Workflow, dag: Dag, node: Node, label: str) -> Any:
        assert node.map is not None
        part = split(label)[1]
        match node.map.kind:
            case "parameter":
                value = workflow.spec.parameters[node.map.name]
            case "packed":
                value = list(workflow.packed)
            case _:
                source = dag.node(node.map.name)
                assert source is not None
                one = [given for given in dag.unfold(node).inputs if given.name == node.map.name]
                if one[0].mapped and not node.map.path and part is not None and part < len(one[0].ends):
                    return await self._output(self._session.knowledge.process(one[0].ends[part].process))
                value = await self._value(one[0])
        items = followed(value, node.map)
        if not isinstance(items, list) or part is None or part >= len(items):
            raise Invalid(f"map: {node.map} has no item {part}")
        return items[part]

    async def _previous(self, workflow: Workflow, reference: Reference) -> Any:
        previous = workflow.source.previous if workflow.source is not None else None
        if previous is None:
            return None
        before = (await self._session.knowledge.workflow_now(previous)).workflow
        if before is None:  # by its id it is the cron's, but nobody said it
            return None
        node = before.spec.by_name.get(reference.name)
        if node is not None and node.map is not None:
            return await self._parts(before, node)
        story = await self._session.story(before.process_of(reference.name))
        return await self._output(story.process)

    async def _parts(self, workflow: Workflow, node: Node) -> list[Any] | None:
        """What a node that maps gave in a workflow that has ended; None if it ended without parts."""
        key = (workflow.id, node.name)
        if key not in self._lists:
            knowledge = self._session.knowledge
            found = await knowledge.nodes(workflow)
            number = dag_of(workflow, knowledge).mapped(node)
            labels = [label_of(node.name, part) for part in range(number or 0)]
            outputs = [await self._output(found.get(label)) for label in labels]
            self._lists[key] = outputs if number is not None else None
            if len(self._lists) > MAX_VALUES_KEPT:
                self._lists.popitem(last=False)
        return self._lists[key]

    async def _value(self, given: Input) -> Any:
        found = [await self._output(self._session.knowledge.process(end.process)) for end in given.ends]
        return found if given.mapped else found[0]

    async def _output(self, process: Process | None) -> Any:
        """The output of a process, null if it has none."""
        phase = process.phase if process is not None else None
        if not isinstance(phase, Successful):
            return None
        if phase.stored is None:
            return phase.output
        key = phase.stored.sha256
        if key not in self._kept:
            self._kept[key] = await values.load(self._session.ledger, phase.stored)
            if len(self._kept) > MAX_VALUES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
