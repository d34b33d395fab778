"""Turns the code of `wx.login` into the user's openid: WeChat's code2Session, and what stands in for it locally.

Source: developers.weixin.qq.com, "小程序登录 / code2Session". It issues no token of ours and keeps nothing.
"""

import asyncio
import base64
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from protocol import errors
from protocol.errors import ErrorKind, OperationError
from wsserver.vendors.waiting import jittered

log = structlog.get_logger(__name__)

DEADLINE_S = 10.0  # of a whole login: the mini program's user looks at a spinner
CONNECT_TIMEOUT_S = 3.0  # so that a second connect still fits in
BUSY_TRIES = 3  # of errcode -1, which WeChat asks to be retried
BUSY_PAUSE_S = 0.3  # doubles per try, with jitter
QUOTA_RETRY_AFTER_MS = 60_000  # the quota is counted per minute

LOCAL = "local_"
"""Begins the openids that are made here; WeChat's begin with an o."""

SYSTEM_BUSY = -1
QUOTA_USED_UP = 45011

_KINDS: dict[int, ErrorKind] = {
    SYSTEM_BUSY: errors.WECHAT_UNAVAILABLE,
    40029: errors.LOGIN_CODE_INVALID,
    40163: errors.LOGIN_CODE_INVALID,  # used before
    42003: errors.LOGIN_CODE_EXPIRED,
    40226: errors.LOGIN_REFUSED,
    QUOTA_USED_UP: errors.WECHAT_QUOTA,
    40001: errors.WECHAT_MISCONFIGURED,  # AppSecret
    40002: errors.WECHAT_MISCONFIGURED,  # grant_type
    40013: errors.WECHAT_MISCONFIGURED,  # appid
    40125: errors.WECHAT_MISCONFIGURED,  # AppSecret
    40164: errors.WECHAT_MISCONFIGURED,  # our address is not on the account's list
    41002: errors.WECHAT_MISCONFIGURED,  # no appid
    41004: errors.WECHAT_MISCONFIGURED,  # no secret
    41008: errors.INTERNAL,  # no code: the request's model should have refused it
}
_OURS_TO_MEND = (errors.WECHAT_MISCONFIGURED, errors.INTERNAL)


@dataclass(frozen=True, slots=True)
class WeChatLogin:
    """Who logged in. `session_key` never leaves the server; `unionid` needs an Open Platform account."""

    openid: str = field(repr=False)
    unionid: str | None = field(repr=False)
    session_key: str = field(repr=False)


class _Answer(BaseModel):
    """The body of jscode2session. On success there is no errcode; on failure some hosts send empty strings."""

    model_config = ConfigDict(hide_input_in_errors=True)

    errcode: int | None = None
    errmsg: str | None = None
    openid: str | None = None
    session_key: str | None = None
    unionid: str | None = None

    def trace_id(self) -> str | None:
        """The id that WeChat's support asks for; errmsg spells it in two ways."""
        found = re.search(r"(?:rid|req_id):\s*([\w-]{1,64})", self.errmsg or "", re.ASCII)
        return found[1] if found else None


@dataclass(slots=True)
class _Call:
    """What the log line of one login says."""

    started: float = field(default_factory=time.monotonic)
    outcome: str = "failed"
    tries: int = 0
    errcode: int | None = None
    trace_id: str | None = None
    detail: str | None = None  # a status or the name of an exception, never its text

    def log(self) -> None:
        log.info(
            "wechat login",
            outcome=self.outcome,
            errcode=self.errcode,
            rid=self.trace_id,
            detail=self.detail,
            tries=self.tries,
            ms=round((time.monotonic() - self.started) * 1000),
        )


def _nobody(_outcome: str, _elapsed_s: float) -> None:
    """Counts nothing."""


