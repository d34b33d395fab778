"""Neo4j for tests: speaks Bolt 5.4 over TCP to the real driver, keeps what was said, and misbehaves as it is told.

A transaction is applied to a `Graph` (cypher.py) when it is committed; another leaves no trace.
Source: neo4j.com/docs/bolt/current/bolt/message. A queued fault is met by the next message of its kind.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.standins.cypher import CypherError, Graph
from tests.standins.packstream import Structure, pack, unpack
from tests.standins.server import Gate

PREAMBLE = b"\x60\x60\xb0\x17"
VERSION = b"\x00\x00\x04\x05"  # 5.4

REQUESTS = {
    **{0x01: "HELLO", 0x02: "GOODBYE", 0x0F: "RESET", 0x10: "RUN", 0x11: "BEGIN", 0x12: "COMMIT", 0x13: "ROLLBACK"},
    **{0x2F: "DISCARD", 0x3F: "PULL", 0x54: "TELEMETRY", 0x66: "ROUTE", 0x6A: "LOGON", 0x6B: "LOGOFF"},
}
SUCCESS, IGNORED, FAILURE = 0x70, 0x7E, 0x7F

DEADLOCK = "Neo.TransientError.Transaction.DeadlockDetected"
UNAUTHORIZED = "Neo.ClientError.Security.Unauthorized"
BAD_VALUE = "Neo.ClientError.Statement.TypeError"
BROKEN_CONSTRAINT = "Neo.ClientError.Schema.ConstraintValidationFailed"
NO_DATABASE = "Neo.ClientError.Database.DatabaseNotFound"


@dataclass(frozen=True, slots=True)
class Fault:
    """What one message meets: a refusal with a code, a lost connection (before or after it is obeyed), or a wait."""

    code: str = ""
    drop: bool = False
    drop_after: bool = False
    stall: Gate | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """One statement with its parameters."""

    text: str
    parameters: Mapping[str, Any] = field(repr=False)


@dataclass(slots=True, eq=False)
class Neo4jStandIn:
    """`committed` are transactions in the order of their commits, each with its statements."""

    user: str = "neo4j"
    password: str = "let-me-in"
    graph: Graph = field(default_factory=Graph)
    committed: list[list[Said]] = field(default_factory=list)
    begun: int = 0
    databases: set[str | None] = field(default_factory=set)
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """What the graph could not do: a statement that is wrong."""
    refuses: Callable[[Said], str | None] = lambda _said: None
    """The code with which a statement is refused, every time."""
    address: str = ""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by a transaction from its first statement to its end: writers wait for each other, as on locked nodes."""

    def meets(self, request: str, *faults: Fault) -> None:
        self.faults.setdefault(request, deque()).extend(faults)

    def next_fault(self, request: str) -> Fault | None:
        queued = self.faults.get(request)
        return queued.popleft() if queued else None

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listen on a free port until the block ends; gives the `bolt://` address."""
        sessions: set[asyncio.Task[None]] = set()

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            sessions.add(task)
            try:
                await _Session(self, reader, writer).run()
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                sessions.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
        try:
            yield f"bolt://{self.address}"
        finally:
            server.close()
            for task in list(sessions):
                task.cancel()
            if sessions:
                await asyncio.wait(sessions)


class _Dropped(Exception):  # noqa: N818
    pass


class _Session:
    """One connection."""

    def __init__(self, server: Neo4jStandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._failed = False
        self._said: list[Said] | None = None

    async def run(self) -> None:
        try:
            assert await self._reader.readexactly(4) == PREAMBLE
            await self._reader.readexactly(16)
            self._writer.write(VERSION)
            while (message := await self._message()).tag != 0x02:
                await self._answer(REQUESTS[message.tag], message.fields)
        except _Dropped:
            return
        finally:
            self._end()

    async def _message(self) -> Structure:
        data = bytearray()
        while True:
            size = int.from_bytes(await self._reader.readexactly(2))
            if size == 0 and data:
                message = unpack(bytes(data))
                assert isinstance(message, Structure)
                return message
            data += await self._reader.readexactly(size)

    def _send(self, tag: int, *fields: object) -> None:
        data = pack(Structure(tag, list(fields)))
        chunks = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)]
        self._writer.write(b"".join(len(chunk).to_bytes(2) + chunk for chunk in chunks) + b"\0\0")

    def _fail(self, code: str) -> None:
        self._failed = True
        self._end()
        self._send(FAILURE, {"code": code, "message": f"the stand-in was told to say {code}"})

    async def _answer(self, request: str, fields: Sequence[Any]) -> None:
        fault = self._server.next_fault(request)
        if fault and fault.stall:
            await fault.stall.wait()
        if fault and fault.drop:
            raise _Dropped
        if request == "RESET":
            self._failed = False
            self._end()
        elif self._failed:
            self._send(IGNORED)
            return
        code = (fault.code if fault else "") or await self._obey(request, fields)
        if code:
            self._fail(code)
            return
        if fault and fault.drop_after:
            raise _Dropped
        self._send(SUCCESS, self._metadata(request, fields))

    async def _obey(self, request: str, fields: Sequence[Any]) -> str | None:
        """The code of a refusal."""
        if request == "LOGON":
            shown = fields[0]
            right = (self._server.user, self._server.password)
            return None if (shown.get("principal"), shown.get("credentials")) == right else UNAUTHORIZED
        if request == "BEGIN":
            self._server.begun += 1
            self._server.databases.add(fields[0].get("db"))
            await self._server.writing.acquire()
            self._said = []
        if request == "RUN":
            said = Said(fields[0], fields[1])
            assert self._said is not None, "said outside of a transaction"
            if code := self._server.refuses(said):
                return code
            self._said.append(said)
        if request == "COMMIT":
            assert self._said is not None
            try:
                for said in self._said:
                    self._server.graph.run(said.text, said.parameters)
            except CypherError as error:
                self._server.errors.append(str(error))
                return BROKEN_CONSTRAINT
            self._server.committed.append(self._said)
        if request in {"COMMIT", "ROLLBACK"}:
            self._end()
        return None

    def _end(self) -> None:
        if self._said is not None:
            self._server.writing.release()
        self._said = None

    def _metadata(self, request: str, fields: Sequence[Any]) -> Mapping[str, object]:
        if request == "HELLO":
            return {"server": "Neo4j/5.26.0", "connection_id": "bolt-1", "hints": {}}
        if request == "RUN":
            return {"fields": [], "t_first": 0}
        if request == "ROUTE":
            roles = ({"addresses": [self._server.address], "role": role} for role in ("WRITE", "READ", "ROUTE"))
            return {"rt": {"ttl": 300, "db": fields[2].get("db"), "servers": list(roles)}}
        return {"bookmark": "b1"} if request == "COMMIT" else {}
