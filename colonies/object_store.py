"""How the Object Store of NATS describes a value, so that other clients of it find ours."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime

from colonies import subjects


def description(name: str, data: bytes, chunks: int, chunk_bytes: int) -> tuple[str, bytes]:
    """The message that describes a value which is there in so many chunks: its subject and what it says."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
    meta = {
        "name": name,
        "bucket": subjects.VALUES_BUCKET,
        "nuid": name,
        "size": len(data),
        "chunks": chunks,
        "mtime": datetime.now(UTC).isoformat(),
        "digest": f"SHA-256={digest}",
        "options": {"max_chunk_size": chunk_bytes},
    }
    place = subjects.value_meta(base64.urlsafe_b64encode(name.encode()).decode())
    return place, json.dumps(meta).encode()
