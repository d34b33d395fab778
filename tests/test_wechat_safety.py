"""What is made of WeChat's checks of texts and of the access token they want, on one node and on two that share it."""

import asyncio
import json
import logging
import secrets
import traceback
from collections.abc import AsyncIterator

import httpx
import pytest
import structlog

from protocol import errors
from protocol.errors import ErrorKind, OperationError
from storage.redis import WECHAT_TOKEN, Redis, open_redis
from storage.wechat_token import HeldToken, SharedToken
from tests.clients import PATIENCE_S
from tests.standins import wechat as standin
from tests.standins.server import Gate, serve
from tests.standins.wechat import CHECK, RISKY, TO_REVIEW, TOKEN, Fault, WeChatStandIn
from wsserver.tasks import Tasks
from wsserver.vendors.wechat_safety import MAX_CHARACTERS, Verdict, WeChatSafety
from wsserver.vendors.wechat_token import RENEW_S, AccessToken

OPENID = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"


class Account:
    """A stand-in with an account of its own, and nodes that ask it."""

    def __init__(self, redis: Redis, tasks: Tasks, client: httpx.AsyncClient, base_url: str, server: WeChatStandIn):
        self.redis = redis
        self.server = server
        self.shared = SharedToken(redis, server.appid)
        self.outcomes: list[str] = []
        self._tasks = tasks
        self._client = client
        self._base_url = base_url
        self.token = self.access_token()
        self.safety = self.node(self.token)

    def access_token(self, *, secret: str | None = None, redis: Redis | None = None, rest_s: float = 60) -> AccessToken:
        return AccessToken(
            appid=self.server.appid,
            secret=secret or self.server.secret,
            base_url=self._base_url,
            client=self._client,
            shared=SharedToken(redis or self.redis, self.server.appid),
            spawn=self._tasks.spawn,
            rest_s=rest_s,
        )

    def node(self, token: AccessToken | None = None, *, deadline_s: float = PATIENCE_S) -> WeChatSafety:
        return WeChatSafety(
            token or self.access_token(),
            base_url=self._base_url,
            client=self._client,
            deadline_s=deadline_s,
            count=lambda outcome, _elapsed_s: self.outcomes.append(outcome),
        )

    def forced(self) -> list[bool]:
        return [asked["force_refresh"] for asked in self.server.token_requests]


@pytest.fixture
async def account(redis: Redis) -> AsyncIterator[Account]:
    server = WeChatStandIn(appid=f"wx{secrets.token_hex(8)}")
    async with serve(server.app) as url, httpx.AsyncClient(trust_env=False) as client, Tasks().open() as tasks:
        yield Account(redis, tasks, client, url, server)


async def refusal(safety: WeChatSafety, text: str = "你好") -> OperationError:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await safety.check(text, OPENID)
    except OperationError as told:
        return told
    pytest.fail("it was checked")


# Checks.


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("你好", Verdict.PASS), (f"有{TO_REVIEW}的话", Verdict.REVIEW), (f"有{RISKY}的话", Verdict.RISKY)],
)
async def test_the_verdict_is_what_wechat_suggests(account: Account, text: str, verdict: Verdict) -> None:
    assert await account.safety.check(text, OPENID) is verdict
    assert account.outcomes == [verdict.value]


async def test_the_text_goes_out_as_raw_utf8_and_the_token_in_the_query_alone(account: Account) -> None:
    text = '片名"《沙丘》"\n👩‍🚀'
    await account.safety.check(text, OPENID)
    (check,) = account.server.checks
    assert json.loads(check.raw) == {"version": 2, "scene": 2, "openid": OPENID, "content": text}
    assert "《沙丘》".encode() in check.raw
    assert check.token.encode() not in check.raw


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ({"errcode": 0, "result": {"suggest": "risky", "label": "20006"}, "detail": [{"errcode": -1}]}, Verdict.RISKY),
        ({"result": {"suggest": "pass"}}, Verdict.PASS),
        ({"errcode": 87014, "errmsg": "risky content"}, Verdict.RISKY),
        ({"errcode": 61010, "errmsg": "code is expired"}, Verdict.PASS),
    ],
    ids=["label as text", "no errcode", "version 1", "not seen lately"],
)
async def test_answers_of_other_shapes_are_understood(account: Account, body: object, verdict: Verdict) -> None:
    account.server.queue_for(CHECK, standin.answers(body))
    assert await account.safety.check("你好", OPENID) is verdict


