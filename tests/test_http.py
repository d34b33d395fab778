"""The routes of older APIs, in their exact shapes, and how HTTP refuses."""

import uuid
from pathlib import Path

import httpx
import pytest

from storage.embedded import Services
from tests.clients import events, new_code
from tests.node import serving
from tests.standins.llm import LLMStandIn, stalls
from tests.standins.server import Gate, serve

MP_CHAT = {
    "message": "推荐几部近期热门的电影",
    "user_id": "u1",
    "session_id": "s1",
    "kb_prefix": "movie",
    "debug": False,
}


async def test_the_mini_programs_chat_streams_typed_frames(http: httpx.AsyncClient) -> None:
    async with http.stream(
        "POST", "/api/v1/mp/chat/stream", json=MP_CHAT, headers={"Accept": "text/event-stream"}
    ) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        frames = [frame async for frame in events(response)]
    assert frames[0]["type"] == "generate_start"
    assert frames[0]["content"]["request_id"]
    types = [frame["type"] for frame in frames]
    assert "chunk" in types
    assert types.count("recommendations") == 1
    assert types[-1] == "complete"
    assert frames[-1]["content"] is None
    assert frames[-1]["answer"]


async def test_every_event_carries_its_seq_as_its_id(http: httpx.AsyncClient) -> None:
    response = await http.post("/api/v1/mp/chat/stream", json=MP_CHAT)
    ids = [int(line.removeprefix("id: ")) for line in response.text.splitlines() if line.startswith("id: ")]
    assert ids == list(range(1, len(ids) + 1))
    assert response.text.isascii()
    assert response.text.endswith("\n\n")


