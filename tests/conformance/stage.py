"""The server of a play: it says and hears what `docs/conformance.yaml` says, connection by connection."""

import asyncio
import contextlib
import http
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.conformance.adapter import Device
from tests.conformance.rules import Rule, Step

Frame = dict[str, Any]

LEFT_OUT = object()
"""What is said in answer to a message without an `id` has none."""


class Stage:
    """Plays once. `over` is set when all was played; what a client does wrong is in `wrong`."""

    def __init__(self, rule: Rule) -> None:
        self.over = asyncio.Event()
        self.wrong: list[str] = []
        self.device: Device | None = None
        self._rule = rule
        self._play = rule.play
        self._turns: dict[object, int] = {}
        """Which part of the play a connection has: the first that comes has the first."""
        self._tokens = 0
        self._names: dict[str, Any] = {}
        self._asked: dict[str, str] = {}
        """The `id` of the question of a run, which all its frames have."""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The address at which it plays."""
        async with serve(self._talk, "127.0.0.1", 0, process_request=self._let_in, ping_interval=None) as server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _let_in(self, connection: ServerConnection, _request: Request) -> Response | None:
        turn = len(self._turns)
        if turn >= len(self._play):
            if self._rule.stops:
                self._is_wrong("it connected again")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "")
        self._turns[connection] = turn
        return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "") if self._play[turn] == ["refuse"] else None

    async def _talk(self, socket: ServerConnection) -> None:
        turn = self._turns[socket]
        try:
            for step in self._play[turn]:
                await self._do(socket, step)
        except ConnectionClosed:
            self._is_wrong(f"it left in the middle of connection {turn + 1}")
        except AssertionError as wrong:
            self._is_wrong(f"connection {turn + 1}: {wrong}")
        if turn == len(self._play) - 1:
            self.over.set()
        # Whoever was not sent away may stay, and ping.
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = json.loads(await socket.recv())
                if message["type"] == "ping":
                    await self._say(socket, {"type": "pong", "code": 0, "message": "pong", "data": None})

    def _is_wrong(self, how: str) -> None:
        self.wrong.append(how)
        self.over.set()

    async def _do(self, socket: ServerConnection, step: Step) -> None:  # noqa: PLR0912 (one case for each step)
        name: str
        value: Any = None
        if isinstance(step, str):
            name = step
        else:
            ((name, value),) = step.items()
        match name:
            case "greet":
                await self._greet(socket)
            case "login" | "auth":
                await self._log_in(socket, name)
            case "hear":
                await self._hear(socket, value)
            case "hear_or_gone":
                with contextlib.suppress(ConnectionClosed):
                    await self._hear(socket, value)
            case "say":
                for frame in value:
                    await self._say(socket, self._filled(frame))
            case "differ":
                self._differ([self._names[one] for one in value])
            case "drop":
                socket.transport.abort()
            case "close":
                await socket.close(value)
            case "gone":
                await socket.wait_closed()
            case "waited_ms":
                waited = (await self._device().waits_ms())[-1]
                assert waited >= value, f"it waited for {waited:.0f} ms"
            case "waits_grow":
                waits = await self._device().waits_ms()
                assert waits[3] > waits[0], f"it waited for {waits} ms"
            case _:
                raise ValueError(f"there is no step {name!r}")

    def _device(self) -> Device:
        assert self.device is not None
        return self.device

    async def _greet(self, socket: ServerConnection) -> None:
        facts = {"connection_id": "c", "ping_interval_s": 25, "resume_window_s": 600, "max_message_bytes": 65_536}
        await self._say(socket, {"type": "connected", "code": 0, "message": "", "data": None, "server": facts})

    async def _log_in(self, socket: ServerConnection, name: str) -> None:
        await self._greet(socket)
        await self._hear(
            socket, {"type": "login"} if name == "login" else {"type": "auth", "token": f"t{self._tokens}"}
        )
        self._tokens += 1
        data = {"openid": "o", "session_id": "s", "token": f"t{self._tokens}", "expires_in": 604_800}
        reply = {"type": f"{name}_response", "code": 0, "message": "", "data": data, "id": "$heard"}
        await self._say(socket, self._filled(reply))

    async def _hear(self, socket: ServerConnection, wanted: Frame) -> None:
        while True:
            message: Frame = json.loads(await socket.recv())
            if message["type"] != "ping":
                break
            await self._say(socket, {"type": "pong", "code": 0, "message": "pong", "data": None} | _id_of(message))
            if wanted["type"] == "ping":
                return
        self._names["$heard"] = message.get("id", LEFT_OUT)
        for key, value in wanted.items():
            if isinstance(value, str) and value.startswith("$"):
                assert key in message, f"{message} has no {key}"
                value = self._names.setdefault(value, message[key])  # noqa: PLW2901
            assert message.get(key) == value, f"{message} instead of {wanted}"

    def _differ(self, ids: list[str]) -> None:
        assert len(set(ids)) == len(ids), f"{ids} are the same"
        assert all(isinstance(one, str) and 1 <= len(one) <= 64 for one in ids), ids

    def _filled(self, frame: Frame) -> Frame:
        filled = {k: self._names.get(value, value) if isinstance(value, str) else value for k, value in frame.items()}
        return {key: value for key, value in filled.items() if value is not LEFT_OUT}

    async def _say(self, socket: ServerConnection, frame: Frame) -> None:
        if frame["type"] == "chat_processing":
            self._asked[frame["data"]["request_id"]] = frame["id"]
        elif "seq" in frame:
            frame = {**frame, "id": self._asked[frame["request_id"]]}
        await socket.send(json.dumps(frame))


def _id_of(message: Frame) -> Frame:
    return {"id": message["id"]} if "id" in message else {}
