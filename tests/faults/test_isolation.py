"""Nobody touches somebody else's answers: on any node, by socket or HTTP, as a user or a guest, with any name.

What a stranger is told of a run that is there is, byte for byte, what is told of one that is not.
"""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.clients import PATIENCE_S, Frame, SocketClient, new_code, socket_client, text_of
from tests.faults.conftest import Ground, Table
from tests.faults.model import question, text_for
from tests.faults.nodes import Fleet, fleet

OPEN_S = 4.0
"""How long the answer takes that strangers try to touch while it is made."""

NOT_THERE = "0" * 32

MALFORMED = (
    "",
    " ",
    "x",
    "../../etc/passwd",
    "{run:x}:meta",
    "*",
    "a" * 64,
    "a" * 65,
    "a\u0000b",
    "\n",
    "’; DROP TABLE chat.runs; --",
    "🎬",
    None,
    7,
    True,
    ["x"],
    {"$ne": ""},
)
"""Names that no run has, and things that are no names."""


@dataclass(slots=True)
class Owner:
    """Somebody with an answer in the making and one that is over."""

    client: SocketClient
    running: Frame
    ended: Frame
    message_id: str
    conversation_id: str
    secrets: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """What was tried."""

    refused: int = 0
    malformed: int = 0


async def ask(client: SocketClient, query: str, **more: object) -> Frame:
    await client.send({"type": "chat", "query": query, "stream": True, **more})
    accepted: Frame = (await client.receive_until("chat_processing"))[-1]
    return accepted


@contextlib.asynccontextmanager
async def owner_on(url: str, name: str) -> AsyncIterator[Owner]:
    """Somebody who asks in the standing conversation, gets that answer, and asks again for a long one."""
    async with socket_client(url) as client:
        await client.login()
        ended = await ask(client, question(f"{name}一", deltas=3, per_s=1000), id="first")
        complete = (await client.receive_until("complete"))[-1]
        running = await ask(client, question(f"{name}二", deltas=60, per_s=60 / OPEN_S), id="second")
        conversation_id = running["data"]["conversation_id"]
        owner = Owner(client, running, ended, complete["message_id"], conversation_id)
        owner.secrets = [name, conversation_id, complete["message_id"], client.openid, client.session_id, client.token]
        yield owner


@contextlib.asynccontextmanager
async def two(ground: Ground) -> AsyncIterator[Fleet]:
    async with fleet(
        2,
        ground.folder,
        database_url=ground.database_url,
        redis_url=ground.redis_url,
        model_url=ground.model.url,
    ) as nodes:
        yield nodes


def touches(request_id: object, chat_id: object) -> list[Frame]:
    """Every message that names a run."""
    return [
        {"type": "resume", "request_id": request_id},
        {"type": "resume", "request_id": request_id, "after_seq": 1},
        {"type": "cancel", "request_id": request_id},
        {"type": "cancel", "chat_id": chat_id},
    ]


def refusal_of(answer: Frame) -> Frame:
    """An error without what the asker gave itself."""
    return {key: value for key, value in answer.items() if key not in ("id", "request_id")}