class WeChat:
    """One mini program's account at WeChat."""

    def __init__(
        self,
        *,
        appid: str,
        secret: str,
        base_url: str,
        client: httpx.AsyncClient,
        deadline_s: float = DEADLINE_S,
        count: Callable[[str, float], None] = _nobody,
    ) -> None:
        """`count` is told the outcome of each login and its seconds."""
        self._appid = appid
        self._secret = secret
        self._url = base_url.rstrip("/") + "/sns/jscode2session"
        self._client = client
        self._deadline_s = deadline_s
        self._count = count
        logging.getLogger("httpx").addFilter(without_queries)

    async def code_to_session(self, code: str) -> WeChatLogin:
        """Spends `code`, which works once. Raises `OperationError`: LOGIN_*, WECHAT_* or INTERNAL.

        Once the request may have reached WeChat it is not sent again: the code would be refused as used. The client
        then has to call `wx.login` for a fresh one.
        """
        call = _Call()
        try:
            async with asyncio.timeout(self._deadline_s):
                login = await self._login(code, call)
            call.outcome = "ok"
        except TimeoutError:
            call.outcome = errors.WECHAT_TIMEOUT.reason
            raise OperationError(errors.WECHAT_TIMEOUT) from None
        except OperationError as error:
            call.outcome = error.kind.reason
            raise
        except asyncio.CancelledError:
            call.outcome = "cancelled"
            raise
        finally:
            call.log()
            self._count(call.outcome, time.monotonic() - call.started)
        return login

    async def _login(self, code: str, call: _Call) -> WeChatLogin:
        while True:
            call.tries += 1
            answer = _parsed(await self._get(code, call), call)
            call.errcode, call.trace_id = answer.errcode, answer.trace_id()
            if answer.errcode != SYSTEM_BUSY or call.tries == BUSY_TRIES:
                return _sorted(answer)
            await asyncio.sleep(jittered(BUSY_PAUSE_S * 2 ** (call.tries - 1)))

    async def _get(self, code: str, call: _Call) -> httpx.Response:
        """One request; a second one only where no connection came about, so that WeChat cannot have seen the code."""
        connects = 0
        while True:
            connects += 1
            try:
                # The query is written here and not in a variable: tracebacks that show locals must not show it.
                return await self._client.get(
                    self._url,
                    params={
                        "appid": self._appid,
                        "secret": self._secret,
                        "js_code": code,
                        "grant_type": "authorization_code",
                    },
                    follow_redirects=False,
                    timeout=httpx.Timeout(self._deadline_s, connect=CONNECT_TIMEOUT_S),
                )
            except httpx.HTTPError as error:
                call.detail = type(error).__name__
                not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                timed_out = isinstance(error, httpx.TimeoutException)
            # Out here the error is not even the context of ours: it holds the URL, and with it the AppSecret.
            if connects == 2 or not not_sent:
                raise OperationError(errors.WECHAT_TIMEOUT if timed_out else errors.WECHAT_UNAVAILABLE)


class LocalLogin:
    """Stands where no appid is configured: every code is somebody, and the same code is the same person."""

    async def code_to_session(self, code: str) -> WeChatLogin:
        openid = LOCAL + hashlib.sha256(code.encode(errors="surrogatepass")).hexdigest()[:32]
        return WeChatLogin(openid, None, base64.b64encode(secrets.token_bytes(16)).decode())


def _parsed(response: httpx.Response, call: _Call) -> _Answer:
    """The answer in a response, which says text/plain and means JSON; anything that is none is a gateway's."""
    if response.status_code == 200:
        try:
            return _Answer.model_validate_json(response.content)
        except ValidationError:
            call.detail = "unreadable"
    else:
        call.detail = f"status {response.status_code}"
    raise OperationError(errors.WECHAT_UNAVAILABLE)


def _sorted(answer: _Answer) -> WeChatLogin:
    if not answer.errcode and answer.openid and answer.session_key:
        return WeChatLogin(answer.openid, answer.unionid or None, answer.session_key)
    kind = _KINDS.get(answer.errcode or 0, errors.LOGIN_FAILED)
    if kind in _OURS_TO_MEND:
        log.error("wechat refuses us", reason=kind.reason, errcode=answer.errcode, rid=answer.trace_id())
    raise OperationError(kind, retry_after_ms=QUOTA_RETRY_AFTER_MS if kind is errors.WECHAT_QUOTA else None)


def without_queries(record: logging.LogRecord) -> bool:
    """A log filter: httpx logs each URL at INFO, and the query of this vendor's URL holds the AppSecret."""
    if isinstance(record.args, tuple):
        record.args = tuple(arg.copy_with(query=None) if isinstance(arg, httpx.URL) else arg for arg in record.args)
    return True
