"""What goes over the wire to the sandbox: a length, a JSON object, and for a frame its bytes.

No pickle: what a decoder was made to send by a hostile file must not run anything.
"""

import json
from collections.abc import Callable
from typing import Any

_LONGEST = 64 << 20  # bytes of JSON; five million frame numbers

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """Returns a message's length and JSON (ASCII, so that names of any bytes pass)."""
    content = json.dumps(message).encode("ascii")
    return len(content).to_bytes(4, "little") + content


def receive(read: Callable[[int], bytes]) -> Message:
    """Reads a message; ``read`` returns exactly so many bytes, or raises."""
    length = int.from_bytes(read(4), "little")
    if length > _LONGEST:
        raise ValueError(f"a message of {length} bytes")
    message = json.loads(read(length))
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message
