"""What the WeChat client makes of a login server that answers, refuses, stalls and breaks off."""

import asyncio
import base64
import logging
import socket
import traceback
from collections.abc import AsyncIterator

import httpx
import pytest
import structlog

from protocol import errors
from protocol.errors import ErrorKind, OperationError
from tests.logs import logged_of
from tests.standins import wechat as standin
from tests.standins.server import Gate, serve
from tests.standins.wechat import Fault, WeChatStandIn
from wsserver.vendors.wechat import LocalLogin, WeChat, WeChatLogin

BOUND_S = 10
OPENID = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
SESSION_KEY = "o0q0otL8aEzpcZL/FT9WsQ=="


class Account:
    """A stand-in that is being served, and the client for it."""

    def __init__(self, server: WeChatStandIn, base_url: str, client: httpx.AsyncClient) -> None:
        self.server = server
        self.base_url = base_url
        self.client = client
        self.wechat = self.configured()

    def configured(self, *, appid: str | None = None, secret: str | None = None, deadline_s: float = BOUND_S) -> WeChat:
        return WeChat(
            appid=self.server.appid if appid is None else appid,
            secret=self.server.secret if secret is None else secret,
            base_url=self.base_url,
            client=self.client,
            deadline_s=deadline_s,
        )


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Account]:
    server = WeChatStandIn()
    async with serve(server.app) as base_url, httpx.AsyncClient(trust_env=False) as client:
        yield Account(server, base_url, client)


@pytest.fixture
def account(served: Account) -> Account:
    served.server.reset()
    return served


async def refusal(wechat: WeChat, code: str) -> OperationError:
    try:
        async with asyncio.timeout(BOUND_S):
            await wechat.code_to_session(code)
    except OperationError as told:
        return told
    pytest.fail("the login went through")


# Logging in.


async def test_a_fresh_code_says_who_it_is(account: Account) -> None:
    login = await account.wechat.code_to_session(account.server.issue_code(OPENID))
    assert login.openid == OPENID
    assert login.unionid is None
    assert len(base64.b64decode(login.session_key)) == 16


async def test_an_account_bound_to_the_open_platform_gives_the_unionid(account: Account) -> None:
    account.server.unionids = True
    code = account.server.issue_code(OPENID)
    assert (await account.wechat.code_to_session(code)).unionid == account.server.codes[code].unionid


async def test_the_code_travels_unchanged_whatever_its_characters(account: Account) -> None:
    code = "a+b/c=&d 码%41"
    account.server.codes[code] = standin.Code(OPENID, "")
    await account.wechat.code_to_session(code)
    (query,) = account.server.calls
    assert query == {
        "appid": account.server.appid,
        "secret": account.server.secret,
        "js_code": code,
        "grant_type": "authorization_code",
    }


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": "text/plain; charset=iso-8859-1"}, {"content-type": "image/png"}],
    ids=str,
)
async def test_the_body_is_read_as_json_whatever_its_headers_say(account: Account, headers: dict[str, str]) -> None:
    body = f'{{"session_key":"{SESSION_KEY}","openid":"{OPENID}","errcode":0,"unionid":"","expires_in":7200}}'
    account.server.queue(Fault(body=body.encode(), headers=headers))
    assert await account.wechat.code_to_session("any") == WeChatLogin(OPENID, None, SESSION_KEY)


# Refusals.


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("used", errors.LOGIN_CODE_INVALID),
        ("expired", errors.LOGIN_CODE_EXPIRED),
        ("blocked", errors.LOGIN_REFUSED),
    ],
)
async def test_a_code_that_does_not_work_is_told_as_what_it_is(
    account: Account, state: standin.CodeState, kind: ErrorKind
) -> None:
    told = await refusal(account.wechat, account.server.issue_code(state=state))
    assert told.kind is kind
    assert len(account.server.calls) == 1


async def test_an_unknown_code_is_invalid_and_a_code_works_once(account: Account) -> None:
    assert (await refusal(account.wechat, "unknown")).kind is errors.LOGIN_CODE_INVALID
    code = account.server.issue_code()
    await account.wechat.code_to_session(code)
    assert (await refusal(account.wechat, code)).kind is errors.LOGIN_CODE_INVALID


@pytest.mark.parametrize(
    ("appid", "secret", "errcode"),
    [("", None, 41002), ("wx-other", None, 40013), (None, "", 41004), (None, "wrong", 40125)],
)
async def test_a_wrong_configuration_is_reported_loudly_and_not_retried(
    account: Account, appid: str | None, secret: str | None, errcode: int
) -> None:
    code = account.server.issue_code()
    with logged_of("wechat") as lines:
        told = await refusal(account.configured(appid=appid, secret=secret), code)
    assert told.kind is errors.WECHAT_MISCONFIGURED
    assert [(line["log_level"], line["errcode"]) for line in lines] == [("error", errcode), ("info", errcode)]
    assert len(account.server.calls) == 1


