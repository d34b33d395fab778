"""What is not a request gets a clear error with the field named, and harms nobody."""

import contextlib
import json
from pathlib import Path

import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from storage.embedded import Services
from tests.clients import SocketClient, Transport, socket_client
from tests.node import TestNode, serving

BAD_MESSAGES = [
    ("not json", "bad_json", None),
    ("", "bad_json", None),
    ("{", "bad_json", None),
    ("[]", "not_an_object", None),
    ("null", "not_an_object", None),
    ('"ping"', "not_an_object", None),
    ("[" * 30_000, "bad_json", None),
    ('{"type":"ping","x":' + "[" * 3_000 + "]" * 3_000 + "}", "bad_json", None),
    ("{}", "invalid_field", "type"),
    ('{"type":1}', "invalid_field", "type"),
    ('{"type":null}', "invalid_field", "type"),
    ('{"type":"ping","type":"ping"}', "duplicate_key", "type"),
    ('{"type":"ping","id":"a","id":"b"}', "duplicate_key", "id"),
    ('{"type":"ping","id":7}', "invalid_field", "id"),
    ('{"type":"ping","id":""}', "invalid_field", "id"),
    (json.dumps({"type": "ping", "id": "x" * 65}), "invalid_field", "id"),
    ('{"type":"chat"}', "invalid_field", "query"),
    ('{"type":"chat","query":""}', "invalid_field", "query"),
    ('{"type":"chat","query":" \\n\\u3000"}', "invalid_field", "query"),
    ('{"type":"chat","query":5}', "invalid_field", "query"),
    ('{"type":"chat","query":null}', "invalid_field", "query"),
    (json.dumps({"type": "chat", "query": "长" * 8_001}), "invalid_field", "query"),
    ('{"type":"chat","query":"a\\u0000b"}', "invalid_field", "query"),
    ('{"type":"chat","query":"a\\ud800b"}', "invalid_field", "query"),
    ('{"type":"chat","query":"a","stream":"yes"}', "invalid_field", "stream"),
    ('{"type":"chat","query":"a","conversation_id":"mine"}', "invalid_field", "conversation_id"),
    ('{"type":"history","limit":0}', "invalid_field", "limit"),
    ('{"type":"history","limit":201}', "invalid_field", "limit"),
    ('{"type":"history","limit":1.5}', "invalid_field", "limit"),
    ('{"type":"history","before":"yesterday"}', "invalid_field", "before"),
    ('{"type":"movies_bulk"}', "invalid_field", "ids"),
    ('{"type":"movies_bulk","ids":[]}', "invalid_field", "ids"),
    ('{"type":"movies_bulk","ids":603}', "invalid_field", "ids"),
    ('{"type":"movies_bulk","ids":[0]}', "invalid_field", "ids.0"),
    ('{"type":"movies_bulk","ids":[603,-1]}', "invalid_field", "ids.1"),
    ('{"type":"movies_bulk","ids":["603"]}', "invalid_field", "ids.0"),
    ('{"type":"movies_bulk","ids":[true]}', "invalid_field", "ids.0"),
    ('{"type":"movies_bulk","ids":[603.5]}', "invalid_field", "ids.0"),
    ('{"type":"movies_bulk","ids":[99999999999]}', "invalid_field", "ids.0"),
    (json.dumps({"type": "movies_bulk", "ids": list(range(1, 10_001))}), "invalid_field", "ids"),
    (json.dumps({"type": "movies_bulk", "ids": list(range(1, 52))}), "invalid_field", "ids"),
    ('{"type":"movie_detail","tmdb_id":0}', "invalid_field", "tmdb_id"),
    ('{"type":"movie_detail"}', "invalid_field", "tmdb_id"),
    ('{"type":"movies_feed","feed":"best"}', "invalid_field", "feed"),
    ('{"type":"movies_feed","feed":"popular","limit":51}', "invalid_field", "limit"),
    ('{"type":"movies_feed","feed":"popular","offset":-1}', "invalid_field", "offset"),
    ('{"type":"movies_search"}', "invalid_field", "query"),
    (json.dumps({"type": "movies_search", "query": "长" * 101}), "invalid_field", "query"),
    ('{"type":"movies_search","query":"a","limit":51}', "invalid_field", "limit"),
    ('{"type":"login"}', "invalid_field", "code"),
    ('{"type":"login","code":""}', "invalid_field", "code"),
    (json.dumps({"type": "login", "code": "x" * 257}), "invalid_field", "code"),
    ('{"type":"auth","token":""}', "invalid_field", "token"),
]


@pytest.mark.parametrize(("text", "reason", "field"), BAD_MESSAGES, ids=lambda value: str(value)[:40])
async def test_bad_messages_are_explained_and_leave_the_socket_open(
    client: SocketClient, text: str, reason: str, field: str | None
) -> None:
    error = await client.call_text(text)
    assert (error["type"], error["code"], error["reason"], error["retryable"]) == ("error", 400, reason, False)
    assert error.get("field") == field
    assert error["data"] is None
    assert error["content"] == {"message": error["message"]}
    if field is not None:
        assert field.split(".")[0] in error["message"]
    assert (await client.call({"type": "ping"}))["type"] == "pong"


