"""Limits that hold over all nodes: rates of users and addresses, sockets of a user, and the end of a session."""

import asyncio
import contextlib
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from protocol.errors import RATE_LIMITED, OperationError
from storage import limits
from storage.accounts import Sessions
from storage.embedded import Services
from storage.limits import RateLimits, Seat, UserSockets, source_of
from storage.redis import RATE, REPLACED, SESSION, USER_SOCKETS, Redis, open_redis
from tests.clients import PATIENCE_S, Frame, HttpClient, SocketClient, Transport, new_code, socket_client
from tests.databases import fresh_database
from tests.logs import logged_of
from tests.node import TestNode, serving
from tests.standins.llm import LLMStandIn, stalls
from tests.standins.server import Gate, serve
from tests.valkeys import Valkey, free_ports, started
from wsserver import watch

CHATS, LOGINS, GUEST_CHATS, SOCKETS = 3, 4, 3, 5
"""Per minute, or whatever a test makes the window: fewer than the defaults, and different from each other's."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nodes that share Redis and PostgreSQL, and the model that both ask."""

    one: TestNode
    two: TestNode
    model: LLMStandIn


@contextlib.asynccontextmanager
async def two_nodes(services: Services, data_dir: Path, redis_url: str | None) -> AsyncIterator[Pair]:
    model = LLMStandIn()
    assert services.database_url is not None
    async with serve(model.app) as model_url, fresh_database(services.database_url) as database_url:
        theirs = Services(database_url, redis_url, None)
        settings = {
            "llm_base_url": [f"{model_url}/v1"],
            "llm_model": ["stand-in"],
            "rate_limit_chats_per_min": CHATS,
            "rate_limit_logins_per_min": LOGINS,
            "rate_limit_guest_chats_per_min": GUEST_CHATS,
            "rate_limit_sockets_per_min": SOCKETS,
        }
        async with serving(theirs, data_dir, **settings) as one, serving(theirs, data_dir, **settings) as two:
            yield Pair(one, two, model)


@pytest.fixture(scope="module")
async def _pair(services: Services, data_dir: Path) -> AsyncIterator[Pair]:
    async with two_nodes(services, data_dir, services.redis_url) as pair:
        yield pair


@pytest.fixture
def pair(_pair: Pair) -> Pair:
    _pair.model.reset()
    return _pair


@pytest.fixture
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of three seconds: a test can wait for it, and does not outlast it by doing what it counts."""
    monkeypatch.setattr(limits, "WINDOW_S", 3)


def rates(redis: Redis, *, chats_per_min: int = 2) -> RateLimits:
    return RateLimits(redis, chats_per_min=chats_per_min, logins_per_min=2, guest_chats_per_min=2, sockets_per_min=2)


def somewhere() -> dict[str, str]:
    """The header by which a proxy on this machine names a client that nobody else is: RFC 2544's addresses."""
    return {"X-Forwarded-For": f"198.18.{secrets.randbelow(256)}.{secrets.randbelow(256)}"}


@contextlib.asynccontextmanager
async def http_client(node: TestNode, headers: dict[str, str] | None = None) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=PATIENCE_S, headers=headers) as opened:
        yield opened


@contextlib.asynccontextmanager
async def user(node: TestNode, code: str | None = None, token: str | None = None) -> AsyncIterator[SocketClient]:
    async with socket_client(node.url) as client:
        if token is None:
            await client.login(code)
        else:
            reply = await client.call({"type": "auth", "token": token})
            assert reply["code"] == 0, reply
            client.token, client.session_id = reply["data"]["token"], reply["data"]["session_id"]
        yield client


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.02)


async def closed_within(client: SocketClient, limit_s: float) -> int:
    before = time.monotonic()
    code = await client.closed()
    assert time.monotonic() - before < limit_s
    return code


async def lives(client: SocketClient) -> bool:
    return bool((await client.call({"type": "ping"}))["type"] == "pong")


