"""The ledger and its views over HTTP, read only: queries, processes, events as they come, metrics, health.

    with open_door(Listen()) as door:
        await HttpService(session, door).run()

It holds nothing that the ledger and the views do not: it asks projectors, reads the ledger and verifies
what it read, and follows it once for all who listen. It never writes an event, and it knows no secret but
its own member's key. Who asks shows a bearer token (`colonies.bearer`). docs/http.md is the page for those
who ask.

This module imports neither FastAPI nor uvicorn, so that the command can bind a port first and complain at
once.
"""

from colonies_projections.http.door import Door, Listen, open_door

__all__ = ["Door", "Listen", "open_door"]
