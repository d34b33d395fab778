"""The server of a play where sockets are not to be had: it takes requests, one by one, and answers with events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.conformance.adapter import Device
from tests.conformance.rules import Rule
from tests.standins.server import serve

PIECE_BYTES = 2
"""No character of the answers, and no line, fits into a piece. A client's own network may join pieces again."""


class HttpStage:
    """Plays once, as `Stage` does. A handshake of a socket is refused, for there is none."""

    def __init__(self, rule: Rule) -> None:
        self.over = asyncio.Event()
        self.wrong: list[str] = []
        self.device: Device | None = None
        self._left = list(rule.requests)
        self._id: str | None = None

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The address at which it plays."""
        async with serve(Starlette(routes=[Route("/{path:path}", self._take, methods=["GET", "POST"])])) as url:
            yield url.replace("http://", "ws://")

    async def _take(self, http: Request) -> Response:
        if not self._left:
            return Response(status_code=503)
        turn = self._left.pop(0)
        asked = await self._asked(http)
        wanted = {key: self._id if value == "$id" else value for key, value in turn["hear"].items()}
        if asked.get("type") == "chat":
            self._id = asked["id"]
        if {key: asked.get(key) for key in wanted} != wanted:
            self.wrong.append(f"{asked} instead of {wanted}")
        if not self._left or self.wrong:
            self.over.set()
        if "reply" in turn:
            return JSONResponse(turn["reply"])
        return StreamingResponse(self._pieces(turn["events"]), media_type="text/event-stream")

    async def _asked(self, http: Request) -> dict[str, Any]:
        """What is asked, however: a message, or the rest of an answer."""
        if http.method == "POST" and http.url.path == "/api/v1/messages":
            return dict(await http.json())
        after = http.query_params.get("after_seq") or http.headers.get("Last-Event-ID") or "0"
        return {"stream": http.url.path.removeprefix("/api/v1/streams/"), "after_seq": int(after)}

    async def _pieces(self, frames: list[dict[str, Any]]) -> AsyncIterator[bytes]:
        for frame in frames:
            data = json.dumps({**frame, "id": self._id}, ensure_ascii=False)
            name = f"id: {frame['seq']}\n" if "seq" in frame else ""
            event = f": ping\n\n{name}data: {data}\n\n".encode()
            for start in range(0, len(event), PIECE_BYTES):
                yield event[start : start + PIECE_BYTES]
