"""Nobody reaches somebody else's things through any operation: each one that is declared is tried, at all its doors.

The operations come from their declarations, and REACHES says of each how a stranger would try. What several nodes are
needed for is in `faults/test_isolation.py`.
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import httpx
import jwt
import pytest

from protocol import errors
from protocol.errors import ErrorKind
from protocol.operation import Access, AnyOperation, Route, Shape
from protocol.operations import OPERATIONS
from storage.embedded import Services
from tests.clients import PATIENCE_S, Frame, HttpClient, SocketClient, new_code, socket_client
from tests.node import serving
from tests.standins.llm import LLMStandIn, says, stalls
from tests.standins.server import Gate, serve
from wsserver.auth import ALGORITHM, AUDIENCE, ISSUER
from wsserver.contract.examples import body_example, request_example

CLAIMS = ("user_id", "openid", "session_id")
"""Fields of routes in which a guest says who it is."""

SEEN, HIDDEN = 27205, 603
"""Films on the owner's list: one that a chat noted, one that was added."""


@dataclass(frozen=True, slots=True)
class Names:
    """What somebody's things are called."""

    conversation: str
    busy: str
    question: str
    answer: str
    sibling: str
    run: str
    running: str
    chat: str
    resent: str
    capture: str
    cursor: str
    session: str
    said: str


@dataclass(frozen=True, slots=True)
class Reach:
    """How a stranger reaches for things with these names: the fields of a request that differ from its example's.

    None leaves one out. `refused` is what it is told; without it, it is answered, and with nothing of the owner's.
    """

    fields: Callable[[Names], Frame]
    refused: ErrorKind | None = None


def _forged(names: Names) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "sid": names.session, "exp": int(time.time()) + 600}
    return jwt.encode(claims, "a secret of somebody else's, long enough", ALGORITHM)


def _of(*names: str, field: str, refused: ErrorKind) -> tuple[Reach, ...]:
    """A reach for each of the names in the same field."""
    return tuple(Reach(lambda owner, name=name: {field: getattr(owner, name)}, refused) for name in names)  # type: ignore[misc]


_NAMES_NOTHING = (Reach(lambda _names: {}),)
_CONVERSATION = _of("conversation", "busy", field="conversation_id", refused=errors.CONVERSATION_NOT_FOUND)
_MESSAGE = _of("question", "answer", "sibling", field="message_id", refused=errors.MESSAGE_NOT_FOUND)
_RUN = _of("run", "running", field="request_id", refused=errors.RUN_NOT_FOUND)

REACHES: Mapping[str, Sequence[Reach]] = {
    "account_delete": _NAMES_NOTHING,  # whose account it is says the token
    "account_export": (
        Reach(lambda names: {"after": f"conversations:{uuid.UUID(int=0)}"}),
        Reach(lambda names: {"after": f"messages:{names.conversation}/0"}),
        Reach(lambda names: {"after": f"feedback:{uuid.UUID(int=0)}"}),
        Reach(lambda names: {"after": "watchlist:0"}),
    ),
    "adopt_guest": (  # a secret is the proof itself: here a forged one
        Reach(lambda names: {"secret": f"guest_{names.conversation}.{names.answer}"}, errors.GUEST_NOT_FOUND),
    ),
    "auth": (Reach(lambda names: {"token": _forged(names)}, errors.TOKEN_INVALID),),
    "branch_choose": _MESSAGE,
    "cancel": (*_RUN, Reach(lambda names: {"request_id": None, "chat_id": names.chat}, errors.RUN_NOT_FOUND)),
    "chat": (*_CONVERSATION, Reach(lambda names: {"conversation_id": None, "id": names.resent})),
    "conversation_create": _NAMES_NOTHING,
    "conversation_delete": _CONVERSATION,
    "conversation_get": (
        *_CONVERSATION,
        Reach(
            lambda names: {"conversation_id": names.conversation, "before": names.answer}, errors.CONVERSATION_NOT_FOUND
        ),
    ),
    "conversation_list": (*_NAMES_NOTHING, Reach(lambda names: {"before": names.cursor, "limit": 100})),
    "conversation_rename": _CONVERSATION,
    "conversation_search": (Reach(lambda names: {"query": names.said}), Reach(lambda names: {"query": "e"})),
    "edit": _MESSAGE,
    "feedback": _MESSAGE,
    "history": (*_CONVERSATION, *_NAMES_NOTHING, Reach(lambda names: {"before": names.answer})),
    "login": (Reach(lambda _names: {"code": new_code()}),),  # a code is the proof itself: here one of the stranger's
    "logout": _NAMES_NOTHING,  # whose session it is says the token
    "movie_detail": _NAMES_NOTHING,  # films are everybody's, here and below
    "movies_bulk": _NAMES_NOTHING,
    "movies_feed": _NAMES_NOTHING,
    "movies_search": _NAMES_NOTHING,
    "ping": _NAMES_NOTHING,
    "regenerate": _MESSAGE,
    "resume": (
        *_RUN,
        Reach(lambda names: {"request_id": names.run, "after_seq": 1}, errors.RUN_NOT_FOUND),
    ),
    # The same films, each on a list of one's own.
    "watchlist_add": tuple(
        Reach(lambda _names, film=film: {"tmdb_id": film, "state": "dismissed"})  # type: ignore[misc]
        for film in (SEEN, HIDDEN)
    ),
    "watchlist_list": (*_NAMES_NOTHING, Reach(lambda _names: {"before": 1_000_000, "limit": 100})),
    "watchlist_remove": tuple(
        Reach(lambda _names, film=film: {"tmdb_id": film})  # type: ignore[misc]
        for film in (SEEN, HIDDEN)
    ),
    "watchlist_undo": _of("capture", field="capture_id", refused=errors.CAPTURE_NOT_FOUND),
}