async def test_older_web_pages_get_status_events(http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/api/v1/chat/stream", json=MP_CHAT) as response:
        frames = [frame async for frame in events(response)]
    statuses = [frame["status"] for frame in frames]
    assert statuses[0] == "start"
    assert statuses[-1] == "done"
    assert set(statuses) == {"start", "token", "recommendations", "done"}
    assert frames[0]["content"]["request_id"]
    assert "".join(frame["content"] for frame in frames if frame["status"] == "token") == frames[-1]["answer"]


async def test_a_silent_stream_is_kept_open_by_comments(services: Services, data_dir: Path) -> None:
    model, silence = LLMStandIn(), Gate()
    model.queue(stalls(silence))
    async with (
        serve(model.app) as model_url,
        serving(
            services, data_dir, llm_base_url=[f"{model_url}/v1"], llm_model=["silent"], sse_heartbeat_s=0.1
        ) as quiet,
        httpx.AsyncClient(base_url=quiet.url, trust_env=False) as http,
        http.stream("POST", "/api/v1/mp/chat/stream", json=MP_CHAT) as response,
    ):
        lines = response.aiter_lines()
        seen = [await anext(lines) for _ in range(6)]
        assert seen[0].startswith('data: {"type":"generate_start"')
        assert seen[2:] == [": ping", "", ": ping", ""]
        silence.open()
        rest = [line async for line in lines]
    assert '"type":"complete"' in rest[-2]


async def test_films_by_id_keep_their_order_and_name_the_missing(http: httpx.AsyncClient) -> None:
    response = await http.post("/api/v1/mp/movies/bulk", json={"ids": [27205, 603, 999_999_999, 27205, 13]})
    body = response.json()
    assert body.keys() == {"items", "missing_ids"}
    assert [item["tmdb_id"] for item in body["items"]] == [27205, 603, 13]
    assert body["missing_ids"] == [999_999_999]
    matrix = body["items"][1]
    assert matrix.keys() == {
        "tmdb_id",
        "title",
        "release_date",
        "year",
        "poster_url",
        "vote_average",
        "vote_count",
        "genres",
        "directors",
        "top_cast",
    }
    assert (matrix["title"], matrix["release_date"], matrix["year"]) == ("黑客帝国", "1999-03-30", 1999)
    assert matrix["poster_url"] is None
    assert body["items"][2]["poster_url"] == "https://image.tmdb.org/t/p/w500/saHP97rTPS5eLmrLQEcANmKrsFl.jpg"
    assert matrix["directors"] == ["Lana Wachowski", "Lilly Wachowski"]
    assert matrix["top_cast"][0] == "Keanu Reeves"


async def test_a_films_page_has_everything(http: httpx.AsyncClient) -> None:
    response = await http.get("/api/v1/mp/movies/603")
    movie = response.json()["movie"]
    assert (movie["tmdb_id"], movie["original_title"], movie["runtime"]) == (603, "The Matrix", 136)
    assert movie["overview"]
    gump = (await http.get("/api/v1/mp/movies/13")).json()["movie"]
    assert gump["backdrop_url"].startswith("https://image.tmdb.org/t/p/w780/")
    assert {"name": "Keanu Reeves", "character": "Neo"} in movie["cast"]
    assert {"name": "Lana Wachowski", "job": "Director"} in movie["crew"]


async def test_a_film_that_is_not_there_is_a_404_that_says_so(http: httpx.AsyncClient) -> None:
    response = await http.get("/api/v1/mp/movies/999999999")
    assert response.status_code == 404
    assert response.json()["error"]["reason"] == "movie_not_found_in_db"


async def test_the_feed_is_stable_and_paged_to_its_end(http: httpx.AsyncClient) -> None:
    seen: list[int] = []
    offset: int | None = 0
    while offset is not None:
        page = (await http.get(f"/api/v1/mp/movies/feed?type=popular&limit=50&offset={offset}")).json()
        seen += [item["tmdb_id"] for item in page["items"]]
        offset = page["next_offset"]
    assert len(seen) == len(set(seen)) >= 200
    again = (await http.get("/api/v1/mp/movies/feed?type=popular")).json()
    assert [item["tmdb_id"] for item in again["items"]] == seen[:20]
    assert again["next_offset"] == 20


async def test_wechats_login_and_chat_keep_their_envelopes(http: httpx.AsyncClient) -> None:
    login = (await http.post("/wechat/login", json={"code": new_code()})).json()
    assert (login["code"], login["message"]) == (0, "登录成功")
    openid = login["data"]["openid"]
    chat = await http.post("/wechat/chat", json={"query": "你好", "openid": openid, "use_auto_rag": False})
    assert chat.status_code == 200
    assert (chat.json()["code"], chat.json()["message"]) == (0, "成功")
    assert chat.json()["data"].keys() >= {"msg", "id", "session_id"}
    alone = (await http.post("/wechat/chat", json={"query": "你好"})).json()
    assert alone["code"] == 0
    health = (await http.get("/wechat/health")).json()
    assert (health["code"], health["message"]) == (0, "服务正常")
    assert health["timestamp"]


async def test_wechats_envelope_says_failures_with_http_200(http: httpx.AsyncClient) -> None:
    for path, body, code in (
        ("/wechat/login", {"code": ""}, 400),
        ("/wechat/chat", {}, 400),
        ("/wechat/chat", {"query": "长" * 8_001}, 400),
    ):
        response = await http.post(path, json=body)
        assert response.status_code == 200
        assert (response.json()["code"], response.json()["data"]) == (code, None)
        assert response.json()["message"]


async def test_an_openid_without_a_token_is_a_guests_name_and_reaches_no_users_data(http: httpx.AsyncClient) -> None:
    login = (await http.post("/wechat/login", json={"code": new_code()})).json()["data"]
    bearer = {"Authorization": f"Bearer {login['token']}"}
    mine = await http.post("/wechat/chat", json={"query": "用户的秘密"}, headers=bearer)
    guest = await http.post("/wechat/chat", json={"query": "你好", "openid": login["openid"]})
    assert mine.json()["data"]["conversation_id"] != guest.json()["data"]["conversation_id"]
    history = await http.post("/api/v1/messages", json={"type": "history"}, headers=bearer)
    assert [item["content"] for item in history.json()["data"]["items"] if item["role"] == "user"] == ["用户的秘密"]
    stolen = {"type": "history", "conversation_id": mine.json()["data"]["conversation_id"]}
    refused = await http.post("/api/v1/messages", json=stolen, headers={"X-User-ID": login["openid"]})
    assert (refused.status_code, refused.json()["reason"]) == (404, "conversation_not_found")


async def test_guests_of_different_apis_with_the_same_name_are_different(http: httpx.AsyncClient) -> None:
    name = uuid.uuid4().hex
    await http.post("/wechat/chat", json={"query": "公开的", "openid": name})
    history = await http.post("/api/v1/messages", json={"type": "history"}, headers={"X-User-ID": name})
    assert history.json()["data"]["items"] == []


async def test_each_session_of_a_guest_is_a_conversation_of_its_own(http: httpx.AsyncClient) -> None:
    name = uuid.uuid4().hex

    async def conversation(session_id: str) -> str:
        body = MP_CHAT | {"user_id": name, "session_id": session_id}
        async with http.stream("POST", "/api/v1/mp/chat/stream", json=body) as response:
            frames = [frame async for frame in events(response)]
        return str(frames[0]["content"]["conversation_id"])

    assert await conversation("a") == await conversation("a") != await conversation("b")


@pytest.mark.parametrize("path", ["/api/v1/chat/stream", "/api/v1/mp/chat/stream"])
async def test_a_guests_answer_is_asked_for_again_and_resumed_and_listed(http: httpx.AsyncClient, path: str) -> None:
    guest = {"user_id": uuid.uuid4().hex}
    streams = []
    for _ in range(2):
        body = {**guest, "message": "推荐三部诺兰导演的电影", "session_id": "s", "id": "q1"}
        async with http.stream("POST", path, json=body) as response:
            streams.append([frame async for frame in events(response)])
    first, again = streams
    assert again == first
    request_id = first[0]["content"]["request_id"]
    resume = f"/api/v1/streams/{request_id}"
    async with http.stream("GET", resume, params={**guest, "after_seq": 1}) as response:
        rest = [frame async for frame in events(response)]
    assert [frame["seq"] for frame in rest[1:]] == [frame["seq"] for frame in first[2:]]
    assert rest[-1]["answer"] == first[-1]["answer"]
    for stranger in ({}, {"user_id": uuid.uuid4().hex}):
        refused = await http.get(resume, params=stranger)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "run_not_found")
    listed = (await http.get("/api/v1/conversations", params=guest)).json()["items"]
    assert [item["id"] for item in listed] == [first[0]["content"]["conversation_id"]]