async def test_a_user_whom_wechat_has_not_seen_lately_passes_and_the_log_says_so(account: Account) -> None:
    account.server.away_users.add(OPENID)
    with structlog.testing.capture_logs() as lines:
        assert await account.safety.check(f"{RISKY}", OPENID) is Verdict.PASS
    assert [(line["outcome"], line["errcode"]) for line in lines if line["what"] == "msg_sec_check"] == [
        ("not_seen_lately", 61010)
    ]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (standin.refuses(45011), errors.WECHAT_QUOTA),
        (standin.refuses(45009), errors.WECHAT_QUOTA),
        (standin.refuses(40164), errors.WECHAT_MISCONFIGURED),
        (standin.refuses(40129), errors.INTERNAL),
        (standin.refuses(47001), errors.INTERNAL),
        (standin.refuses(-1, times=3), errors.WECHAT_UNAVAILABLE),
        ([standin.bad_gateway()] * 3, errors.WECHAT_UNAVAILABLE),
        ([Fault(body=b"{")] * 3, errors.WECHAT_UNAVAILABLE),
        ([Fault(reset=True)] * 3, errors.WECHAT_UNAVAILABLE),
        ([standin.redirects("https://elsewhere.example/")] * 3, errors.WECHAT_UNAVAILABLE),
        ([standin.answers({"errcode": 0, "errmsg": "ok"})], errors.WECHAT_UNAVAILABLE),
        ([standin.answers({"result": {"suggest": "maybe"}})] * 3, errors.WECHAT_UNAVAILABLE),
    ],
    ids=["minute", "day", "address", "scene", "body", "busy", "html", "cut", "reset", "away", "none", "unknown"],
)
async def test_a_check_that_fails_says_how(account: Account, fault: list[Fault], kind: ErrorKind) -> None:
    account.server.queue_for(CHECK, *fault)
    assert (await refusal(account.safety)).kind is kind
    assert account.outcomes == [kind.reason]
    assert account.server.checks == []


@pytest.mark.parametrize("fault", [*standin.refuses(-1), standin.bad_gateway(), Fault(reset=True)], ids=str)
async def test_what_passes_by_itself_is_tried_again(account: Account, fault: Fault) -> None:
    account.server.queue_for(CHECK, fault)
    assert await account.safety.check(RISKY, OPENID) is Verdict.RISKY


async def test_a_slow_check_ends_at_its_deadline(account: Account) -> None:
    await account.token.get()
    gate = account.server.holds("慢")
    assert (await refusal(account.node(account.token, deadline_s=0.2), "慢慢来")).kind is errors.WECHAT_TIMEOUT
    gate.open()


async def test_nothing_is_asked_about_nothing_and_too_much_is_a_mistake(account: Account) -> None:
    assert await account.safety.check(" \n", OPENID) is Verdict.PASS
    with pytest.raises(ValueError, match="too long"):
        await account.safety.check("长" * (MAX_CHARACTERS + 1), OPENID)
    assert not account.server.checks
    assert not account.server.token_requests


# The token.


async def test_two_nodes_share_one_token_that_is_fetched_once(account: Account) -> None:
    other = account.node()
    await asyncio.gather(*(safety.check("你好", OPENID) for safety in (account.safety, other) for _ in range(10)))
    assert account.forced() == [False]
    assert len({check.token for check in account.server.checks}) == 1
    assert await account.redis.ttl(WECHAT_TOKEN(account.server.appid)) > RENEW_S


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
async def test_a_token_that_ends_in_the_middle_is_renewed_once_for_both_nodes(account: Account, errcode: int) -> None:
    other = account.node()
    await asyncio.gather(account.safety.check("你好", OPENID), other.check("你好", OPENID))
    account.server.end_token(errcode)
    again = (safety.check(RISKY, OPENID) for safety in (account.safety, other) for _ in range(5))
    assert set(await asyncio.gather(*again)) == {Verdict.RISKY}
    assert account.forced() == [False, False]


async def test_a_new_token_is_forced_when_wechat_refuses_the_one_it_gives_and_only_once(account: Account) -> None:
    other = account.node()
    await account.safety.check("你好", OPENID)
    account.server.refuse_token()
    assert await account.safety.check(RISKY, OPENID) is Verdict.RISKY
    assert await other.check(RISKY, OPENID) is Verdict.RISKY
    assert account.forced() == [False, False, True]
    # Whatever is wrong with it, forcing has not helped: it is not done again for a long time.
    account.server.refuse_token()
    for safety in (account.safety, other) * 3:
        assert (await refusal(safety)).kind is errors.WECHAT_UNAVAILABLE
    assert account.forced().count(True) == 1
    assert len(account.forced()) <= 5


async def test_a_forced_token_that_is_the_old_one_is_not_used(account: Account) -> None:
    await account.safety.check("你好", OPENID)
    account.server.refuse_token()
    account.server.rotates = False
    assert (await refusal(account.safety)).kind is errors.WECHAT_UNAVAILABLE
    assert account.forced() == [False, False, True]