@dataclass(slots=True)
class Owner:
    """Somebody with some of everything, and what no stranger may ever see of it."""

    url: str
    model: LLMStandIn
    http: httpx.AsyncClient
    client: SocketClient
    names: Names
    secrets: tuple[str, ...]

    @asynccontextmanager
    async def answering(self) -> AsyncIterator["Owner"]:
        """While an answer is made; it ends as if nobody had tried anything."""
        gate, name = Gate(), uuid.uuid4().hex
        self.model.queue(stalls(gate, "marzipan-a4"))
        ask = {"type": "chat", "conversation_id": self.names.busy, "query": "marzipan-q3", "stream": True, "id": name}
        await self.client.send(ask)
        run = (await self.client.receive_until("chunk"))[0]["data"]["request_id"]
        names = replace(self.names, running=run, chat=name)
        try:
            yield replace(self, names=names, secrets=(*self.secrets, run))
        finally:
            gate.open()
            end = (await self.client.receive_until("complete", "error"))[-1]
        assert (end["type"], end.get("finish_reason"), end.get("answer")) == ("complete", "stop", "marzipan-a4")

    async def everything(self) -> list[Frame]:
        """All that the owner has, as the owner sees it."""
        mine = HttpClient(self.http, self.client.token)
        seen: list[Frame] = []
        after: str | None = None
        while not seen or after is not None:
            page = await mine.call({"type": "account_export", "after": after})
            after = page["data"]["next_after"]
            seen.append(page["data"])
        for run in (self.names.run, self.names.running):
            seen.append(await mine.call({"type": "resume", "request_id": run}))
        return seen


@pytest.fixture(scope="module")
async def owner(services: Services, data_dir: Path) -> AsyncIterator[Owner]:
    model = LLMStandIn()
    async with AsyncExitStack() as stack:
        model_url = await stack.enter_async_context(serve(model.app))
        settings = {"llm_base_url": [f"{model_url}/v1"], "llm_model": ["stand-in"], "llm_api_key": ["key"]}
        node = await stack.enter_async_context(serving(services, data_dir, **settings))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=PATIENCE_S)
        )
        client = await stack.enter_async_context(socket_client(node.url))
        await client.login()
        yield await _owner(node.url, model, http, client)


