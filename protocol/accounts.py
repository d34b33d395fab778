"""Who is speaking: the caller of an operation, and the operations that log in, refresh and log out."""

from dataclasses import dataclass, field
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from protocol import errors
from protocol.operation import NOT_BLANK, STORABLE, Access, Body, Noun, OperationTable, Rate, Request, Route, Shape

LoginCode = Annotated[str, Field(min_length=1, max_length=256), NOT_BLANK, STORABLE]
"""A `wx.login` code: opaque, about 32 characters today, valid five minutes, usable once."""

Token = Annotated[str, Field(min_length=1, max_length=4096), STORABLE]


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone whose identity was established. `user_id` is namespaced, so a guest's is never a user's.

    `conversation_id` is the standing conversation, where questions go that name none. `expires_at` is epoch seconds,
    None for guests, who have no session to expire.
    """

    kind: Literal["user", "guest"]
    user_id: str = field(repr=False)
    session_id: str
    conversation_id: UUID
    openid: str | None = field(default=None, repr=False)
    expires_at: float | None = None


class Ping(Request):
    type: Literal["ping"]


class LogIn(Request):
    """Exchange a fresh `wx.login` code for a session."""

    type: Literal["login"]
    code: LoginCode


class LoggedIn(Noun):
    """`token` is a bearer token for `expires_in` seconds."""

    openid: str
    unionid: Annotated[str | None, Field(exclude_if=lambda unionid: unionid is None)] = None
    session_id: str
    token: str
    expires_in: int


class Authenticate(Request):
    """Log in again without `wx.login`, or refresh the token of a socket that is in use."""

    type: Literal["auth"]
    token: Token


class Authenticated(Noun):
    openid: Annotated[str | None, Field(exclude_if=lambda openid: openid is None)] = None
    session_id: str
    token: str
    expires_in: int


class LogOut(Request):
    """Revoke the session: its tokens stop working and its sockets are closed."""

    type: Literal["logout"]


class LoginBody(Body):
    code: LoginCode


operations = OperationTable()

_SESSION_ID = "O8fPy2eTnVq0b3sB7mXhWc1dKzJr4aLu"
_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ3eF9leGFtcGxlIn0.not-a-signature"  # noqa: S105 (an example that proves nothing)

PING = operations.declare(
    "ping",
    Ping,
    type(None),
    summary="Keep the connection alive; allowed before login",
    access=Access.ANYONE,
    reply_type="pong",
    message="pong",
    quiet=True,
    example=Ping(type="ping", id="p1"),
)
LOGIN = operations.declare(
    "login",
    LogIn,
    LoggedIn,
    summary="Log in with a code from wx.login",
    access=Access.ANYONE,
    message="登录成功",
    error_type="login_response",  # a page that waits for it reads `code` there
    deadline_s=15.0,  # WeChat alone may take its whole 10 s
    routes=(Route("POST", "/wechat/login", Shape.ENVELOPE, LoginBody),),
    rate=Rate.LOGIN,
    errors=(
        errors.LOGIN_CODE_INVALID,
        errors.LOGIN_CODE_EXPIRED,
        errors.LOGIN_REFUSED,
        errors.LOGIN_FAILED,
        errors.RATE_LIMITED,
        errors.WECHAT_QUOTA,
        errors.WECHAT_UNAVAILABLE,
        errors.WECHAT_TIMEOUT,
        errors.WECHAT_MISCONFIGURED,
    ),
    example=LogIn(type="login", code="0a3bKx000example"),
    example_reply=LoggedIn(openid="o6zAJs0example", session_id=_SESSION_ID, token=_TOKEN, expires_in=604_800),
)
AUTH = operations.declare(
    "auth",
    Authenticate,
    Authenticated,
    summary="Log in with a token, or refresh it",
    access=Access.ANYONE,
    message="登录成功",
    error_type="auth_response",
    errors=(errors.TOKEN_INVALID, errors.TOKEN_EXPIRED, errors.SESSION_REVOKED),
    example=Authenticate(type="auth", token=_TOKEN),
    example_reply=Authenticated(openid="o6zAJs0example", session_id=_SESSION_ID, token=_TOKEN, expires_in=604_800),
)
LOGOUT = operations.declare(
    "logout",
    LogOut,
    type(None),
    summary="Revoke the session",
    access=Access.USER,
    message="已退出登录",
    example=LogOut(type="logout"),
)
