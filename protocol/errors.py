"""Every error and every close code that a client can meet, as data.

`ErrorKind` is what programs switch on; `OperationError` is one occurrence. The documents are generated from
`ERRORS` and `CLOSE_CODES`, so a reason that is not declared here cannot be sent.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """A kind of failure: `code` is HTTP-like, `message` is for people, `retryable` is a promise to programs."""

    reason: str
    code: int
    message: str
    retryable: bool = False


ERRORS: dict[str, ErrorKind] = {}


def _declare(reason: str, code: int, message: str, *, retryable: bool = False) -> ErrorKind:
    if reason in ERRORS:
        raise ValueError(f"error reason {reason!r} is declared twice")
    ERRORS[reason] = kind = ErrorKind(reason, code, message, retryable)
    return kind


# What the client sent.
BAD_JSON = _declare("bad_json", 400, "消息不是有效的 JSON")
NOT_AN_OBJECT = _declare("not_an_object", 400, "消息必须是一个 JSON 对象")
DUPLICATE_KEY = _declare("duplicate_key", 400, "消息里有重复的键")
BINARY_REFUSED = _declare("binary_refused", 400, "只接受文本帧")
UNKNOWN_TYPE = _declare("unknown_type", 400, "未知的消息类型")
BAD_REQUEST = _declare("bad_request", 400, "不是有效的 HTTP 请求")
INVALID_FIELD = _declare("invalid_field", 400, "字段有误")
NOT_FOUND = _declare("not_found", 404, "没有找到")
CONVERSATION_NOT_FOUND = _declare("conversation_not_found", 404, "没有找到这个会话")
MESSAGE_NOT_FOUND = _declare("message_not_found", 404, "没有找到这条消息")
RUN_NOT_FOUND = _declare("run_not_found", 404, "没有找到这次回答")
MOVIE_NOT_FOUND = _declare("movie_not_found_in_db", 404, "影片库里没有这部电影")
CAPTURE_NOT_FOUND = _declare("capture_not_found", 404, "没有找到这次片单记录")
GUEST_NOT_FOUND = _declare("guest_not_found", 404, "没有找到这位访客")
METHOD_NOT_ALLOWED = _declare("method_not_allowed", 405, "不支持这种请求方法")
TOO_LARGE = _declare("too_large", 413, "消息太大")
UNSUPPORTED_MEDIA = _declare("unsupported_media_type", 415, "请求体必须是 application/json")
ORIGIN_REFUSED = _declare("origin_refused", 403, "不允许的来源")

# Who is speaking.
LOGIN_REQUIRED = _declare("login_required", 401, "请先登录")
TOKEN_INVALID = _declare("token_invalid", 401, "令牌无效，请重新登录")
TOKEN_EXPIRED = _declare("token_expired", 401, "登录已过期，请重新登录")
SESSION_REVOKED = _declare("session_revoked", 401, "登录已失效，请重新登录")
GUESTS_OFF = _declare("guests_off", 401, "请先登录：本服务不接受访客")
GUEST_ADOPTED = _declare("guest_adopted", 409, "这位访客的内容已经归入一个账号")
LOGIN_CODE_INVALID = _declare("login_code_invalid", 401, "登录凭证无效或已使用，请重新调用 wx.login")
LOGIN_CODE_EXPIRED = _declare("login_code_expired", 401, "登录凭证已过期，请重新调用 wx.login")
LOGIN_REFUSED = _declare("login_refused", 403, "微信认为此次登录有风险，已拒绝")
LOGIN_FAILED = _declare("login_failed", 502, "微信登录失败")

# Too much, too fast.
RATE_LIMITED = _declare("rate_limited", 429, "消息太频繁，请稍后再试", retryable=True)
CONVERSATION_BUSY = _declare("conversation_busy", 409, "这个会话里还有回答正在进行", retryable=True)
QUEUE_FULL = _declare("queue_full", 429, "这个会话里排队的问题太多", retryable=True)
TOO_MANY_RUNS = _declare("too_many_runs", 429, "同时进行的回答太多，请等其中一个结束", retryable=True)
TOO_MANY_CONVERSATIONS = _declare("too_many_conversations", 409, "会话太多，最多 5000 个，请先删除一些")
WATCHLIST_FULL = _declare("watchlist_full", 409, "片单已满，最多 1000 部，请先移除一些")
TOO_MANY_IN_FLIGHT = _declare("too_many_in_flight", 429, "同时处理的消息太多，请稍后再试", retryable=True)

# Vendors. What is retryable here is truthful for the same request sent again (a login with a fresh code).
WECHAT_QUOTA = _declare("wechat_quota", 429, "微信登录次数已达上限，请一分钟后再试", retryable=True)
WECHAT_UNAVAILABLE = _declare("wechat_unavailable", 502, "微信服务暂时不可用，请重新登录", retryable=True)
WECHAT_TIMEOUT = _declare("wechat_timeout", 504, "微信服务响应超时，请重新登录", retryable=True)
WECHAT_MISCONFIGURED = _declare("wechat_misconfigured", 500, "服务端的微信配置有误，请联系管理员")
MODEL_UNAVAILABLE = _declare("model_unavailable", 502, "模型服务暂时不可用，请稍后再试", retryable=True)
MODEL_TIMEOUT = _declare("model_timeout", 504, "模型服务响应超时，请稍后再试", retryable=True)
MODEL_BUSY = _declare("model_busy", 503, "模型服务繁忙，请稍后再试", retryable=True)
MODEL_INTERRUPTED = _declare("model_interrupted", 502, "回答中断，请重试", retryable=True)
CONTENT_REFUSED = _declare("content_refused", 400, "内容未通过安全检查，请换个说法")
MODEL_REFUSED = CONTENT_REFUSED  # to a client it is one, whether the model's vendor or WeChat refuses
CONTENT_UNCHECKED = _declare("content_unchecked", 503, "内容安全检查暂时不可用，请稍后再试", retryable=True)
MODEL_REJECTED = _declare("model_rejected", 500, "模型服务不接受这个请求，请联系管理员")
MODEL_MISCONFIGURED = _declare("model_misconfigured", 500, "服务端的模型配置有误，请联系管理员")
FILM_SOURCE_UNAVAILABLE = _declare(
    "film_source_unavailable", 503, "影片库里还没有这部电影，影片资料来源暂时不可用，请稍后再试", retryable=True
)

# Ourselves.
INTERNAL = _declare("internal", 500, "服务内部错误")
STORAGE_UNAVAILABLE = _declare("storage_unavailable", 503, "存储暂时不可用，请稍后再试", retryable=True)
RUN_LOST = _declare("run_lost", 503, "回答因服务故障中断，请重新提问", retryable=True)
DRAINING = _declare("draining", 503, "服务正在重启，请稍后重连", retryable=True)
DEADLINE_EXCEEDED = _declare("deadline_exceeded", 504, "处理超时，请稍后再试", retryable=True)


class OperationError(Exception):
    """A failure that the client may see: nothing internal in it, nobody else's ids, no vendor's text.

    `field` names the offending field as the client wrote it (`ids.3`); `retry_after_ms` is when to try again.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str | None = None,
        *,
        field: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        self.kind = kind
        self.message = message or kind.message
        self.field = field
        self.retry_after_ms = retry_after_ms
        super().__init__(f"{kind.reason}: {self.message}")