async def _owner(url: str, model: LLMStandIn, http: httpx.AsyncClient, client: SocketClient) -> Owner:
    model.queue(says("marzipan-a1"), says("marzipan-a2"), says("marzipan-a3"))
    noted = (await client.call({"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True}))["data"]
    made = await client.call({"type": "conversation_create", "title": "marzipan-title"})
    conversation = made["data"]["id"]
    ask = {"type": "chat", "conversation_id": conversation}
    first = (await client.call(ask | {"query": "marzipan-q1", "id": "first"}))["data"]
    rated = await client.call({"type": "feedback", "message_id": first["id"], "rating": 4, "comment": "marzipan-c"})
    edited = (await client.call({"type": "edit", "message_id": first["id"], "query": "marzipan-q2"}))["data"]
    await client.call({"type": "watchlist_add", "tmdb_id": HIDDEN, "state": "watched"})
    busy = (await client.call({"type": "conversation_create", "title": "marzipan-busy"}))["data"]["id"]
    question, answer = (await client.call({"type": "history", "conversation_id": conversation}))["data"]["items"]
    cursor = (await client.call({"type": "conversation_list", "limit": 1}))["data"]["next_before"]
    assert answer["id"] == edited["id"]
    names = Names(
        conversation=conversation,
        busy=busy,
        question=question["id"],
        answer=answer["id"],
        sibling=first["id"],
        run=edited["request_id"],
        running="",
        chat="",
        resent="first",
        capture=noted["watchlist"]["capture_id"],
        cursor=cursor,
        session=client.session_id,
        said="marzipan",
    )
    ids = (noted["conversation_id"], noted["id"], noted["request_id"], first["request_id"], rated["data"]["id"])
    hidden = (names.conversation, busy, names.question, names.answer, names.sibling, names.run, names.capture)
    secrets = ("marzipan", client.openid, client.session_id, client.token, *hidden, *ids)
    return Owner(url, model, http, client, names, secrets)


def absent(owner: Owner) -> Names:
    """Names that nothing has."""
    things = (
        "conversation",
        "busy",
        "question",
        "answer",
        "sibling",
        "run",
        "running",
        "chat",
        "resent",
        "capture",
        "said",
    )
    return replace(owner.names, **{thing: str(uuid.uuid4()) for thing in things})


Stranger = Literal["user", "guest", "nobody"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the error's reason, None for none; its status, and all of its text."""

    reason: str | None
    code: int
    said: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One operation, tried by one stranger with the same fields at one door or another."""

    owner: Owner
    operation: AnyOperation
    stranger: Stranger
    fields: Frame

    @property
    def message(self) -> Frame:
        example = {name: value for name, value in request_example(self.operation).items() if name != "id"}
        message = {**example, "type": self.operation.name, **self.fields}
        if "stream" in message:
            message["stream"] = False
        return {name: value for name, value in message.items() if value is not None}

    async def headers(self) -> dict[str, str]:
        """A user is a new one each time: some of what it tries ends its own session."""
        same = {"X-Request-Id": "isolation"}  # errors that say the same are the same to the byte
        if self.stranger == "user":
            reply = await self.owner.http.post("/api/v1/messages", json={"type": "login", "code": new_code()})
            return same | {"Authorization": f"Bearer {reply.json()['data']['token']}"}
        # A guest calls itself what the owner is called.
        return same | ({"X-User-ID": self.owner.client.openid} if self.stranger == "guest" else {})

    async def by_socket(self) -> Answer:
        async with socket_client(self.owner.url) as client:
            if self.stranger == "user":
                await client.login()
            reply = await client.call(self.message)
        reply.pop("id", None)
        reply.pop("request_id", None)
        return Answer(reply.get("reason"), reply["code"], json.dumps(reply, ensure_ascii=False))

    async def by_message(self) -> Answer:
        response = await self.owner.http.post("/api/v1/messages", json=self.message, headers=await self.headers())
        reply = response.json()
        assert response.status_code == (reply["code"] or 200), reply
        reply.pop("id", None)
        return Answer(reply.get("reason"), reply["code"], json.dumps(reply, ensure_ascii=False))

    async def by_route(self, route: Route) -> Answer:
        known = _fields_of(route)
        fields = body_example(self.operation, route)
        fields |= {name: value for name, value in self.fields.items() if name in known}
        fields = {name: value for name, value in fields.items() if name not in CLAIMS and value is not None}
        fields |= self._claims(known)
        parts = {name: str(fields.pop(name)) for name in list(fields) if f"{{{name}}}" in route.path}
        sent: Frame = {"json": fields} if route.method == "POST" else {"params": fields}
        response = await self.owner.http.request(
            route.method, route.path.format(**parts), headers=await self.headers(), **sent
        )
        error: Frame = {}
        if "text/event-stream" not in response.headers["content-type"]:
            reply = response.json()
            error = (reply if route.shape is Shape.ENVELOPE else (reply or {}).get("error")) or {}
            assert route.shape is Shape.ENVELOPE or response.status_code == error.get("code", 200), response.text
        return Answer(error.get("reason"), error.get("code", 0), response.text)

    def _claims(self, known: Mapping[str, bool]) -> Frame:
        """Who the stranger says it is: the owner, or nobody in particular where something has to be said."""
        claimed = {"user_id": self.owner.client.openid, "openid": self.owner.client.openid}
        claimed["session_id"] = self.owner.names.session
        if self.stranger == "nobody":
            return {name: "nobody" for name in CLAIMS if known.get(name)}
        return {name: claimed[name] for name in CLAIMS if name in known}


def _fields_of(route: Route) -> dict[str, bool]:
    """The names of what a route reads, and whether it must be there."""
    return {field.alias or name: field.is_required() for name, field in route.body.model_fields.items()}


def _may_call(attempt: Attempt, route: Route | None, *, socket: bool) -> bool:
    access = attempt.operation.access
    if access is Access.ANYONE or attempt.stranger == "user":
        return True
    if socket or access is Access.USER:
        return False
    named = attempt.stranger == "guest" or (route is not None and any(map(_fields_of(route).get, CLAIMS)))
    return named or access is Access.GUEST


def _names_nothing(attempt: Attempt, nothing: Attempt, route: Route) -> bool:
    """Whether the route cannot even say what the owner's thing is called."""
    told = {name for name, value in attempt.fields.items() if nothing.fields[name] != value}
    return not told & _fields_of(route).keys()


async def _try(reach: Reach, attempt: Attempt, nothing: Attempt) -> None:
    doors: list[tuple[Route | None, bool]] = [(None, False), *((route, False) for route in attempt.operation.routes)]
    if attempt.stranger != "guest":  # over a socket there are none
        doors.append((None, True))
    for route, socket in doors:

        async def answer(one: Attempt, route: Route | None = route, *, socket: bool = socket) -> Answer:
            if socket:
                return await one.by_socket()
            return await (one.by_message() if route is None else one.by_route(route))

        answered = await answer(attempt)
        at = (attempt.operation.name, attempt.stranger, "socket" if socket else route and route.path, answered)
        assert not [secret for secret in attempt.owner.secrets if secret in answered.said], at
        if not _may_call(attempt, route, socket=socket):
            assert (answered.code, answered.reason) == (401, errors.LOGIN_REQUIRED.reason), at
        elif reach.refused is None or (route is not None and _names_nothing(attempt, nothing, route)):
            assert (answered.code, answered.reason) == (0, None), at
        else:
            assert (answered.code, answered.reason) == (reach.refused.code, reach.refused.reason), at
            assert answered.code in (401, 404), at
            # Not theirs and not there are one.
            assert answered == await answer(nothing), at


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_stranger_gets_nothing_of_the_owners_through(name: str, owner: Owner) -> None:
    assert name in REACHES, (
        f"operation {name!r} has no line in REACHES: add how a stranger would reach for somebody's things with it, a"
        " Reach for each field that can name one and the error that refuses it; or a Reach without an error where the"
        " operation names nothing, and a word why"
    )
    async with owner.answering() as answered:
        before = await answered.everything()
        asked = len(owner.model.calls)
        nobodys = absent(answered)
        for reach in REACHES[name]:
            for stranger in ("user", "guest", "nobody"):
                attempt = Attempt(answered, OPERATIONS[name], stranger, reach.fields(answered.names))
                nothing = Attempt(answered, OPERATIONS[name], stranger, reach.fields(nobodys))
                await _try(reach, attempt, nothing)
        assert await answered.everything() == before
    prompts = json.dumps([call.json["messages"] for call in owner.model.calls[asked:]], ensure_ascii=False)
    assert not [secret for secret in answered.secrets if secret in prompts]


def test_no_line_is_about_an_operation_that_is_gone() -> None:
    assert REACHES.keys() <= OPERATIONS.keys()