@pytest.mark.parametrize(
    ("errcode", "kind"),
    [
        (40001, errors.WECHAT_MISCONFIGURED),
        (40002, errors.WECHAT_MISCONFIGURED),
        (40164, errors.WECHAT_MISCONFIGURED),
        (41008, errors.INTERNAL),
        (40242, errors.LOGIN_FAILED),
        (99999, errors.LOGIN_FAILED),
    ],
)
async def test_every_errcode_has_a_kind(account: Account, errcode: int, kind: ErrorKind) -> None:
    account.server.queue(*standin.refuses(errcode))
    with logged_of("wechat") as lines:
        assert (await refusal(account.wechat, "any")).kind is kind
    assert lines[-1]["errcode"] == errcode
    assert lines[-1]["rid"] == "66b5fb8f-5e3c0071-3d7f539a"
    assert lines[-1]["outcome"] == kind.reason


async def test_the_quota_of_the_minute_says_when_to_come_back(account: Account) -> None:
    account.server.queue(*standin.refuses(45011))
    told = await refusal(account.wechat, "any")
    assert told.kind is errors.WECHAT_QUOTA
    assert told.retry_after_ms == 60_000


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"errcode": "40029", "errmsg": "invalid code"}, errors.LOGIN_CODE_INVALID),
        ({"errcode": 40029, "errmsg": "", "openid": "", "session_key": "", "unionid": ""}, errors.LOGIN_CODE_INVALID),
        ({"errcode": 40163, "openid": OPENID, "session_key": SESSION_KEY}, errors.LOGIN_CODE_INVALID),
        ({"openid": "", "session_key": SESSION_KEY}, errors.LOGIN_FAILED),
        ({"openid": OPENID}, errors.LOGIN_FAILED),
        ({"errcode": 0, "errmsg": "ok"}, errors.LOGIN_FAILED),
        ({}, errors.LOGIN_FAILED),
        ([], errors.WECHAT_UNAVAILABLE),
        ({"openid": 7, "session_key": []}, errors.WECHAT_UNAVAILABLE),
        (b"", errors.WECHAT_UNAVAILABLE),
        (b'{"openid":"o', errors.WECHAT_UNAVAILABLE),
        (b"\xff\xfe", errors.WECHAT_UNAVAILABLE),
        (b"<html>maintenance</html>", errors.WECHAT_UNAVAILABLE),
    ],
    ids=repr,
)
async def test_a_body_that_is_no_session_is_a_failure(account: Account, body: object, kind: ErrorKind) -> None:
    account.server.queue(standin.answers(body))
    assert (await refusal(account.wechat, "any")).kind is kind


async def test_a_request_id_in_the_older_format_is_logged(account: Account) -> None:
    errmsg = "invalid code, hints: [ req_id: MdoBRh4FE-_iqKea ]"
    account.server.queue(standin.answers({"errcode": 40029, "errmsg": errmsg}))
    with logged_of("wechat") as lines:
        await refusal(account.wechat, "any")
    assert lines[0]["rid"] == "MdoBRh4FE-_iqKea"


# WeChat's bad days.


async def test_a_busy_wechat_is_asked_again_twice(account: Account) -> None:
    account.server.queue(*standin.refuses(-1, times=2))
    login = await account.wechat.code_to_session(account.server.issue_code(OPENID))
    assert login.openid == OPENID
    assert len(account.server.calls) == 3


async def test_a_wechat_that_stays_busy_is_unavailable(account: Account) -> None:
    account.server.queue(*standin.refuses(-1, times=3))
    assert (await refusal(account.wechat, "any")).kind is errors.WECHAT_UNAVAILABLE
    assert len(account.server.calls) == 3


@pytest.mark.parametrize(
    "fault",
    [standin.bad_gateway(), standin.redirects("http://127.0.0.1:1/elsewhere"), standin.answers({}, 404)],
    ids=str,
)
async def test_a_gateways_answer_means_unavailable_and_no_redirect_is_followed(account: Account, fault: Fault) -> None:
    account.server.queue(fault)
    assert (await refusal(account.wechat, "any")).kind is errors.WECHAT_UNAVAILABLE
    assert len(account.server.calls) == 1


async def test_a_lost_answer_is_unavailable_and_its_code_is_not_sent_again(account: Account) -> None:
    account.server.queue(standin.resets())
    code = account.server.issue_code()
    assert (await refusal(account.wechat, code)).kind is errors.WECHAT_UNAVAILABLE
    assert len(account.server.calls) == 1
    assert account.server.codes[code].state == "used"


