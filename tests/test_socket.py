"""The socket: greeting, login, refresh, logout, pings, concurrency, and who may open it; straight and through ASGI."""

import asyncio
import json
import time
import uuid

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.clients import SocketClient, new_code, socket_client, text_of
from tests.conftest import ModelNode
from tests.node import TestNode
from tests.standins.wechat import bad_gateway
from wsserver.auth import CLOCK_SKEW_S


@pytest.fixture(scope="module", params=["direct", "asgi"])
def node(request: pytest.FixtureRequest, node: TestNode, asgi_node: TestNode) -> TestNode:
    """The server of both kinds: messages straight from the transport, and through ASGI."""
    return node if request.param == "direct" else asgi_node


@pytest.mark.parametrize("path", ["/wechat/ws", "/ws"])
async def test_a_socket_is_greeted_with_what_its_client_must_know(node: TestNode, path: str) -> None:
    async with connect(node.url.replace("http", "ws") + path, proxy=None) as socket:
        greeting = json.loads(await socket.recv())
    assert {key: greeting[key] for key in ("type", "code", "message", "data")} == {
        "type": "connected",
        "code": 0,
        "message": "连接成功",
        "data": None,
    }
    assert greeting["server"].keys() == {"connection_id", "ping_interval_s", "resume_window_s", "max_message_bytes"}
    assert greeting["server"]["max_message_bytes"] == 65_536


async def test_an_offered_subprotocol_is_accepted_and_none_is_needed(node: TestNode) -> None:
    async with socket_client(node.url, subprotocols=["other", "cinewire.v1"]) as client:
        assert client.socket.subprotocol == "cinewire.v1"
    async with socket_client(node.url) as client:
        assert client.socket.subprotocol is None


async def test_a_ping_is_answered_before_login(node: TestNode) -> None:
    async with socket_client(node.url) as client:
        assert await client.call({"type": "ping"}) == {"type": "pong", "code": 0, "message": "pong", "data": None}
        assert await client.call({"type": "ping", "id": "p1"}) == {
            "type": "pong",
            "code": 0,
            "message": "pong",
            "data": None,
            "id": "p1",
        }


async def test_login_gives_an_identity_and_a_token(node: TestNode) -> None:
    async with socket_client(node.url) as client:
        reply = await client.login()
    assert reply["type"] == "login_response"
    assert reply["message"] == "登录成功"
    assert reply["data"].keys() == {"openid", "session_id", "token", "expires_in"}
    assert reply["data"]["expires_in"] == 7 * 86_400


async def test_the_same_code_leads_to_the_same_session_even_when_sent_twice_at_once(node: TestNode) -> None:
    code = new_code()
    async with socket_client(node.url) as one, socket_client(node.url) as two:
        first, second = await asyncio.gather(one.login(code), two.login(code))
        again = await one.login(code)
    assert first["data"]["session_id"] == second["data"]["session_id"] == again["data"]["session_id"]
    assert first["data"]["openid"] == again["data"]["openid"]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "chat", "query": "你好"},
        {"type": "history"},
        {"type": "movies_bulk", "ids": [603]},
        {"type": "movie_detail", "tmdb_id": 603},
        {"type": "movies_feed", "feed": "popular"},
        {"type": "movies_search", "query": "matrix"},
        {"type": "logout"},
    ],
)
async def test_before_login_everything_else_is_refused(node: TestNode, message: dict[str, object]) -> None:
    async with socket_client(node.url) as client:
        error = await client.call(message | {"id": "x"})
        assert (error["type"], error["code"], error["reason"], error["message"], error["id"]) == (
            "error",
            401,
            "login_required",
            "请先登录",
            "x",
        )
        assert (await client.call({"type": "ping"}))["type"] == "pong"


async def test_a_token_logs_in_and_is_refreshed_in_the_middle_of_a_stream(client: SocketClient, node: TestNode) -> None:
    async with socket_client(node.url) as other:
        reply = await other.call({"type": "auth", "token": client.token})
        assert reply["type"] == "auth_response"
        assert reply["data"]["openid"] == client.openid
        assert reply["data"]["session_id"] == client.session_id
        await other.send({"type": "chat", "query": "推荐几部科幻片", "stream": True})
        await other.send({"type": "auth", "token": reply["data"]["token"], "id": "refresh"})
        frames = await other.receive_until("complete", "error")
        if not any(frame["type"] == "auth_response" for frame in frames):
            frames += await other.receive_until("auth_response")
    assert text_of(frames)
    assert [frame["code"] for frame in frames if frame["type"] == "auth_response"] == [0]


async def test_a_token_that_was_good_before_expires_all_the_same(
    client: SocketClient, node: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with socket_client(node.url) as other:
        assert (await other.call({"type": "auth", "token": client.token}))["code"] == 0
        later = time.time() + node.settings.token_ttl_s + CLOCK_SKEW_S
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: later)
            refused = await other.call({"type": "auth", "token": client.token})
        assert (refused["code"], refused["reason"]) == (401, "token_expired")


