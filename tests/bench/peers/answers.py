"""What all peers in Python say: the same objects, made with whatever JSON the peer uses."""

from collections.abc import AsyncGenerator
from typing import Any

from tests.bench.scripted_model import ScriptedModel

PONG: dict[str, Any] = {"type": "pong", "code": 0, "message": "pong", "data": None}
LOGGED_IN: dict[str, Any] = {"type": "login_response", "code": 0, "message": "ok", "data": {"openid": "somebody"}}
UNKNOWN: dict[str, Any] = {"type": "error", "code": 400, "message": "unknown type", "data": None}


def reply(message: dict[str, Any]) -> dict[str, Any]:
    """The answer to anything but a chat."""
    return {"ping": PONG, "login": LOGGED_IN}.get(message["type"], UNKNOWN)


async def stream(model: ScriptedModel, message: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """The frames of a chat: its query is how many seconds the answer takes."""
    seq = 0
    async for texts in model.answer(float(message["query"])):
        for text in texts:
            seq += 1
            yield {"type": "chunk", "request_id": "7f3c", "seq": seq, "content": text}
    yield {"type": "complete", "request_id": "7f3c", "seq": seq + 1, "content": None}
