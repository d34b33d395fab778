"""Every answer over HTTP names its request, and what goes wrong has one shape on each surface."""

import asyncio
import io
import json
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from storage.embedded import Services
from tests.clients import PATIENCE_S, UNKNOWN_ID, new_code
from tests.conftest import ModelNode
from tests.node import TestNode, serving
from tests.schemas import problems
from tests.standins.llm import stalls
from tests.standins.server import Gate
from tests.test_openapi import DOCUMENT
from wsserver.request_ids import PATTERN

ORIGIN = "https://app.example.com"
ERROR_BODY = {"$ref": "#/components/schemas/ErrorBody"}
MP_CHAT = {"message": "推荐一部电影", "user_id": "u1", "session_id": "s1"}

ANSWERS = [
    ("GET", "/health", {}, 200),
    ("HEAD", "/health", {}, 200),
    ("GET", "/ready", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/wechat/health", {}, 200),
    ("GET", "/docs", {}, 200),
    ("GET", "/openapi.json", {}, 200),
    ("GET", "/docs/static/nothing.js", {}, 404),
    ("GET", "/docs/", {}, 307),
    ("GET", "/nowhere", {}, 404),
    ("GET", "/wechat/nowhere", {}, 404),
    ("GET", "/wechat/ws", {}, 404),
    ("DELETE", "/health", {}, 405),
    ("PUT", "/api/v1/conversations", {}, 405),
    ("OPTIONS", "/api/v1/messages", {}, 405),
    ("POST", "/api/v1/messages", {"json": {"type": "ping"}}, 200),
    ("POST", "/api/v1/messages", {"json": {"type": "nothing"}}, 400),
    ("POST", "/api/v1/mp/chat/stream", {"json": MP_CHAT}, 200),
    ("POST", "/wechat/login", {"json": {"code": ""}}, 200),
    ("POST", "/api/v1/mp/movies/bulk", {"json": {"ids": []}}, 422),
    ("GET", "/api/v1/conversations", {}, 401),
]


@pytest.mark.parametrize(("method", "path", "said", "status"), ANSWERS, ids=lambda value: str(value)[:40])
async def test_every_answer_names_its_request_as_the_client_did_or_anew(
    http: httpx.AsyncClient, method: str, path: str, said: dict[str, object], status: int
) -> None:
    mine = f"{uuid.uuid4()}_.A"
    named = await http.request(method, path, headers={"X-Request-Id": mine}, **said)  # type: ignore[arg-type]
    assert (named.status_code, named.headers.get_list("x-request-id")) == (status, [mine])
    ids = {(await http.request(method, path, **said)).headers["x-request-id"] for _ in range(2)}  # type: ignore[arg-type]
    assert len(ids) == 2
    assert all(re.fullmatch(PATTERN, one) for one in ids)


@pytest.mark.parametrize("bad", ["", "a" * 65, "a b", "a\tb", "é", "a,b", '"a"', "a/b", "a\\nb"])
async def test_an_id_that_is_not_sane_is_not_taken_over(http: httpx.AsyncClient, bad: str) -> None:
    name = b"X-Request-Id"
    for headers in ([(name, bad.encode())], [(name, b"one"), (name, b"two")]):
        answer = await http.get("/nowhere", headers=httpx.Headers(headers))
        (request_id,) = answer.headers.get_list("x-request-id")
        assert re.fullmatch(PATTERN, request_id)
        assert request_id not in (bad, "one", "two")
        assert answer.json()["error"]["request_id"] == request_id


@pytest.mark.parametrize("sent", ["nonsense", "GET / HTTP/1.1\r\nX-Request-Id: a\x7f", "GET /\x00 HTTP/1.1"], ids=repr)
async def test_what_is_no_http_is_refused_in_the_same_shape(node: TestNode, sent: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.node.port)
    writer.write(f"{sent}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert (status, headers["content-type"]) == ("HTTP/1.1 400 Bad Request", "application/json")
    assert len(body) == int(headers["content-length"])
    assert problems(DOCUMENT, ERROR_BODY, json.loads(body)) == []
    assert json.loads(body)["error"].items() >= {"reason": "bad_request", "request_id": headers["x-request-id"]}.items()


async def test_the_longest_id_that_is_sane_is_taken_over(http: httpx.AsyncClient) -> None:
    longest = "a" * 64
    assert (await http.get("/health", headers={"X-Request-Id": longest})).headers["x-request-id"] == longest


async def test_a_stream_names_its_request_before_its_first_event_and_is_not_held_back(model_node: ModelNode) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "第一句"))
    async with (
        httpx.AsyncClient(base_url=model_node.url, trust_env=False, timeout=PATIENCE_S) as http,
        http.stream("POST", "/api/v1/mp/chat/stream", json=MP_CHAT, headers={"X-Request-Id": "mine"}) as response,
    ):
        assert response.headers["x-request-id"] == "mine"
        lines = response.aiter_lines()
        seen = [await anext(lines) for _ in range(4)]
        # The model has not ended, and its first words are here.
        await gate.reached.wait()
        assert '"type":"chunk"' in seen[-1]
        run_id = json.loads(seen[0].removeprefix("data: "))["content"]["request_id"]
        assert run_id != "mine"
        gate.open()
        assert '"type":"complete"' in [line async for line in lines][-2]