async def test_a_token_in_the_handshake_logs_in(client: SocketClient, node: TestNode) -> None:
    header = {"Authorization": f"Bearer {client.token}"}
    async with socket_client(node.url, additional_headers=header) as other:
        assert (await other.call({"type": "history"}))["code"] == 0


async def test_a_bad_token_in_the_handshake_is_said_and_leaves_the_socket_open(node: TestNode) -> None:
    async with socket_client(node.url, additional_headers={"Authorization": "Bearer nonsense"}) as client:
        error = await client.receive()
        assert (error["type"], error["code"], error["reason"]) == ("error", 401, "token_invalid")
        assert (await client.login())["code"] == 0


async def test_logout_ends_the_session_its_tokens_and_its_sockets(client: SocketClient, node: TestNode) -> None:
    async with socket_client(node.url) as second:
        await second.call({"type": "auth", "token": client.token})
        assert await client.call({"type": "logout", "id": "bye"}) == {
            "type": "logout_response",
            "code": 0,
            "message": "已退出登录",
            "data": None,
            "id": "bye",
        }
        assert await client.closed() == 4003
        assert await second.closed() == 4003
    async with socket_client(node.url) as third:
        refused = await third.call({"type": "auth", "token": client.token})
        assert (refused["type"], refused["code"], refused["reason"]) == ("auth_response", 401, "session_revoked")


async def test_a_code_whose_session_was_ended_does_not_bring_it_back(model_node: ModelNode) -> None:
    code = model_node.wechat.issue_code()
    async with socket_client(model_node.url) as client:
        await client.login(code)
        await client.call({"type": "logout"})
    async with socket_client(model_node.url) as client:
        refused = await client.call({"type": "login", "code": code})
    assert (refused["type"], refused["code"], refused["reason"]) == ("login_response", 401, "login_code_invalid")


async def test_the_local_login_takes_any_code_again_for_the_same_person_and_a_new_session(node: TestNode) -> None:
    code = new_code()
    async with socket_client(node.url) as client:
        first = await client.login(code)
        await client.call({"type": "logout"})
    async with socket_client(node.url) as client:
        second = await client.login(code)
    assert first["data"]["openid"] == second["data"]["openid"]
    assert first["data"]["session_id"] != second["data"]["session_id"]


async def test_a_login_whose_reply_was_lost_is_repeated_with_the_same_code(model_node: ModelNode) -> None:
    code = model_node.wechat.issue_code()
    async with socket_client(model_node.url) as client:
        await client.send({"type": "login", "code": code})
    async with socket_client(model_node.url) as client:
        assert (await client.login(code))["code"] == 0
    assert len(model_node.wechat.calls) == 1


async def test_wechats_outage_is_an_error_that_says_to_retry_and_the_next_code_works(model_node: ModelNode) -> None:
    model_node.wechat.queue(bad_gateway())
    async with socket_client(model_node.url) as client:
        error = await client.call({"type": "login", "code": model_node.wechat.issue_code(), "id": "l"})
        assert (error["type"], error["code"], error["reason"], error["retryable"], error["id"]) == (
            "login_response",
            502,
            "wechat_unavailable",
            True,
            "l",
        )
        assert (await client.login(model_node.wechat.issue_code()))["code"] == 0


async def test_an_unknown_type_is_named_and_leaves_the_socket_open(client: SocketClient) -> None:
    error = await client.call({"type": "teleport", "id": "t"})
    assert (error["code"], error["reason"], error["id"]) == (400, "unknown_type", "t")
    assert "teleport" in error["message"]
    assert (await client.call({"type": "ping"}))["type"] == "pong"


async def test_a_page_from_elsewhere_may_not_open_a_socket(node: TestNode) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket_client(node.url, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("origin", ["https://servicewechat.com", None])
async def test_mini_programs_and_scripts_may_open_a_socket(node: TestNode, origin: str | None) -> None:
    async with socket_client(node.url, origin=origin) as client:
        assert (await client.call({"type": "ping"}))["type"] == "pong"


async def test_a_page_of_the_server_itself_may_open_a_socket(node: TestNode) -> None:
    async with socket_client(node.url, origin=node.url) as client:
        assert (await client.call({"type": "ping"}))["type"] == "pong"


async def test_a_socket_that_becomes_somebody_else_gets_nothing_of_who_it_was(node: TestNode) -> None:
    async with socket_client(node.url) as client:
        await client.login()
        secret = f"秘密-{uuid.uuid4().hex}"
        await client.call({"type": "chat", "query": secret})
        await client.login()
        history = await client.call({"type": "history"})
    assert history["data"] == {"items": [], "next_before": None}


async def test_an_answer_for_one_user_is_not_delivered_after_the_socket_changed_hands(node: TestNode) -> None:
    async with socket_client(node.url) as client:
        await client.login()
        await client.send({"type": "chat", "query": "推荐几部科幻片", "stream": True, "id": "of-the-first"})
        await client.send({"type": "login", "code": new_code(), "id": "second"})
        frames = await client.receive_until("login_response")
        assert frames[-1]["id"] == "second"
        await client.send({"type": "ping", "id": "after"})
        after = await client.receive_until("pong")
    assert [frame for frame in after if frame.get("id") == "of-the-first"] == []
