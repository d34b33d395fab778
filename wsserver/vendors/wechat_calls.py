"""One call of WeChat's server APIs that may be made again: its deadline, its tries, its line in the log.

What an errcode means for a call is that call's own business. `wechat.py` does not call like this: a login's code is
spent by the first request that arrives.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from protocol import errors
from protocol.errors import ErrorKind, OperationError
from wsserver.vendors.waiting import jittered
from wsserver.vendors.wechat import BUSY_PAUSE_S, BUSY_TRIES, QUOTA_RETRY_AFTER_MS, QUOTA_USED_UP, SYSTEM_BUSY

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 1.0  # so that a second connect fits into a check's deadline

KINDS: Mapping[int, ErrorKind] = {
    SYSTEM_BUSY: errors.WECHAT_UNAVAILABLE,
    QUOTA_USED_UP: errors.WECHAT_QUOTA,  # of the minute
    45009: errors.WECHAT_QUOTA,  # of the day
    40013: errors.WECHAT_MISCONFIGURED,  # appid
    40125: errors.WECHAT_MISCONFIGURED,  # AppSecret
    40164: errors.WECHAT_MISCONFIGURED,  # our address is not on the account's list
    41002: errors.WECHAT_MISCONFIGURED,  # no appid
    41004: errors.WECHAT_MISCONFIGURED,  # no secret
}
"""What errcodes mean that every call can meet. One that is nowhere is a mistake of ours: INTERNAL."""


class WeChatAnswer(BaseModel):
    """What every answer has: no errcode, or 0, is success."""

    model_config = ConfigDict(hide_input_in_errors=True)

    errcode: int | None = None
    errmsg: str | None = None

    def trace_id(self) -> str | None:
        """The id that WeChat's support asks for; errmsg spells it in two ways."""
        found = re.search(r"(?:rid|req_id):\s*([\w-]{1,64})", self.errmsg or "", re.ASCII)
        return found[1] if found else None


Answer = TypeVar("Answer", bound=WeChatAnswer)


@dataclass(slots=True)
class WeChatCall:
    """What the log line of one call says."""

    what: str
    started: float = field(default_factory=time.monotonic)
    outcome: str = "failed"
    tries: int = 0
    errcode: int | None = None
    trace_id: str | None = None
    detail: str | int | None = None  # a status, a label or the name of an exception, never its text

    def log(self) -> None:
        log.info(
            "wechat call",
            what=self.what,
            outcome=self.outcome,
            errcode=self.errcode,
            rid=self.trace_id,
            detail=self.detail,
            tries=self.tries,
            ms=round((time.monotonic() - self.started) * 1000),
        )

    def refusal(self, errcode: int | None) -> OperationError:
        """What an errcode means that is no success."""
        kind = KINDS.get(errcode or 0, errors.INTERNAL)
        if kind in (errors.WECHAT_MISCONFIGURED, errors.INTERNAL):
            log.error("wechat refuses us", what=self.what, reason=kind.reason, errcode=errcode, rid=self.trace_id)
        return OperationError(kind, retry_after_ms=QUOTA_RETRY_AFTER_MS if kind is errors.WECHAT_QUOTA else None)


@contextlib.asynccontextmanager
async def calling(what: str, *, deadline_s: float, count: Callable[[str, float], None]) -> AsyncIterator[WeChatCall]:
    """A call within its deadline. Raises WECHAT_TIMEOUT; `count` is told the outcome and the seconds."""
    call = WeChatCall(what)
    try:
        async with asyncio.timeout(deadline_s):
            yield call
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
        count(call.outcome, time.monotonic() - call.started)


async def post(
    client: httpx.AsyncClient,
    url: str,
    body: Mapping[str, Any],
    shape: type[Answer],
    *,
    call: WeChatCall,
    deadline_s: float,
    access_token: str | None = None,
) -> Answer:
    """The answer to a request that may be repeated, with whatever errcode. Raises WECHAT_UNAVAILABLE."""
    # Raw UTF-8: of Chinese that is escaped WeChat finds everything harmless, and says nothing of it.
    content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
    while True:
        call.tries += 1
        try:
            response = await client.post(
                url,
                content=content,
                params=None if access_token is None else {"access_token": access_token},
                headers={"content-type": "application/json"},
                follow_redirects=False,
                timeout=httpx.Timeout(deadline_s, connect=CONNECT_TIMEOUT_S),
            )
        except httpx.HTTPError as error:
            call.detail = type(error).__name__
        else:
            answer = _parsed(response, shape, call)
            if answer is not None and answer.errcode != SYSTEM_BUSY:
                return answer
        # Out here the error is not even the context of ours: it holds the URL, and with it the token.
        if call.tries == BUSY_TRIES:
            raise OperationError(errors.WECHAT_UNAVAILABLE)
        await asyncio.sleep(jittered(BUSY_PAUSE_S * 2 ** (call.tries - 1)))


def _parsed(response: httpx.Response, shape: type[Answer], call: WeChatCall) -> Answer | None:
    """The answer in a response, which may say text/plain and means JSON; anything that is none is a gateway's."""
    if response.status_code != 200:
        call.detail = f"status {response.status_code}"
        return None
    try:
        answer = shape.model_validate_json(response.content)
    except ValidationError:
        call.detail = "unreadable"
        return None
    call.errcode, call.trace_id, call.detail = answer.errcode, answer.trace_id(), None
    return answer
