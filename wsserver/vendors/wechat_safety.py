"""Asks WeChat whether a text may be shown: msg_sec_check, version 2.

Source: developers.weixin.qq.com, "内容安全 / msgSecCheck". It says what WeChat thinks of a text; what is done about it,
and about a text that could not be checked, is `domains/content_safety.py`'s. Nothing is kept here.
"""

import logging
from collections.abc import Callable
from enum import StrEnum

import httpx
from pydantic import BaseModel, ConfigDict

from protocol import errors
from protocol.errors import OperationError
from wsserver.vendors.wechat import without_queries
from wsserver.vendors.wechat_calls import WeChatAnswer, WeChatCall, calling, post
from wsserver.vendors.wechat_token import AccessToken

MAX_CHARACTERS = 2500
"""Of one text, as WeChat's page says; longer ones are its caller's to cut."""

DEADLINE_S = 3.0
"""Of one check, tries and a fresh token included: somebody waits for the first word, and at the end for the last."""

SCENE_COMMENT = 2
"""Of profile, comment, forum and social log the one that developers found the most sensitive."""

TOKEN_REFUSED = (40001, 40014, 42001)
NOT_SEEN_LATELY = 61010
"""The user was last in the mini program over two hours ago: WeChat checks nothing of such users."""

RISKY_IN_VERSION_1 = 87014


class Verdict(StrEnum):
    """What WeChat suggests."""

    PASS = "pass"  # noqa: S105 (no password)
    REVIEW = "review"
    """A person should look at it."""
    RISKY = "risky"


class _Result(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    suggest: Verdict | None = None
    label: int | str | None = None  # a number, and in some answers the same as text


class _Checked(WeChatAnswer):
    result: _Result | None = None


def _nobody(_outcome: str, _elapsed_s: float) -> None:
    """Counts nothing."""


class WeChatSafety:
    """Checks texts under one account's token."""

    def __init__(
        self,
        token: AccessToken,
        *,
        base_url: str,
        client: httpx.AsyncClient,
        deadline_s: float = DEADLINE_S,
        count: Callable[[str, float], None] = _nobody,
    ) -> None:
        """`count` is told the outcome of each check and its seconds."""
        self._token = token
        self._url = base_url.rstrip("/") + "/wxa/msg_sec_check"
        self._client = client
        self._deadline_s = deadline_s
        self._count = count
        logging.getLogger("httpx").addFilter(without_queries)

    async def check(self, text: str, openid: str) -> Verdict:
        """What WeChat thinks of a text of at most MAX_CHARACTERS that is said by this user, or to them.

        Of a user whom WeChat has not seen for two hours everything passes. Raises OperationError when it was not
        checked: WECHAT_QUOTA, WECHAT_UNAVAILABLE, WECHAT_TIMEOUT, WECHAT_MISCONFIGURED, INTERNAL.
        """
        if not text.strip():
            return Verdict.PASS
        if len(text) > MAX_CHARACTERS:
            raise ValueError("too long to be checked at once")
        async with calling("msg_sec_check", deadline_s=self._deadline_s, count=self._count) as call:
            token = await self._token.get()
            answer = await self._ask(text, openid, token, call)
            if answer.errcode in TOKEN_REFUSED:
                token = await self._token.get(refused=token)
                answer = await self._ask(text, openid, token, call)
            return _sorted(answer, call)

    async def _ask(self, text: str, openid: str, token: str, call: WeChatCall) -> _Checked:
        return await post(
            self._client,
            self._url,
            {"version": 2, "scene": SCENE_COMMENT, "openid": openid, "content": text},
            _Checked,
            call=call,
            deadline_s=self._deadline_s,
            access_token=token,
        )


def _sorted(answer: _Checked, call: WeChatCall) -> Verdict:
    if answer.errcode == NOT_SEEN_LATELY:
        call.outcome = "not_seen_lately"
        return Verdict.PASS
    if answer.errcode == RISKY_IN_VERSION_1:
        call.outcome = Verdict.RISKY.value
        return Verdict.RISKY
    if answer.errcode in TOKEN_REFUSED:
        raise OperationError(errors.WECHAT_UNAVAILABLE)
    if answer.errcode:
        raise call.refusal(answer.errcode)
    verdict = None if answer.result is None else answer.result.suggest
    if answer.result is None or verdict is None:
        call.detail = "no verdict"
        raise OperationError(errors.WECHAT_UNAVAILABLE)
    call.outcome = verdict.value
    call.detail = None if verdict is Verdict.PASS else answer.result.label
    return verdict