async def test_a_token_is_renewed_before_it_ends_and_good_meanwhile(account: Account) -> None:
    await account.shared.keep(HeldToken("about-to-end", RENEW_S / 2))
    assert await account.shared.claim()
    assert await account.access_token().get() == "about-to-end"
    await account.shared.release()
    fresh = await account.access_token().get()
    assert fresh != "about-to-end"
    held = await account.shared.held()
    assert held is not None
    assert held.token == fresh
    assert account.forced() == [False]


async def test_the_token_that_another_node_is_fetching_is_waited_for(account: Account) -> None:
    gate = Gate()
    account.server.queue_for(TOKEN, standin.stalls(gate))
    first = asyncio.create_task(account.token.get())
    await gate.reached.wait()
    second = asyncio.create_task(account.access_token().get())
    gate.open()
    async with asyncio.timeout(PATIENCE_S):
        assert await first == await second
    assert account.forced() == [False]


async def test_who_gives_up_waiting_does_not_stop_the_fetch(account: Account) -> None:
    gate = Gate()
    account.server.queue_for(TOKEN, standin.stalls(gate))
    impatient, patient = (asyncio.create_task(account.token.get()) for _ in range(2))
    await gate.reached.wait()
    impatient.cancel()
    gate.open()
    async with asyncio.timeout(PATIENCE_S):
        assert await patient
    assert account.forced() == [False]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (standin.refuses(40013), errors.WECHAT_MISCONFIGURED),
        (standin.refuses(40001), errors.WECHAT_MISCONFIGURED),
        (standin.refuses(45009), errors.WECHAT_QUOTA),
        ([standin.bad_gateway()] * 3, errors.WECHAT_UNAVAILABLE),
        ([standin.answers({"errcode": 0})], errors.INTERNAL),
    ],
    ids=["appid", "secret", "quota", "html", "empty"],
)
async def test_without_a_token_nothing_is_checked_and_wechat_is_left_alone_for_a_while(
    account: Account, fault: list[Fault], kind: ErrorKind
) -> None:
    account.server.queue_for(TOKEN, *fault)
    assert (await refusal(account.safety)).kind is kind
    for _ in range(5):
        assert (await refusal(account.safety)).kind is errors.WECHAT_UNAVAILABLE
    assert not account.server.token_requests
    assert not account.server.checks


async def test_after_the_rest_it_is_asked_for_again(account: Account) -> None:
    account.server.queue_for(TOKEN, *standin.refuses(45011))
    safety = account.node(account.access_token(rest_s=0))
    assert (await refusal(safety)).kind is errors.WECHAT_QUOTA
    assert await safety.check("你好", OPENID) is Verdict.PASS


async def test_without_redis_each_node_fetches_for_itself_and_forces_nothing(account: Account) -> None:
    async with open_redis("redis://127.0.0.1:1/0") as nowhere:
        nodes = [account.node(account.access_token(redis=nowhere)) for _ in range(2)]
        for node in nodes:
            assert await node.check(RISKY, OPENID) is Verdict.RISKY
        assert account.forced() == [False, False]
        account.server.refuse_token()
        assert (await refusal(nodes[0])).kind is errors.WECHAT_UNAVAILABLE
    assert True not in account.forced()


# What nobody may read.


async def test_no_token_no_secret_no_text_and_no_openid_reach_a_log_or_an_error(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text = f"秘密{secrets.token_hex(8)}"
    shown: list[str] = []
    with structlog.testing.capture_logs() as lines:
        await account.safety.check(text, OPENID)
        token = await account.token.get()
        account.server.queue_for(CHECK, standin.bad_gateway(), *standin.refuses(40129))
        told = [await refusal(account.safety, text)]
        account.server.queue_for(CHECK, *[Fault(reset=True)] * 3)
        told.append(await refusal(account.safety, text))
        gate = account.server.holds(text)
        told.append(await refusal(account.node(account.token, deadline_s=0.2), text))
        gate.open()
        wrong = account.node(account.access_token(secret="wrong-" + account.server.secret))
        await account.redis.delete(WECHAT_TOKEN(account.server.appid))
        told.append(await refusal(wrong, text))
    for error in told:
        at: BaseException | None = error
        shown += traceback.format_exception(error)
        while at is not None:
            shown += [repr(at), repr(at.args)]
            at = at.__cause__ or at.__context__
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]  # which is the stand-in's
    assert any("msg_sec_check" in record.getMessage() for record in ours)  # httpx did log its requests
    shown += [text for record in ours for text in (record.getMessage(), repr(record.args))]
    shown += [repr(lines), repr(account.token), repr(account.safety), repr(await account.shared.held())]
    assert len([line for line in lines if line.get("what") == "msg_sec_check" and "ms" in line]) == 5
    for secret in (token, account.server.secret, text, OPENID):
        for place in shown:
            assert secret not in place