FAILURES = [
    ("GET", "/nowhere", {}, 404, "not_found", None),
    ("GET", "/metrics/deeper", {}, 404, "not_found", None),
    ("GET", "/docs/static/../pages.py", {}, 404, "not_found", None),
    ("POST", "/health", {}, 405, "method_not_allowed", None),
    ("PATCH", "/docs", {}, 405, "method_not_allowed", None),
    ("GET", "/api/v1/messages", {}, 405, "method_not_allowed", None),
    ("GET", "/api/v1/conversations", {}, 401, "login_required", None),
    ("GET", f"/api/v1/conversations/{UNKNOWN_ID}?user_id=u1", {}, 404, "conversation_not_found", None),
    ("GET", "/api/v1/streams/unknown?user_id=u1", {}, 404, "run_not_found", None),
    ("GET", "/api/v1/mp/movies/999999999", {}, 404, "movie_not_found_in_db", None),
    ("GET", "/api/v1/mp/movies/zero", {}, 422, "invalid_field", "tmdb_id"),
    ("POST", "/api/v1/feedback", {"json": {"rating": 3, "user_id": "u1"}}, 422, "invalid_field", "message_id"),
    ("POST", "/api/v1/mp/movies/bulk", {"content": b"{"}, 400, "bad_json", None),
    ("POST", "/api/v1/mp/movies/bulk", {"content": b"a" * 65_537}, 413, "too_large", None),
    ("POST", "/api/v1/mp/movies/bulk", {"data": {"ids": "1"}}, 415, "unsupported_media_type", None),
]


@pytest.mark.parametrize(("method", "path", "said", "status", "reason", "field"), FAILURES)
async def test_what_goes_wrong_is_json_of_one_shape(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    said: dict[str, object],
    status: int,
    reason: str,
    field: str | None,
) -> None:
    answer = await http.request(method, path, headers={"Accept": "text/html"}, **said)  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert problems(DOCUMENT, ERROR_BODY, answer.json()) == []
    error = answer.json()["error"]
    assert (error["code"], error["reason"], error.get("field")) == (status, reason, field)
    assert error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [("GET", "/wechat/nowhere", 404, "not_found"), ("GET", "/wechat/login", 405, "method_not_allowed")],
)
async def test_wechats_pages_get_their_envelope_where_no_route_is_too(
    http: httpx.AsyncClient, method: str, path: str, status: int, reason: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert problems(DOCUMENT, {"$ref": "#/components/schemas/ErrorEnvelope"}, answer.json()) == []
    assert (answer.json()["code"], answer.json()["reason"]) == (status, reason)


async def test_what_is_somebody_elses_is_not_found_as_what_is_not_there(http: httpx.AsyncClient) -> None:
    mine, other = {"X-User-ID": uuid.uuid4().hex}, {"X-User-ID": uuid.uuid4().hex}
    made = (await http.post("/api/v1/conversations", headers=mine)).json()["id"]
    for conversation_id in (made, uuid.uuid4()):
        refused = await http.get(f"/api/v1/conversations/{conversation_id}", headers=other)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "conversation_not_found")