class Stranger:
    """Who asks over HTTP: with the token of another user, as a guest, or as nobody."""

    def __init__(self, http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        self.http = http
        # With the same id in them, refusals of what is not theirs and of what is not there are the same to the byte.
        self.headers = {"X-Request-Id": "stranger", **headers}

    async def call(self, message: Frame) -> Frame:
        response = await self.http.post("/api/v1/messages", content=json.dumps(message), headers=self.headers)
        assert response.status_code < 500, (message, response.text)
        answer: Frame = response.json()
        assert response.status_code == (answer["code"] or 200), answer
        return answer

    async def stream(self, request_id: str, **more: Any) -> httpx.Response:
        return await self.http.get(f"/api/v1/streams/{request_id}", headers=self.headers | more)


def check_refused(owner: Owner, answer: Frame, nothing: Frame, reason: str, tally: Tally) -> None:
    assert (answer["code"], answer["reason"]) == (404, reason), answer
    assert refusal_of(answer) == refusal_of(nothing)
    check_silent(owner, json.dumps(answer, ensure_ascii=False))
    tally.refused += 1


def check_silent(owner: Owner, said: str) -> None:
    """Nothing of the owner is in it."""
    assert not [secret for secret in owner.secrets if secret in said], said


async def try_all(caller: SocketClient | Stranger, owner: Owner, tally: Tally) -> None:
    """Every operation that could touch what is the owner's, by its right name."""
    for accepted, chat_id in ((owner.running, "second"), (owner.ended, "first")):
        theirs = touches(accepted["data"]["request_id"], chat_id)
        for message, absent in zip(theirs, touches(NOT_THERE, "nobody's"), strict=True):
            check_refused(owner, await caller.call(message), await caller.call(absent), "run_not_found", tally)
    absent_id = str(uuid.uuid4())
    for more in ({}, {"before": owner.message_id}):
        answer = await caller.call({"type": "history", "conversation_id": owner.conversation_id, **more})
        nothing = await caller.call({"type": "history", "conversation_id": absent_id, **more})
        check_refused(owner, answer, nothing, "conversation_not_found", tally)
    chat = {"type": "chat", "query": question("别人问", deltas=1, per_s=1000)}
    answer = await caller.call(chat | {"conversation_id": owner.conversation_id})
    nothing = await caller.call(chat | {"conversation_id": absent_id})
    check_refused(owner, answer, nothing, "conversation_not_found", tally)
    # Their own history, before a message that is not theirs.
    own = await caller.call({"type": "history", "before": owner.message_id})
    assert own["data"]["items"] == []
    tally.refused += 1


async def try_streams(stranger: Stranger, owner: Owner, tally: Tally) -> None:
    """Following over SSE."""
    for accepted in (owner.running, owner.ended):
        request_id = accepted["data"]["request_id"]
        for name, more in ((request_id, {}), (f"{request_id}?after_seq=1", {}), (request_id, {"Last-Event-ID": "1"})):
            response = await stranger.stream(name, **more)
            nothing = await stranger.stream(name.replace(request_id, NOT_THERE), **more)
            assert response.status_code == nothing.status_code == 404, response.text
            assert response.json()["error"]["reason"] == "run_not_found"
            assert response.content == nothing.content
            check_silent(owner, response.text)
            tally.refused += 1


@pytest.mark.slow
async def test_a_strangers_hands_find_nothing(ground: Ground, table: Table) -> None:
    tally = Tally()
    async with two(ground) as nodes, contextlib.AsyncExitStack() as stack:
        owner = await stack.enter_async_context(owner_on(nodes.nodes[0].url, "甲的秘密"))
        for node in nodes.nodes:
            user = await stack.enter_async_context(socket_client(node.url))
            await user.login()
            await try_all(user, owner, tally)
            http = await stack.enter_async_context(
                httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=PATIENCE_S)
            )
            for headers in (
                {"Authorization": f"Bearer {user.token}"},
                # Guests who call themselves what the owner is called, everywhere else.
                {"X-User-ID": owner.client.openid},
                {"X-User-ID": owner.client.session_id},
                {"X-User-ID": "guest"},
                {},
            ):
                stranger = Stranger(http, headers)
                await try_all(stranger, owner, tally)
                await try_streams(stranger, owner, tally)
        table(refused=tally.refused)
        # The owner never noticed.
        frames = await owner.client.receive_until("complete", "error")
        assert (frames[-1]["type"], frames[-1]["finish_reason"]) == ("complete", "stop")
        assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
        assert text_of(frames) == frames[-1]["answer"] == text_for(question("甲的秘密二", deltas=60, per_s=60 / OPEN_S))
        resumed = await owner.client.call({"type": "resume", "request_id": owner.running["data"]["request_id"]})
        assert resumed["data"]["recovered"] is True
        assert await owner.client.receive_until("complete") == frames[-len(frames) :]


@pytest.mark.slow
async def test_the_same_id_leads_a_stranger_to_a_run_of_its_own(ground: Ground) -> None:
    async with two(ground) as nodes, owner_on(nodes.nodes[0].url, "乙的秘密") as owner:
        for node in nodes.nodes:
            async with socket_client(node.url) as stranger:
                await stranger.login()
                asked = question(f"另一个{node.port}", deltas=2, per_s=1000)
                frames = await stranger.stream({"type": "chat", "query": asked, "id": "second"})
                assert text_of(frames) == text_for(asked)
                check_silent(owner, json.dumps(frames, ensure_ascii=False))
                # And cancelling it does not reach the owner's of that name.
                cancelled = await stranger.call({"type": "cancel", "chat_id": "second"})
                assert cancelled["data"]["request_id"] == frames[0]["data"]["request_id"]
        assert (await owner.client.receive_until("complete"))[-1]["finish_reason"] == "stop"


@pytest.mark.slow
async def test_guests_do_not_reach_each_other_nor_users_them(ground: Ground, table: Table) -> None:
    tally = Tally()
    asked = question("丙的秘密", deltas=3, per_s=1000)
    async with two(ground) as nodes, contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=PATIENCE_S))
            for node in nodes.nodes
        ]
        guest = Stranger(clients[0], {"X-User-ID": "丙".encode().hex()})
        reply = await guest.call({"type": "chat", "query": asked, "id": "first"})
        assert reply["data"]["msg"] == text_for(asked)
        request_id = reply["data"]["request_id"]
        secrets = ["丙的秘密", reply["data"]["conversation_id"], reply["data"]["id"]]
        async with socket_client(nodes.nodes[0].url) as client:
            accepted: Frame = {"data": {"request_id": request_id}}
            owner = Owner(client, accepted, accepted, reply["data"]["id"], reply["data"]["conversation_id"], secrets)
            user = await stack.enter_async_context(socket_client(nodes.nodes[1].url))
            await user.login()
            await try_all(user, owner, tally)
            for http in clients:
                for headers in ({"Authorization": f"Bearer {user.token}"}, {"X-User-ID": "another"}, {}):
                    stranger = Stranger(http, headers)
                    await try_all(stranger, owner, tally)
                    await try_streams(stranger, owner, tally)
                # The same name on another of the surfaces is another guest.
                body = {"message": "x", "user_id": guest.headers["X-User-ID"], "session_id": "s"}
                response = await http.post("/api/v1/mp/chat/stream", json=body | {"message": asked})
                assert request_id not in response.text
        for http in clients:
            again = Stranger(http, guest.headers)
            assert (await again.call({"type": "resume", "request_id": request_id}))["data"]["recovered"] is True
            assert (await again.stream(request_id)).status_code == 200
    table(refused=tally.refused)


