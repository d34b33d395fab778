"""Logs and metrics tell how it goes, and never what people said, who they are or what proves it."""

import io
import json
import logging
import uuid

import httpx
import jwt
import pytest
import structlog
from cryptography.exceptions import InvalidTag

from storage.accounts import Sessions, StoredSession
from storage.chat import PastMessage, Place
from storage.redis import SESSION, Redis
from tests.clients import new_code, socket_client
from tests.conftest import ModelNode
from wsserver.auth import Authenticator
from wsserver.telemetry import configure_logging
from wsserver.vendors.wechat import WeChatLogin


async def test_nothing_private_is_logged_at_any_level(model_node: ModelNode, logged: io.StringIO) -> None:
    question, guest = f"秘密问题 {uuid.uuid4().hex}", f"guest-{uuid.uuid4().hex}"
    code = model_node.wechat.issue_code()
    async with socket_client(model_node.url) as client:
        await client.login(code)
        await client.call({"type": "auth", "token": client.token})
        reply = await client.call({"type": "chat", "query": question})
        await client.call({"type": "chat", "query": question, "conversation_id": str(uuid.uuid4())})
        await client.call_text(json.dumps({"type": "chat", "query": question, "stream": "no"}))
        async with httpx.AsyncClient(base_url=model_node.url, trust_env=False) as http:
            told = await http.post("/wechat/chat", json={"query": question, "openid": guest})
        guest_secret = told.json()["data"]["guest_secret"]
        await client.call({"type": "adopt_guest", "secret": guest_secret})
        await client.call({"type": "logout"})
    text = logged.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    done = {line["operation"] for line in lines if line["event"] == "operation"}
    assert done == {"login", "auth", "chat", "adopt_guest", "logout"}
    assert reply["data"]["request_id"] in text
    for secret in (question, reply["data"]["msg"], client.openid, client.token, code, guest, model_node.wechat.secret):
        assert secret not in text
    for part in guest_secret.split("."):
        assert part not in text


def test_other_peoples_loggers_speak_the_same_json_tracebacks_and_all(logged: io.StringIO) -> None:
    try:
        int("three")
    except ValueError:
        logging.getLogger("somebody.else").exception("it broke %d times", 2)
        structlog.get_logger("ours").exception("it broke here too", times=1)
    theirs, ours = (json.loads(line) for line in logged.getvalue().splitlines())
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("it broke 2 times", "error", "somebody.else")
    for line in (theirs, ours):
        assert "invalid literal for int()" in line["exception"]
        assert line["timestamp"].endswith("Z")


def test_for_people_a_line_says_the_same_in_words(logged: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    configure_logging(level="info", json=False)
    structlog.get_logger("ours").warning("it is late", ms=7)
    structlog.get_logger("ours").debug("nobody asked")
    text = written.getvalue()
    assert "it is late" in text
    assert "ms=7" in text
    assert "nobody asked" not in text
    assert not text.startswith("{")
    assert logged.getvalue() == ""


async def test_the_session_key_lies_in_redis_encrypted_and_only_the_server_can_open_it(redis: Redis) -> None:
    session_key = "c2Vzc2lvbiBrZXkgMTYgYg=="

    class Exchange:
        async def code_to_session(self, code: str) -> WeChatLogin:
            return WeChatLogin(f"openid-of-{code}", None, session_key)

    def authenticator(secret: str) -> Authenticator:
        return Authenticator(
            sessions=Sessions(redis),
            exchange=Exchange(),
            appid="wx1",
            secret=secret,
            token_ttl_s=60,
            guests_allowed=False,
        )

    caller, reply = await authenticator("a" * 32).log_in(new_code())
    stored = await redis.hgetall(SESSION(caller.session_id))
    assert session_key not in repr(stored)
    assert session_key not in reply.model_dump_json()
    assert session_key not in json.dumps(jwt.decode(reply.token, options={"verify_signature": False}))
    session = await Sessions(redis).find(caller.session_id)
    assert session is not None
    assert authenticator("a" * 32).open_key(session) == session_key
    with pytest.raises(InvalidTag):
        authenticator("b" * 32).open_key(session)


def test_nouns_do_not_show_what_they_hold() -> None:
    session = StoredSession("sid", "wx_hidden", "openid-hidden", None, b"sealed-hidden")
    past = PastMessage(Place(1, None), "user", "content-hidden")
    assert "hidden" not in repr((session, past))
