"""Webhooks: events of the ledger, sent to addresses outside of the colony, signed, until they are taken.

`Webhooks` is the service. Who may have what sent where is said on the ledger (`colonies.webhooks`).
"""

from __future__ import annotations

from colonies_projections.webhooks.line import DELAYS_S
from colonies_projections.webhooks.service import Webhooks

__all__ = ["DELAYS_S", "Webhooks"]
