"""What can happen to a webhook: an address outside of the colony that events are sent to.

One frozen class per fact, named in the past tense. Who may say it and when it is true is
`colonies.core.webhooks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from colonies.core.plain import at_most
from colonies.core.shapes import CONFIG, Key, MemberName, Reason, Text

MAX_WEBHOOK_URL_CHARS = 2_048
MAX_WEBHOOK_FILTERS = 64
MIN_SEALED_BYTES = 72  # a secret of 24 bytes, and 48 around it
MAX_SEALED_BYTES = 112  # one of 64

# No user, no fragment, no capitals in the host: one address is written in one way, and holds no password.
URL = r"\Ahttps?://([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?([/?][!\x22\x24-\x7e]*)?\z"
FILTER = r"\A(\*|[a-z]{1,32}\.(\*|[a-z]{1,32}))\z"

WebhookUrl = Annotated[str, Field(strict=True, max_length=MAX_WEBHOOK_URL_CHARS, pattern=URL)]
Filter = Annotated[str, Field(strict=True, pattern=FILTER)]  # `*`, `process.*`, `process.failed`
Filters = Annotated[list[Filter], Field(min_length=1), at_most(MAX_WEBHOOK_FILTERS)]
SealedSecret = Annotated[bytes, Field(strict=True, min_length=MIN_SEALED_BYTES, max_length=MAX_SEALED_BYTES)]


@dataclass(frozen=True, slots=True)
class WebhookAdded:
    """From here on the member `service` sends the events that the filters name to this address, signed with
    the secret, which is sealed for its key `key`. `func` and `label`: those of such processes only."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    url: WebhookUrl
    events: Filters
    service: MemberName
    key: Key
    secret: SealedSecret
    func: Text | None = None
    label: Text | None = None
    type: Literal["webhook.added"] = "webhook.added"


@dataclass(frozen=True, slots=True)
class WebhookChanged:
    """From here on all of this is so instead; what is still to be delivered goes to the new address."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    url: WebhookUrl
    events: Filters
    service: MemberName
    key: Key
    secret: SealedSecret
    func: Text | None = None
    label: Text | None = None
    type: Literal["webhook.changed"] = "webhook.changed"


@dataclass(frozen=True, slots=True)
class WebhookRemoved:
    """Nothing is sent there from here on, nor what is still to be delivered."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["webhook.removed"] = "webhook.removed"


WebhookEvent = WebhookAdded | WebhookChanged | WebhookRemoved