# How often.


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("127.8.8.8", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        (None, None),
        ("", None),
        ("unknown", "unknown"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_address_counts_by_itself_and_an_ipv6_one_by_its_64(address: str | None, source: str | None) -> None:
    assert source_of(address) == source


def test_addresses_of_this_machine_can_be_made_to_count() -> None:
    assert [source_of(address, loopback=True) for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == [
        "127.0.0.1",
        "::1",
        "127.0.0.1",
    ]


@pytest.mark.usefixtures("short_window")
async def test_who_waits_as_long_as_was_said_may_go_on_and_who_waits_less_may_not(redis: Redis) -> None:
    limited, somebody = rates(redis), secrets.token_hex(8)
    await limited.chat_allowed(somebody)
    await limited.chat_allowed(somebody)
    with pytest.raises(OperationError) as refused:
        await limited.chat_allowed(somebody)
    assert refused.value.kind is RATE_LIMITED
    wait_ms = refused.value.retry_after_ms
    assert wait_ms is not None
    assert 0 < wait_ms <= 3001
    await asyncio.sleep(wait_ms / 1000 - 0.3)
    with pytest.raises(OperationError):
        await limited.chat_allowed(somebody)
    await asyncio.sleep(0.3)
    await limited.chat_allowed(somebody)


async def test_never_more_than_the_limit_within_any_minute_even_all_at_once(redis: Redis) -> None:
    limited, somebody = rates(redis, chats_per_min=10), secrets.token_hex(8)
    asked = await asyncio.gather(*(limited.chat_allowed(somebody) for _ in range(50)), return_exceptions=True)
    assert len([answer for answer in asked if answer is None]) == 10
    assert await redis.zcard(RATE(f"chats:{somebody}")) == 10
    assert 0 < await redis.ttl(RATE(f"chats:{somebody}")) <= 60


async def test_a_chat_that_is_sent_again_under_its_id_counts_once(redis: Redis) -> None:
    limited, somebody = rates(redis), secrets.token_hex(8)
    for _ in range(5):
        await limited.chat_allowed(somebody, "a")
    await limited.chat_allowed(somebody, "b")
    with pytest.raises(OperationError):
        await limited.chat_allowed(somebody, "c")
    await limited.chat_allowed(somebody, "b")


async def test_a_lower_limit_is_truthful_about_what_a_higher_one_let_through(redis: Redis) -> None:
    somebody = secrets.token_hex(8)
    for _ in range(4):
        await rates(redis, chats_per_min=4).chat_allowed(somebody)
        await asyncio.sleep(0.05)
    with pytest.raises(OperationError) as refused:
        await rates(redis, chats_per_min=1).chat_allowed(somebody)
    # The youngest of the four must be a minute old, and for the higher limit the oldest.
    assert 60_000 - 2000 < (refused.value.retry_after_ms or 0) <= 60_001
    with pytest.raises(OperationError) as earlier:
        await rates(redis, chats_per_min=4).chat_allowed(somebody)
    assert (earlier.value.retry_after_ms or 0) < (refused.value.retry_after_ms or 0) - 100


async def test_without_redis_nothing_is_limited_and_each_outage_is_said_once(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASK_AGAIN_S", 0.05)
    (port,) = free_ports(1)
    server = Valkey(data_dir / "limits", port, "--bind", "127.0.0.1", "--save", "")
    async with started([server]), open_redis(f"redis://127.0.0.1:{port}") as redis:
        limited = rates(redis)

        async def is_refused() -> bool:
            try:
                await limited.chat_allowed("somebody")
            except OperationError:
                return True
            return False

        await until(is_refused)
        for _ in range(2):
            with logged_of("rates") as logs:
                await server.kill()
                for _ in range(5):
                    await limited.chat_allowed("somebody")
                    await asyncio.sleep(0.06)
            assert [line["event"] for line in logs] == ["rates are not limited while Redis is away"]
            await server.start()
            await until(is_refused)


async def test_a_redis_that_hangs_holds_up_one_request_and_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_WITHIN_S", 0.2)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    silent = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with silent, open_redis(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}") as redis:
        limited = rates(redis)
        await limited.chat_allowed("somebody")
        before = time.monotonic()
        for _ in range(100):
            await limited.chat_allowed("somebody")
        assert time.monotonic() - before < 0.2


@pytest.fixture(params=["socket", "http"])
async def limited_user(request: pytest.FixtureRequest, pair: Pair) -> AsyncIterator[tuple[Transport, Transport]]:
    """One user twice: on the first node, and on the second over either transport."""
    async with user(pair.one) as first:
        if request.param == "socket":
            async with user(pair.two, token=first.token) as second:
                yield first, second
        else:
            async with http_client(pair.two) as http:
                yield first, HttpClient(http, first.token)


@pytest.mark.usefixtures("short_window")
async def test_a_users_chats_count_on_all_nodes_and_the_wait_is_enough(
    limited_user: tuple[Transport, Transport],
) -> None:
    first, second = limited_user
    for number in range(CHATS):
        reply = await (first, second)[number % 2].call({"type": "chat", "query": "你好"})
        assert reply["code"] == 0, reply
    error = await second.call({"type": "chat", "query": "还有", "id": "more"})
    assert (error["type"], error["code"], error["reason"], error["retryable"], error["id"]) == (
        "error",
        429,
        "rate_limited",
        True,
        "more",
    )
    assert 0 < error["retry_after_ms"] <= 3001
    await asyncio.sleep(error["retry_after_ms"] / 1000)
    assert (await second.call({"type": "chat", "query": "还有"}))["code"] == 0


async def test_a_users_limit_is_no_other_users(limited_user: tuple[Transport, Transport], pair: Pair) -> None:
    _first, second = limited_user
    for _ in range(CHATS):
        await second.call({"type": "chat", "query": "你好"})
    assert (await second.call({"type": "chat", "query": "你好"}))["code"] == 429
    assert (await second.call({"type": "history"}))["code"] == 0
    async with user(pair.two) as other:
        assert (await other.call({"type": "chat", "query": "你好"}))["code"] == 0


@pytest.mark.usefixtures("short_window")
@pytest.mark.parametrize("transport_name", ["socket", "http"])
async def test_attempts_to_log_in_count_by_address_on_all_nodes(pair: Pair, transport_name: str) -> None:
    here = somewhere()

    async def attempt(node: TestNode, headers: dict[str, str]) -> Frame:
        message = {"type": "login", "code": new_code(), "id": "l"}
        if transport_name == "http":
            async with http_client(node, headers) as http:
                return await HttpClient(http, "").call(message)
        async with socket_client(node.url, additional_headers=headers) as client:
            return await client.call(message)

    # With a socket each, the logins must come before that limit is reached.
    assert LOGINS < SOCKETS
    for number in range(LOGINS):
        assert (await attempt((pair.one, pair.two)[number % 2], here))["code"] == 0
    refused = await attempt(pair.two, here)
    assert (refused["type"], refused["code"], refused["reason"], refused["id"]) == (
        "login_response",
        429,
        "rate_limited",
        "l",
    )
    assert (await attempt(pair.two, somewhere()))["code"] == 0
    await asyncio.sleep(refused["retry_after_ms"] / 1000)
    assert (await attempt(pair.one, here))["code"] == 0


async def test_older_login_pages_are_told_too(pair: Pair) -> None:
    async with http_client(pair.one, somewhere()) as http:
        for _ in range(LOGINS):
            await http.post("/wechat/login", json={"code": new_code()})
        refused = await http.post("/wechat/login", json={"code": new_code()})
    assert (refused.status_code, refused.json()["code"], refused.json()["reason"]) == (200, 429, "rate_limited")


@pytest.mark.usefixtures("short_window")
async def test_guests_chats_count_by_address_whatever_name_a_guest_gives(pair: Pair) -> None:
    def question() -> dict[str, str]:
        return {"message": "你好", "user_id": secrets.token_hex(8), "session_id": "s"}

    async with http_client(pair.one, here := somewhere()) as http, http_client(pair.two, here) as other:
        for number in range(GUEST_CHATS):
            answer = await (http, other)[number % 2].post("/api/v1/mp/chat/stream", json=question())
            assert answer.status_code == 200
        refused = await http.post("/api/v1/mp/chat/stream", json=question())
        assert (refused.status_code, refused.json()["error"]["reason"]) == (429, "rate_limited")
        wait_ms = refused.json()["error"]["retry_after_ms"]
        assert int(refused.headers["retry-after"]) == -(-wait_ms // 1000)
        enveloped = await other.post("/wechat/chat", json={"query": "你好"})
        assert (enveloped.status_code, enveloped.json()["code"]) == (200, 429)
        token = (await http.post("/wechat/login", json={"code": new_code()})).json()["data"]["token"]
        own = await http.post("/wechat/chat", json={"query": "你好"}, headers={"Authorization": f"Bearer {token}"})
        assert own.json()["code"] == 0
        await asyncio.sleep(wait_ms / 1000)
        again = await http.post("/api/v1/mp/chat/stream", json=question())
        assert again.status_code == 200


@pytest.mark.parametrize("ipv6", [False, True])
async def test_new_sockets_count_by_address_and_one_too_many_is_told_and_closed(pair: Pair, ipv6: bool) -> None:
    network = f"2001:db8:{secrets.randbelow(0x10000):x}:{secrets.randbelow(0x10000):x}"
    same = somewhere()

    def place(number: int) -> dict[str, str]:
        return {"X-Forwarded-For": f"{network}::{number + 1:x}"} if ipv6 else same

    for number in range(SOCKETS):
        async with socket_client((pair.one, pair.two)[number % 2].url, additional_headers=place(number)) as client:
            assert await lives(client)
    url = pair.two.url.replace("http", "ws") + "/wechat/ws"
    async with connect(url, proxy=None, additional_headers=place(SOCKETS)) as socket:
        async with asyncio.timeout(PATIENCE_S):
            error = json.loads(await socket.recv())
            await socket.wait_closed()
    assert (error["type"], error["code"], error["reason"], error["retryable"]) == ("error", 429, "rate_limited", True)
    assert 0 < error["retry_after_ms"] <= 60_001
    assert socket.close_code == 1013
    async with socket_client(pair.two.url, additional_headers=somewhere()) as client:
        assert await lives(client)


async def test_this_machines_own_sockets_count_only_when_that_is_wished(
    services: Services, data_dir: Path, redis: Redis
) -> None:
    await redis.delete(RATE("sockets:127.0.0.1"))
    async with serving(services, data_dir, rate_limit_loopback=True, rate_limit_sockets_per_min=1) as strict:
        async with socket_client(strict.url) as client:
            assert await lives(client)
        async with connect(strict.url.replace("http", "ws") + "/ws", proxy=None) as socket:
            assert json.loads(await socket.recv())["reason"] == "rate_limited"
    async with serving(services, data_dir, rate_limit_sockets_per_min=1) as usual:
        for _ in range(3):
            async with socket_client(usual.url) as client:
                assert await lives(client)


# How many sockets.


async def seats_of(redis: Redis, client: SocketClient) -> str:
    """The key under which the sockets of a client's user are known."""
    user_id = await redis.hget(SESSION(client.session_id), "user_id")
    assert isinstance(user_id, bytes)
    return USER_SOCKETS(user_id.decode())


async def come_to(redis: Redis, key: str, number: int) -> None:
    """Wait until Redis knows of so many sockets."""

    async def are_there() -> bool:
        return bool(await redis.hlen(key) == number)

    await until(are_there)


async def test_a_sixth_socket_closes_the_oldest_on_whatever_node_it_is(pair: Pair) -> None:
    code = new_code()
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for number in range(5):
            clients.append(await stack.enter_async_context(user((pair.one, pair.two)[number % 2], code)))
            assert all([await lives(client) for client in clients])
        for number, next_node in ((0, pair.two), (1, pair.one), (2, pair.one)):
            clients.append(await stack.enter_async_context(user(next_node, code)))
            assert await closed_within(clients[number], 2) == 4008
            assert all([await lives(client) for client in clients[number + 1 :]])


async def test_a_socket_that_refreshes_its_token_does_not_become_newer_and_one_that_logs_in_anew_does(
    pair: Pair,
) -> None:
    code = new_code()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(user(pair.one, code)) for _ in range(5)]
        assert (await clients[0].call({"type": "auth", "token": clients[0].token}))["code"] == 0
        await clients[1].login()
        await clients[1].login(code)
        await stack.enter_async_context(user(pair.two, code))
        assert await closed_within(clients[0], 2) == 4008
        await stack.enter_async_context(user(pair.two, code))
        assert await closed_within(clients[2], 2) == 4008
        assert await lives(clients[1])


async def test_a_closed_sockets_place_is_free(pair: Pair, redis: Redis) -> None:
    code = new_code()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(user(pair.one, code)) for _ in range(4)]
        for _ in range(4):
            async with user(pair.two, code) as passing:
                key = await seats_of(redis, passing)
                await come_to(redis, key, 5)
            await come_to(redis, key, 4)
        assert all([await lives(client) for client in clients])


async def test_a_node_that_stops_gives_its_sockets_places_back(
    services: Services, data_dir: Path, redis: Redis
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serving(services, data_dir) as node:
            clients = [await stack.enter_async_context(user(node, code)) for code in [new_code()] * 3]
            key = await seats_of(redis, clients[0])
            await come_to(redis, key, 3)
        assert not await redis.exists(key)


async def test_a_place_that_is_left_in_a_nodes_last_moment_is_given_back_too(redis: Redis) -> None:
    somebody = secrets.token_hex(8)
    async with watch.Seats(UserSockets(redis, limit=5), "n").open() as seats:
        leave = seats.take(somebody, lambda: None)
        await come_to(redis, USER_SOCKETS(somebody), 1)
        leave()
    assert not await redis.exists(USER_SOCKETS(somebody))


async def test_when_redis_forgets_a_users_sockets_they_stay_and_keep_their_age(
    pair: Pair, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SAY_AGAIN_S", 0.1)
    code = new_code()
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for number in range(5):
            clients.append(await stack.enter_async_context(user((pair.one, pair.two)[number % 2], code)))
            await come_to(redis, key := await seats_of(redis, clients[0]), number + 1)
        await redis.delete(key)
        await come_to(redis, key, 5)
        assert all([await lives(client) for client in clients])
        await stack.enter_async_context(user(pair.two, code))
        assert await closed_within(clients[0], 3) == 4008
        assert all([await lives(client) for client in clients[1:]])


async def test_sockets_of_a_dead_node_count_for_a_minute_and_no_longer(redis: Redis) -> None:
    sockets, somebody = UserSockets(redis, limit=2), secrets.token_hex(8)
    dead = Seat(secrets.token_hex(8), somebody)
    await sockets.enter("dead", [dead])
    one, two = (Seat(secrets.token_hex(8), somebody) for _ in range(2))
    assert await sockets.enter("n", [one, two]) == {"dead": [dead.id]}
    assert dead.since_us is not None
    assert 50 < await redis.ttl(USER_SOCKETS(somebody)) <= 60
    # As if nothing had been heard of them for a minute, though they are the newest.
    for seat in (one, two):
        await redis.hset(USER_SOCKETS(somebody), seat.id, f"{seat.since_us} {dead.since_us - 61_000_000} n")
    later = Seat(secrets.token_hex(8), somebody)
    assert await sockets.enter("n", [dead, later]) == {}
    assert await redis.hkeys(USER_SOCKETS(somebody)) == [dead.id.encode(), later.id.encode()]


async def test_a_place_is_as_old_as_when_it_was_taken_however_late_its_node_said_so(redis: Redis) -> None:
    sockets, somebody = UserSockets(redis, limit=1), secrets.token_hex(8)
    first, second = (Seat(secrets.token_hex(8), somebody, taken_at=time.monotonic() - ago_s) for ago_s in (2, 1))
    assert await sockets.enter("b", [second]) == {}
    assert await sockets.enter("a", [first]) == {"a": [first.id]}
    assert await redis.hkeys(USER_SOCKETS(somebody)) == [second.id.encode()]


async def test_a_socket_that_missed_the_word_hears_that_it_lost_its_place_when_it_says_it_is_there(
    redis: Redis,
) -> None:
    sockets, somebody = UserSockets(redis, limit=1), secrets.token_hex(8)
    old = Seat(secrets.token_hex(8), somebody)
    await sockets.enter("a", [old])
    new = Seat(secrets.token_hex(8), somebody)
    assert await sockets.enter("b", [new]) == {"a": [old.id]}
    assert await sockets.enter("a", [old]) == {"a": [old.id]}
    # Said twice because the first answer was lost, it is as old as it was.
    new_again = Seat(new.id, somebody)
    assert await sockets.enter("b", [new_again]) == {}
    assert new_again.since_us == new.since_us


async def test_word_is_left_for_a_node_once_and_not_for_ever(redis: Redis) -> None:
    sockets, node = UserSockets(redis, limit=1), secrets.token_hex(8)
    await sockets.tell({node: ["a", "b", "c"]})
    assert 0 < await redis.ttl(REPLACED(node)) <= 60
    assert await sockets.take_replaced(node, 2) == ["a", "b"]
    assert await sockets.take_replaced(node, 2) == ["c"]
    assert await sockets.take_replaced(node, 2) == []


# Sessions.


async def log_out(pair: Pair, _redis: Redis, session: SocketClient) -> None:
    async with user(pair.one, token=session.token) as client:
        assert (await client.call({"type": "logout"}))["code"] == 0


async def log_out_over_http(pair: Pair, _redis: Redis, session: SocketClient) -> None:
    async with http_client(pair.one) as http:
        assert (await HttpClient(http, session.token).call({"type": "logout"}))["code"] == 0


async def revoke(_pair: Pair, redis: Redis, session: SocketClient) -> None:
    await Sessions(redis).revoke(session.session_id)


async def delete(_pair: Pair, redis: Redis, session: SocketClient) -> None:
    await redis.delete(SESSION(session.session_id))


async def expire(_pair: Pair, redis: Redis, session: SocketClient) -> None:
    await redis.pexpire(SESSION(session.session_id), 1)


@pytest.mark.parametrize("end", [log_out, log_out_over_http, revoke, delete, expire], ids=lambda end: end.__name__)
async def test_the_end_of_a_session_closes_its_sockets_and_streams_on_every_node_in_mid_answer(
    pair: Pair, redis: Redis, end: Callable[[Pair, Redis, SocketClient], Awaitable[None]]
) -> None:
    gates = [Gate(), Gate(), Gate()]
    pair.model.queue(*(stalls(gate, "开头", "结尾") for gate in gates))
    chat = {"type": "chat", "query": "问题", "stream": True}
    async with user(pair.two) as client, http_client(pair.one) as http, http_client(pair.two) as other_http:
        await client.send(chat)
        sse = {"Authorization": f"Bearer {client.token}", "Accept": "text/event-stream"}
        body = {"message": "问题", "user_id": "u", "session_id": "s"}
        async with (
            http.stream("POST", "/api/v1/messages", json=chat | {"incognito": True}, headers=sse) as typed,
            other_http.stream("POST", "/api/v1/chat/stream", json=body | {"incognito": True}, headers=sse) as status,
        ):
            assert (typed.status_code, status.status_code) == (200, 200)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(gate.reached.wait() for gate in gates))
            await end(pair, redis, client)
            async with asyncio.timeout(5):
                assert await client.closed() == 4003
                typed_events, status_events = await asyncio.gather(typed.aread(), status.aread())
        last = json.loads(typed_events.decode().strip().rsplit("data: ", 1)[1])
        assert (last["type"], last["code"], last["reason"]) == ("error", 401, "session_revoked")
        last = json.loads(status_events.decode().strip().rsplit("data: ", 1)[1])
        assert (last["status"], last["code"], last["reason"]) == ("error", 401, "session_revoked")
        for gate in gates:
            gate.open()


async def test_however_many_sessions_are_held_each_that_is_over_is_found(redis: Redis) -> None:
    ended: list[str] = []
    over = [uuid.uuid4().hex for _ in range(4 * watch.BATCH + 1)]
    async with watch.SessionWatch(Sessions(redis)).open() as sessions:
        for session_id in over:
            sessions.hold(session_id, partial(ended.append, session_id))
        async with asyncio.timeout(PATIENCE_S):
            while set(ended) != set(over):
                await asyncio.sleep(0.05)


async def test_the_end_of_a_session_leaves_other_sessions_of_the_user_and_guests_alone(
    pair: Pair, redis: Redis
) -> None:
    gate = Gate()
    pair.model.queue(stalls(gate, "开头", "结尾"))
    code = new_code()
    async with user(pair.two, code) as client, http_client(pair.two) as http:
        await redis.delete(SESSION(client.session_id))
        assert await client.closed() == 4003
        async with user(pair.two, code) as again:
            assert again.openid == client.openid
            body = {"message": "问题", "user_id": "u", "session_id": secrets.token_hex(4)}
            async with http.stream("POST", "/api/v1/mp/chat/stream", json=body) as response:
                await gate.reached.wait()
                async with user(pair.one) as other:
                    await redis.delete(SESSION(other.session_id))
                    assert await other.closed() == 4003
                gate.open()
                events = (await response.aread()).decode()
            assert '"type":"complete"' in events
            assert await lives(again)


WATCHES = ["news", "seats", "sessions"]
"""What a node looks after in Redis."""


def waiting(logs: Sequence[MutableMapping[str, Any]]) -> list[str]:
    """The watches that said they wait."""
    return [line["watch"] for line in logs if line["event"] == "watch waits for Redis"]


@pytest.mark.slow
async def test_while_redis_is_away_nobody_is_closed_and_when_it_has_lost_everything_all_log_in_again(
    services: Services, data_dir: Path
) -> None:
    (port,) = free_ports(1)
    server = Valkey(data_dir / "forgetful", port, "--bind", "127.0.0.1", "--save", "")
    async with (
        started([server]),
        two_nodes(services, data_dir, f"redis://127.0.0.1:{port}") as pair,
        user(pair.one) as client,
        user(pair.two, token=client.token) as second,
    ):
        with capture_logs() as logs:
            await server.kill()
            async with asyncio.timeout(PATIENCE_S):
                while len(waiting(logs)) < 2 * len(WATCHES):
                    await asyncio.sleep(0.05)
            for _ in range(2 * CHATS):
                assert (await client.call({"type": "chat", "query": "你好"}))["code"] == 0
            assert await lives(second)
        # Said once by each watch of each node, and not every second again.
        assert sorted(waiting(logs)) == sorted(2 * WATCHES)
        await server.start()
        assert await closed_within(client, 5) == 4003
        assert await closed_within(second, 5) == 4003