async def test_a_limit_says_so_and_when_to_come_back(services: Services, data_dir: Path) -> None:
    async with (
        serving(services, data_dir, rate_limit_loopback=True, rate_limit_logins_per_min=1) as limited,
        httpx.AsyncClient(base_url=limited.url, trust_env=False) as http,
    ):
        for expected in (200, 429):
            answer = await http.post("/api/v1/messages", json={"type": "login", "code": new_code()})
            assert answer.status_code == expected
        assert (answer.json()["reason"], answer.headers["retry-after"].isdigit()) == ("rate_limited", True)


async def test_a_server_that_breaks_says_neither_where_nor_how(
    node: TestNode, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    def broken() -> bytes:
        raise RuntimeError("the innermost secret")

    monkeypatch.setattr(node.node.sockets.metrics, "text", broken)
    answer = await http.get("/metrics", headers={"X-Request-Id": "broken-1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "broken-1")
    assert answer.json()["error"].items() >= {"reason": "internal", "request_id": "broken-1"}.items()
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    (told,) = [line for line in lines if "the innermost secret" in str(line)]
    assert told["http_request_id"] == "broken-1"
    assert "in broken" in told["exception"]


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_failure_of_ours(
    node: TestNode, logged: io.StringIO
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.node.port)
    head = "POST /wechat/chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Request-Id: left-1\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""
        while node.node.uvicorn.server_state.tasks:
            await asyncio.sleep(0.01)
    writer.close()
    assert "left-1" not in logged.getvalue()


async def test_what_is_logged_of_a_request_and_of_its_run_has_its_id(
    http: httpx.AsyncClient, logged: io.StringIO
) -> None:
    headers = {"X-Request-Id": uuid.uuid4().hex}
    answer = await http.post("/wechat/chat", json={"query": "你好", "openid": "o1"}, headers=headers)
    await http.post("/wechat/chat", json={"query": "你好", "openid": "o1"})
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    mine = [line for line in lines if line.get("http_request_id") == headers["X-Request-Id"]]
    assert {"operation", "run ended"} <= {line["event"] for line in mine}
    (ended,) = [line for line in mine if line["event"] == "run ended"]
    assert ended["request_id"] == answer.json()["data"]["request_id"]


@pytest.fixture
async def listed(services: Services, data_dir: Path) -> AsyncIterator[TestNode]:
    """A server that pages of ORIGIN may use."""
    async with serving(services, data_dir, cors_origins=[ORIGIN]) as node:
        yield node


async def test_pages_of_listed_origins_may_send_the_id_and_read_it(
    listed: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    async with httpx.AsyncClient(base_url=listed.url, trust_env=False) as http:
        wish = asked | {"Access-Control-Request-Headers": "x-request-id,content-type", "X-Request-Id": "preflight-1"}
        preflight = await http.options("/api/v1/messages", headers=wish)
        assert preflight.status_code == 200
        assert preflight.headers["x-request-id"] == "preflight-1"
        assert "x-request-id" in preflight.headers["access-control-allow-headers"].lower()
        refused = await http.options("/api/v1/messages", headers=wish | {"Origin": "https://evil.example"})
        assert (refused.status_code, refused.headers["x-request-id"]) == (400, "preflight-1")
        monkeypatch.setattr(listed.node.sockets.metrics, "text", None)
        for path, status in (("/health", 200), ("/nowhere", 404), ("/metrics", 500)):
            answer = await http.get(path, headers={"Origin": ORIGIN})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
            exposed = answer.headers["access-control-expose-headers"].lower()
            assert {"x-request-id", "retry-after"} <= set(exposed.split(", "))
            assert answer.headers["x-request-id"]
