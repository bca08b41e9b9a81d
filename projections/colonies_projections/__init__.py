"""Views of a colony's ledger: folded into SQLite by a `Projector`, asked by NATS services.

    await Projector(session, Path("views.sqlite")).run()

A view is one file with its tables and its fold (README.md beside this shows how). It never has a state
machine of its own: every event comes to it judged by `colonies.history`.
"""

from colonies_projections.installed import installed_views
from colonies_projections.listing import Listing, Where
from colonies_projections.projector import VIEWS, Projector
from colonies_projections.view import Asked, Batch, Filter, Page, Snapshot, Step, View, Write

__all__ = [
    "VIEWS",
    "Asked",
    "Batch",
    "Filter",
    "Listing",
    "Page",
    "Projector",
    "Snapshot",
    "Step",
    "View",
    "Where",
    "Write",
    "installed_views",
]