async def test_the_id_of_a_bad_message_is_echoed(client: SocketClient) -> None:
    error = await client.call({"type": "movies_bulk", "ids": [], "id": "b7"})
    assert (error["reason"], error["id"]) == ("invalid_field", "b7")


@pytest.mark.parametrize("bad_id", ["", "x" * 65, "a\x00b", 7])
async def test_what_is_no_id_is_not_echoed(transport: Transport, bad_id: object) -> None:
    error = await transport.call({"type": "ping", "id": bad_id})
    assert (error["reason"], error["field"]) == ("invalid_field", "id")
    assert "id" not in error


async def test_ten_bad_messages_in_a_row_close_the_socket(client: SocketClient) -> None:
    for _ in range(10):
        await client.send("{")
    assert [(await client.receive())["reason"] for _ in range(10)] == ["bad_json"] * 10
    assert await client.closed() == 4002


async def test_a_good_message_forgives_nine_bad_ones(client: SocketClient) -> None:
    for _ in range(2):
        for _ in range(9):
            assert (await client.call_text("{"))["reason"] == "bad_json"
        assert (await client.call({"type": "ping"}))["type"] == "pong"


async def test_a_binary_frame_is_refused_and_leaves_the_socket_open(client: SocketClient) -> None:
    await client.send(b'{"type":"ping"}')
    assert (await client.receive())["reason"] == "binary_refused"
    assert (await client.call({"type": "ping"}))["type"] == "pong"


async def test_a_message_one_byte_too_long_closes_the_socket_with_1009(client: SocketClient) -> None:
    fits = '{"type":"ping","x":"' + "a" * (65_536 - 22) + '"}'
    assert len(fits) == 65_536
    assert (await client.call_text(fits))["type"] == "pong"
    with pytest.raises(ConnectionClosed):
        await client.call_text(fits.replace("a", "aa", 1))
    assert await client.closed() == 1009


async def test_too_many_messages_are_limited_and_in_the_end_refused(services: Services, data_dir: Path) -> None:
    frames = []
    async with serving(services, data_dir, rate_limit_burst=40) as limited, socket_client(limited.url) as client:
        # On a busy machine the bucket fills again in between: what closes the socket is ten in a row.
        with contextlib.suppress(ConnectionClosed):
            for _ in range(5_000):
                await client.send({"type": "ping"})
        with contextlib.suppress(ConnectionClosed):
            while True:
                frames.append(await client.receive())
        assert await client.closed() == 4006
    # Those that came all at once may be too many in flight too.
    refused = [frame for frame in frames if frame["type"] == "error"][-10:]
    assert [(frame["code"], frame["reason"], frame["retryable"]) for frame in refused] == [
        (429, "rate_limited", True)
    ] * 10
    assert all(frame["retry_after_ms"] > 0 for frame in refused)


def forged(node_secret: str, **claims: object) -> str:
    good = {"iss": "cinewire", "aud": "cinewire", "sub": "wx_a", "sid": "s", "jti": "j", "iat": 1, "exp": 4_000_000_000}
    return jwt.encode(good | claims, node_secret, "HS256")


async def test_tokens_that_were_not_made_here_are_refused(transport: Transport, node: TestNode) -> None:
    secret = node.settings.signing_secret()
    unsigned = jwt.encode({"sub": "wx_a", "sid": "s", "aud": "cinewire", "iss": "cinewire"}, None, "none")  # type: ignore[arg-type]
    refused = {
        "garbage": "token_invalid",
        "a.b.c": "token_invalid",
        unsigned: "token_invalid",
        forged("another secret, as long as it must be"): "token_invalid",
        forged(secret, aud="elsewhere"): "token_invalid",
        forged(secret, iss="elsewhere"): "token_invalid",
        forged(secret, sid=7): "token_invalid",
        forged(secret, exp=1_000): "token_expired",
        forged(secret): "session_revoked",
    }
    for token, reason in refused.items():
        reply = await transport.call({"type": "auth", "token": token})
        assert (reply["type"], reply["code"], reply["reason"]) == ("auth_response", 401, reason), token


async def test_a_handler_that_fails_says_so_without_its_insides_and_harms_nobody(
    client: SocketClient, node: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: object, **__: object) -> None:
        raise RuntimeError("SELECT secret FROM somewhere")

    monkeypatch.setattr("storage.movies.Movies.detail", explode)
    await client.send({"type": "movie_detail", "tmdb_id": 603, "id": "boom"})
    await client.send({"type": "ping", "id": "fine"})
    frames = {frame["id"]: frame for frame in [await client.receive(), await client.receive()]}
    assert frames["fine"]["type"] == "pong"
    assert (frames["boom"]["code"], frames["boom"]["reason"], frames["boom"]["retryable"]) == (500, "internal", False)
    assert "SELECT" not in json.dumps(frames["boom"])
    async with socket_client(node.url) as other:
        assert (await other.call({"type": "ping"}))["type"] == "pong"
