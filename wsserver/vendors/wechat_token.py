"""The access token that WeChat's server APIs want: fetched by one node, shared by all, renewed before it ends.

Source: developers.weixin.qq.com, "接口调用凭证 / getStableAccessToken". Where nodes share it is
`storage/wechat_token.py`'s; what it is good for is its callers'.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import httpx
import structlog
from pydantic import Field

from protocol import errors
from protocol.errors import OperationError
from storage.wechat_token import HeldToken, SharedToken
from wsserver.vendors.wechat import without_queries
from wsserver.vendors.wechat_calls import WeChatAnswer, calling, post

log = structlog.get_logger(__name__)

DEADLINE_S = 5.0
"""Of a fetch. Callers have deadlines of their own; the fetch goes on without them."""

FIND_S = 12.0
"""Of finding one, which another node may be fetching: longer than the claim of a node that died."""

RENEW_S = 240.0
"""How long before its end a token is renewed: in the last five minutes WeChat gives the next, and takes both."""

SLACK_S = 10.0
"""How long before its end a token is not used any more: a call takes a while, and clocks of two machines tick."""

LOOK_AGAIN_S = 10.0
"""How soon a node looks again for a next token, when there was none yet."""

REST_S = 5.0
"""How long nobody on this node asks for a token after there was none to be had."""

POLL_S = 0.1
"""Between two looks at whether another node has fetched it."""


class Spawn(Protocol):
    """Starts a task that somebody owns."""

    def __call__(self, work: Coroutine[Any, Any, None], *, name: str) -> object: ...


class _Granted(WeChatAnswer):
    access_token: str | None = Field(default=None, repr=False)
    expires_in: int = 0


def _nobody(_outcome: str, _elapsed_s: float) -> None:
    """Counts nothing."""


class AccessToken:
    """One account's token, as this node knows it."""

    def __init__(
        self,
        *,
        appid: str,
        secret: str,
        base_url: str,
        client: httpx.AsyncClient,
        shared: SharedToken,
        spawn: Spawn,
        count: Callable[[str, float], None] = _nobody,
        rest_s: float = REST_S,
    ) -> None:
        """`spawn` owns the fetches, which outlive who asked for them; `count` is told each's outcome and seconds."""
        self._appid = appid
        self._secret = secret
        self._url = base_url.rstrip("/") + "/cgi-bin/stable_token"
        self._client = client
        self._shared = shared
        self._spawn = spawn
        self._count = count
        self._rest_s = rest_s
        self._token: str | None = None
        self._good_until = self._renew_at = self._ask_at = 0.0
        self._flight: asyncio.Future[str] | None = None
        logging.getLogger("httpx").addFilter(without_queries)

    async def get(self, *, refused: str | None = None) -> str:
        """A token; `refused` is one that WeChat takes no more. Raises OperationError: WECHAT_* or INTERNAL."""
        now = time.monotonic()
        if self._token is not None and self._token != refused and now < self._good_until:
            if now >= self._renew_at:
                self._renew_at = now + LOOK_AGAIN_S
                self._find_one(None)
            return self._token
        flight = self._find_one(refused)
        await asyncio.wait((flight,))
        if flight.result() == refused:
            # It was found for somebody who did not know that yet.
            flight = self._find_one(refused)
            await asyncio.wait((flight,))
        return flight.result()

    def _find_one(self, refused: str | None) -> asyncio.Future[str]:
        """The search that is under way, or else a new one. Raises WECHAT_UNAVAILABLE when there was just none."""
        if self._flight is not None and not self._flight.done():
            return self._flight
        if time.monotonic() < self._ask_at and self._token is None:
            raise OperationError(errors.WECHAT_UNAVAILABLE)
        self._flight = asyncio.get_running_loop().create_future()
        self._spawn(self._find(self._flight, refused), name="wechat access token")
        return self._flight

    async def _find(self, flight: asyncio.Future[str], refused: str | None) -> None:
        failure = OperationError(errors.WECHAT_TIMEOUT)
        try:
            async with asyncio.timeout(FIND_S):
                held = await self._held_or_fetched(refused)
        except TimeoutError:
            pass
        except OperationError as error:
            failure = error
        else:
            now = time.monotonic()
            self._token = held.token
            self._good_until = now + held.left_s
            self._renew_at = max(self._good_until - RENEW_S, now + LOOK_AGAIN_S)
            flight.set_result(held.token)
        finally:
            if not flight.done():
                if time.monotonic() >= self._good_until or refused is not None:
                    self._token = None
                self._ask_at = time.monotonic() + self._rest_s
                flight.set_exception(failure)
                flight.exception()  # else asyncio complains when nobody waits for it

    async def _held_or_fetched(self, refused: str | None) -> HeldToken:
        """What another node fetched, or what this one does when nobody else is at it."""
        while True:
            held = await self._shared.held()
            usable = held is not None and held.token != refused
            if held is not None and usable and held.left_s > RENEW_S:
                return held
            if await self._shared.claim():
                try:
                    return await self._fetched(refused)
                finally:
                    await self._shared.release()
            if held is not None and usable:
                return held  # another node is fetching the next, and this one is good meanwhile
            await asyncio.sleep(POLL_S)

    async def _fetched(self, refused: str | None) -> HeldToken:
        held = await self._shared.held()
        if held is not None and held.token != refused and held.left_s > RENEW_S:
            return held  # somebody was done with it between the look and the claim
        held = await self._ask(force=False)
        if held.token == refused and await self._shared.may_force():
            log.warning("wechat refuses its own access token: a new one is forced")
            held = await self._ask(force=True)
        if held.token == refused:
            raise OperationError(errors.WECHAT_UNAVAILABLE)
        await self._shared.keep(held)
        return held

    async def _ask(self, *, force: bool) -> HeldToken:
        what = "stable_token by force" if force else "stable_token"
        async with calling(what, deadline_s=DEADLINE_S, count=self._count) as call:
            answer = await post(
                self._client,
                self._url,
                {
                    "grant_type": "client_credential",
                    "appid": self._appid,
                    "secret": self._secret,
                    "force_refresh": force,
                },
                _Granted,
                call=call,
                deadline_s=DEADLINE_S,
            )
            if answer.errcode or not answer.access_token:
                if answer.errcode == 40001:  # here it is about the AppSecret
                    log.error("wechat refuses us", what=what, reason=errors.WECHAT_MISCONFIGURED.reason, errcode=40001)
                    raise OperationError(errors.WECHAT_MISCONFIGURED)
                raise call.refusal(answer.errcode)
            call.outcome = "ok"
            return HeldToken(answer.access_token, max(1.0, answer.expires_in - SLACK_S))
