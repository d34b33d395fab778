"""What a client does about an error and after a close, in English and Chinese.

It follows from what the errors and the close codes declare. Where the rules are in full is `docs/clients.md`.
"""

from protocol import errors
from protocol.chat import RUN_ERRORS
from protocol.errors import CLOSE_CODES, ErrorKind
from wsserver.contract.meanings import Said

_AGAIN = Said(
    "Wait for `retry_after_ms` (a second when it is null), then send the same message again",
    "等 `retry_after_ms`（为 null 时等一秒），然后原样再发",
)
_NEW_RUN = Said(
    "The answer has ended. Offer to ask again; wait first, and give the question a new `id`",
    "这次回答已结束。请用户再问一次；先等一等，并用新的 `id`",
)
_FRESH_CODE = Said(
    "Wait for `retry_after_ms`, call `wx.login` again and send `login` with the new code",
    "等 `retry_after_ms`，重新调用 `wx.login`，用新的 code 发 `login`",
)
_LOG_IN = Said(
    "Forget the token, call `wx.login`, send `login`, then the message again",
    "丢掉令牌，调用 `wx.login`，发 `login`，然后再发这条消息",
)
_FIX = Said("Correct the message; as it is it will fail again", "改正这条消息；原样再发还会失败")
_GONE = Said("Do not ask for it again; show that it is gone", "不要再要它；告诉用户它不在了")
_NO_USE = Said("Tell the user; sending it again does not help", "告诉用户；再发也没有用")

_SPECIAL = {
    errors.CONVERSATION_BUSY: Said(
        "Wait for the answer to end, or say `on_busy`", "等正在进行的回答结束，或带上 `on_busy`"
    ),
    errors.TOO_MANY_RUNS: Said("Wait for one of the answers to end, then send it again", "等其中一个回答结束后再发"),
    errors.CONTENT_REFUSED: Said("Ask otherwise; the same will be refused again", "换个说法；同样的内容还会被拒绝"),
    errors.LOGIN_REFUSED: Said("Do not log in again by itself; tell the user", "不要自动再登录；告诉用户"),
    errors.DRAINING: Said(
        "Connect again, to any node, after `retry_after_ms`, then send it again", "等 `retry_after_ms` 后重连再发"
    ),
    errors.TOO_MANY_CONVERSATIONS: Said("Have the user delete some", "请用户先删除一些"),
    errors.WATCHLIST_FULL: Said("Have the user remove some", "请用户先移除一些"),
}

_CLOSES_ZH = {
    1000: ("正常", "随意"),
    1009: ("消息太大", "不要重发它；可以重连"),
    1012: ("节点重启", "等 `retry_after_ms` 后重连，再 `resume`"),
    1013: ("这个地址新建的连接太多", "退避后重连，至少等之前那条 429 error 的 retry_after_ms"),
    4001: ("没有按时登录", "重连并登录"),
    4002: ("说的不是这个协议", "修正客户端，不要重连"),
    4003: ("会话被注销，或令牌过期", "丢掉令牌，重新登录"),
    4004: ("沉默太久", "重连，再 `resume`"),
    4005: ("读得太慢", "重连，再 `resume`"),
    4006: ("发得太快", "放慢，退避后重连"),
    4008: ("被更新的连接取代", "不要自动重连"),
}


def after_error(kind: ErrorKind) -> Said:
    """What to do about an error."""
    if kind in _SPECIAL:
        return _SPECIAL[kind]
    if kind in RUN_ERRORS and kind.retryable:
        return _NEW_RUN
    if kind.retryable:
        return _FRESH_CODE if kind.reason.startswith("wechat_") else _AGAIN
    by_code = {401: _LOG_IN, 404: _GONE, 400: _FIX, 405: _FIX, 409: _NO_USE, 413: _FIX, 415: _FIX}
    return by_code.get(kind.code, _NO_USE)


def of_close(code: int) -> tuple[Said, Said]:
    """Why a socket is closed with a code, and what to do then."""
    close = CLOSE_CODES[code]
    # A code that was just declared is said in English until somebody says it in Chinese.
    reason, advice = _CLOSES_ZH.get(code, (close.reason, close.advice))
    return Said(close.reason, reason), Said(close.advice, advice)