async def test_guests_can_be_switched_off(services: Services, data_dir: Path) -> None:
    async with (
        serving(services, data_dir, allow_guests=False) as closed,
        httpx.AsyncClient(base_url=closed.url, trust_env=False) as http,
    ):
        refused = await http.post("/api/v1/mp/chat/stream", json=MP_CHAT)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (401, "guests_off")
        assert refused.headers["www-authenticate"] == "Bearer"
        token = (await http.post("/wechat/login", json={"code": new_code()})).json()["data"]["token"]
        allowed = await http.get("/api/v1/mp/movies/603", headers={"Authorization": f"Bearer {token}"})
        assert allowed.status_code == 200


async def test_a_bad_token_is_never_overlooked(http: httpx.AsyncClient) -> None:
    response = await http.post("/api/v1/mp/chat/stream", json=MP_CHAT, headers={"Authorization": "Bearer x.y.z"})
    assert (response.status_code, response.json()["error"]["reason"]) == (401, "token_invalid")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/api/v1/mp/movies/bulk", '{"ids":[]}', 422, "ids"),
        ("POST", "/api/v1/mp/movies/bulk", '{"ids":["603"]}', 422, "ids.0"),
        ("POST", "/api/v1/mp/movies/bulk", '{"ids":[1],"ids":[2]}', 400, "ids"),
        ("POST", "/api/v1/mp/movies/bulk", "nonsense", 400, None),
        ("POST", "/api/v1/mp/movies/bulk", "[603]", 400, None),
        ("POST", "/api/v1/mp/chat/stream", '{"message":"a"}', 422, "user_id"),
        ("POST", "/api/v1/mp/chat/stream", '{"message":"","user_id":"a","session_id":"b"}', 422, "message"),
        ("GET", "/api/v1/mp/movies/zero", "", 422, "tmdb_id"),
        ("GET", "/api/v1/mp/movies/0", "", 422, "tmdb_id"),
        ("GET", "/api/v1/mp/movies/feed", "", 422, "type"),
        ("GET", "/api/v1/mp/movies/feed?type=best", "", 422, "type"),
        ("GET", "/api/v1/mp/movies/feed?type=popular&limit=0", "", 422, "limit"),
        ("GET", "/api/v1/mp/movies/feed?type=popular&limit=51", "", 422, "limit"),
        ("GET", "/api/v1/mp/movies/feed?type=popular&offset=x", "", 422, "offset"),
    ],
)
async def test_bad_requests_name_the_field(
    http: httpx.AsyncClient, method: str, path: str, body: str, status: int, field: str | None
) -> None:
    response = await http.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    error = response.json()["error"]
    assert error.get("field") == field
    assert error["message"]