@dataclass(frozen=True, slots=True)
class CloseCode:
    """Why a socket is closed by the server, and what its client does next."""

    code: int
    reason: str
    advice: str


CLOSE_CODES: dict[int, CloseCode] = {}


def _close(code: int, reason: str, advice: str) -> CloseCode:
    CLOSE_CODES[code] = close = CloseCode(code, reason, advice)
    return close


NORMAL = _close(1000, "normal", "as it likes")
TOO_BIG = _close(1009, "message too big", "do not resend it")
RESTARTING = _close(1012, "node restarting", "reconnect after retry_after_ms")
OVERLOADED = _close(
    1013,
    "too many new sockets from this address",
    "reconnect with back-off, not before the retry_after_ms of the error 429",
)
NO_LOGIN = _close(4001, "no login in time", "reconnect and log in")
NOT_THE_PROTOCOL = _close(4002, "not speaking the protocol", "fix the client, do not reconnect")
REVOKED = _close(4003, "session revoked or token expired", "log in again")
SILENT = _close(4004, "silent too long", "reconnect")
SLOW_READER = _close(4005, "reads too slowly", "reconnect")
FAST_SENDER = _close(4006, "sends too fast", "back off")
REPLACED = _close(4008, "replaced by a newer socket", "do not reconnect by itself")