@pytest.mark.slow
async def test_what_is_no_name_of_a_run_is_refused_as_such(ground: Ground, table: Table) -> None:
    tally = Tally()

    def check(answer: Frame, name: object) -> None:
        assert (answer["code"], answer["reason"]) in ((404, "run_not_found"), (400, "invalid_field")), (name, answer)
        assert answer["retryable"] is False
        if answer["code"] == 400:
            assert answer["field"] in ("request_id", "chat_id"), answer
        tally.malformed += 1

    async with two(ground) as nodes, contextlib.AsyncExitStack() as stack:
        owner = await stack.enter_async_context(owner_on(nodes.nodes[0].url, "丁的秘密"))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=nodes.nodes[1].url, trust_env=False, timeout=PATIENCE_S)
        )
        stranger = Stranger(http, {})
        for name in MALFORMED:
            # A socket for each: ten messages in a row that are none would close it.
            async with socket_client(nodes.nodes[1].url) as user:
                await user.login()
                for message in touches(name, name):
                    for answer in (await user.call(message), await stranger.call(message)):
                        check_silent(owner, json.dumps(answer, ensure_ascii=False))
                        check(answer, name)
        for path in ("%00", "%2e%2e%2f", "a" * 65, "a" * 5000, "%ff%fe", "%F0%9F%8E%AC", "*", "x?after_seq=-1"):
            response = await stranger.stream(path)
            assert 300 <= response.status_code < 500, (path, response.status_code, response.text)
            check_silent(owner, response.text)
            tally.malformed += 1
        running = owner.running["data"]["request_id"]
        token = {"Authorization": f"Bearer {owner.client.token}"}
        for after in ("-1", "x", "1.5", "99999999999999999999", ""):
            for path, headers in ((f"{running}?after_seq={after}", {}), (running, {"Last-Event-ID": after})):
                response = await Stranger(http, token).stream(path, **headers)
                assert 400 <= response.status_code < 500, (path, headers, response.status_code)
                tally.malformed += 1
    table(malformed=tally.malformed)


@pytest.mark.slow
async def test_a_socket_that_changes_hands_hears_no_more_of_who_had_it(ground: Ground) -> None:
    async with two(ground) as nodes, owner_on(nodes.nodes[0].url, "戊的秘密") as owner:
        await owner.client.receive_until("chunk")
        request_id = owner.running["data"]["request_id"]
        await owner.client.send({"type": "login", "code": new_code()})
        await owner.client.receive_until("login_response")
        # The owner's answer is being made all this time: nothing of it may come here.
        asked = question("新来的", deltas=20, per_s=10)
        frames = await owner.client.stream({"type": "chat", "query": asked})
        assert {frame.get("request_id") for frame in frames} == {None, frames[0]["data"]["request_id"]}
        assert text_of(frames) == text_for(asked)
        refused = await owner.client.call({"type": "resume", "request_id": request_id})
        assert (refused["code"], refused["reason"]) == (404, "run_not_found")


@pytest.mark.slow
async def test_a_session_that_was_ended_follows_nothing_more(ground: Ground) -> None:
    async with two(ground) as nodes, owner_on(nodes.nodes[0].url, "己的秘密") as owner:
        request_id = owner.running["data"]["request_id"]
        async with (
            httpx.AsyncClient(base_url=nodes.nodes[1].url, trust_env=False, timeout=PATIENCE_S) as http,
            socket_client(nodes.nodes[1].url) as other,
        ):
            await other.call({"type": "auth", "token": owner.client.token})
            await owner.client.send({"type": "logout"})
            await owner.client.receive_until("logout_response")
            assert await owner.client.closed() == 4003
            former = Stranger(http, {"Authorization": f"Bearer {owner.client.token}"})
            for message in touches(request_id, "second"):
                assert (await former.call(message))["code"] == 401
            assert (await former.stream(request_id)).status_code == 401
            assert await other.closed() == 4003
        async with socket_client(nodes.nodes[1].url) as later:
            refused = await later.call({"type": "auth", "token": owner.client.token})
            assert refused["code"] == 401