async def test_bodies_that_are_too_long_or_not_json_are_refused(http: httpx.AsyncClient) -> None:
    huge = await http.post("/api/v1/messages", json={"type": "ping", "x": "a" * 65_536})
    assert (huge.status_code, huge.json()["reason"]) == (413, "too_large")
    form = await http.post("/api/v1/messages", data={"type": "ping"})
    assert (form.status_code, form.json()["reason"]) == (415, "unsupported_media_type")
    latin = await http.post(
        "/api/v1/messages", content=b'{"type":"\xff"}', headers={"Content-Type": "application/json"}
    )
    assert (latin.status_code, latin.json()["reason"]) == (400, "bad_json")


async def test_what_no_route_takes_is_json_too(http: httpx.AsyncClient) -> None:
    missing = await http.get("/nowhere")
    assert (missing.status_code, missing.json()["error"]["reason"]) == (404, "not_found")
    wrong = await http.get("/api/v1/messages")
    assert (wrong.status_code, wrong.json()["error"]["reason"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


async def test_operators_can_see_how_it_stands(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).json() == {"status": "ok"}
    ready = await http.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "postgres": True, "redis": True, "accepting": True}
    await http.post("/api/v1/messages", json={"type": "ping"})
    metrics = (await http.get("/metrics")).text
    assert 'cinewire_operation_seconds_count{operation="ping",outcome="ok"}' in metrics


async def test_only_listed_origins_may_read_answers(services: Services, data_dir: Path) -> None:
    async with (
        serving(services, data_dir, cors_origins=["https://app.example.com"]) as node,
        httpx.AsyncClient(base_url=node.url, trust_env=False) as http,
    ):
        for origin, allowed in (
            ("https://app.example.com", "https://app.example.com"),
            ("https://evil.example", None),
            ("null", None),
        ):
            response = await http.get("/health", headers={"Origin": origin})
            assert response.headers.get("access-control-allow-origin") == allowed
        preflight = await http.options(
            "/api/v1/messages",
            headers={
                "Origin": "https://app.example.com",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
    async with (
        serving(services, data_dir, cors_origins=["null"]) as node,
        httpx.AsyncClient(base_url=node.url, trust_env=False) as http,
    ):
        response = await http.get("/health", headers={"Origin": "null"})
        assert response.headers["access-control-allow-origin"] == "null"