async def test_an_answer_that_does_not_come_is_a_timeout_and_its_code_is_not_sent_again(account: Account) -> None:
    account.server.queue(standin.stalls(Gate()))
    wechat = account.configured(deadline_s=0.1)
    assert (await refusal(wechat, account.server.issue_code())).kind is errors.WECHAT_TIMEOUT
    assert len(account.server.calls) == 1


async def test_the_deadline_holds_for_all_tries_together(account: Account) -> None:
    account.server.queue(*standin.refuses(-1), standin.stalls(Gate()))
    assert (await refusal(account.configured(deadline_s=0.5), "any")).kind is errors.WECHAT_TIMEOUT
    assert len(account.server.calls) == 2


class Refusing(httpx.AsyncBaseTransport):
    """The network of a client whose first connections fail before anything is sent."""

    def __init__(self, failures: int, inner: httpx.AsyncBaseTransport) -> None:
        self.left = failures
        self.inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.left:
            self.left -= 1
            raise httpx.ConnectError("no route to host", request=request)
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_a_connection_that_does_not_come_about_is_tried_once_more(account: Account) -> None:
    async with httpx.AsyncClient(transport=Refusing(1, httpx.AsyncHTTPTransport())) as client:
        wechat = Account(account.server, account.base_url, client).wechat
        assert (await wechat.code_to_session(account.server.issue_code(OPENID))).openid == OPENID
    async with httpx.AsyncClient(transport=Refusing(2, httpx.AsyncHTTPTransport())) as client:
        wechat = Account(account.server, account.base_url, client).wechat
        assert (await refusal(wechat, account.server.issue_code())).kind is errors.WECHAT_UNAVAILABLE
    assert len(account.server.calls) == 1


async def test_a_closed_port_is_unavailable(account: Account) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nowhere = Account(account.server, f"http://127.0.0.1:{port}", account.client)
    assert (await refusal(nowhere.wechat, "any")).kind is errors.WECHAT_UNAVAILABLE


async def test_a_cancelled_login_is_not_swallowed(account: Account) -> None:
    gate = Gate()
    account.server.queue(standin.stalls(gate))
    with logged_of("wechat") as lines:
        async with asyncio.timeout(BOUND_S):
            login = asyncio.create_task(account.wechat.code_to_session(account.server.issue_code()))
            await gate.reached.wait()
            login.cancel()
            with pytest.raises(asyncio.CancelledError):
                await login
    assert [line["outcome"] for line in lines] == ["cancelled"]


# What nobody may read.


async def test_no_secret_no_code_and_no_identity_reach_a_log_or_a_traceback(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    account.server.unionids = True
    code = account.server.issue_code(OPENID)
    secrets = {account.server.secret, code, OPENID, account.server.codes[code].unionid}
    shown: list[str] = []
    with structlog.testing.capture_logs() as lines:
        login = await account.wechat.code_to_session(code)
        secrets.add(login.session_key)
        account.server.queue(
            standin.resets(),
            standin.stalls(Gate()),
            standin.bad_gateway(),
            standin.answers({"openid": [OPENID], "session_key": login.session_key}),
            *standin.refuses(40125),
        )
        for wechat in (account.wechat, account.configured(deadline_s=0.1), *[account.wechat] * 3):
            told = await refusal(wechat, code)
            shown += traceback.format_exception(told)
            shown += [repr(seen) for seen in _chain(told)]
    nowhere = Account(account.server, "http://127.0.0.1:1", account.client)
    shown += [repr(seen) for seen in _chain(await refusal(nowhere.wechat, code))]
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]  # which is the stand-in's
    assert any("jscode2session" in record.getMessage() for record in ours)  # httpx did log its requests
    shown += [repr(lines), repr(login), repr(account.wechat)]
    shown += [text for record in ours for text in (record.getMessage(), repr(record.args))]
    for secret in secrets:
        for place in shown:
            assert secret not in place


def _chain(error: BaseException) -> list[object]:
    """An error, all that it was raised from or during, and the requests that httpx's errors carry."""
    seen: list[object] = []
    at: BaseException | None = error
    while at is not None:
        seen += [at, at.args]
        if isinstance(at, httpx.RequestError):
            seen.append(str(at.request.url))
        at = at.__cause__ or at.__context__
    return seen


# Without WeChat.


async def test_without_an_appid_every_code_is_a_stable_person_of_its_own() -> None:
    local = LocalLogin()
    first, again, other = [await local.code_to_session(code) for code in ("张三", "张三", "李四")]
    assert first.openid == again.openid != other.openid
    assert first.openid.startswith("local_")
    assert first.unionid is None
    assert first.session_key != again.session_key
    assert len(base64.b64decode(first.session_key)) == 16
