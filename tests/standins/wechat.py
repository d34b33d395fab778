"""WeChat's login server for tests: it keeps a register of codes, and answers and misbehaves as the real one does.

`WeChatStandIn().app` is served over real HTTP. `issue_code` is what `wx.login` does on a phone. A queued fault is met
by the next request instead of the register, unless the fault says that the code is spent all the same.
"""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.standins.server import Gate, cut, unless_left

CodeState = Literal["unused", "used", "expired", "blocked"]
ERRMSG = {
    -1: "system error",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40013: "invalid appid",
    40029: "invalid code",
    40125: "invalid appsecret",
    40163: "code been used",
    40164: "invalid ip, not in whitelist",
    40226: "code blocked",
    41002: "appid missing",
    41004: "appsecret missing",
    41008: "missing code",
    42003: "code expired",
    45011: "api minute-quota reach limit, must slower, retry next minute",
}


@dataclass(slots=True)
class Code:
    openid: str
    unionid: str
    state: CodeState = "unused"


@dataclass(frozen=True, slots=True)
class Fault:
    """What one request meets. `spends` runs the register first, as when only the answer is lost."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: Gate | None = None
    reset: bool = False
    spends: bool = False


def answers(body: object, status: int = 200) -> Fault:
    """This body, as JSON, or as it is when it is bytes."""
    return Fault(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def refuses(errcode: int, times: int = 1) -> list[Fault]:
    return [Fault(body=_error(errcode)) for _ in range(times)]


def bad_gateway() -> Fault:
    return Fault(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", {"content-type": "text/html"})


def redirects(location: str) -> Fault:
    return Fault(302, b"", {"location": location})


def stalls(gate: Gate) -> Fault:
    """The code is spent, and the answer waits until the gate is opened."""
    return Fault(stall=gate, spends=True)


def resets() -> Fault:
    """The code is spent, and the connection goes away before the answer."""
    return Fault(reset=True, spends=True)


class WeChatStandIn:
    """The server. `queue` plans faults, `calls` are the queries that came; `unionids` off is an unbound account."""

    def __init__(self, *, appid: str = "wx0123456789abcdef", secret: str = "s3cr3t-of-the-app", unionids: bool = False):
        self.appid = appid
        self.secret = secret
        self.unionids = unionids
        self.codes: dict[str, Code] = {}
        self.calls: list[Mapping[str, str]] = []
        self._faults: list[Fault] = []
        self.app = Starlette(routes=[Route("/sns/jscode2session", _Endpoint(self), methods=["GET"])])

    def issue_code(self, openid: str | None = None, *, state: CodeState = "unused") -> str:
        """A fresh code for this person, or for a new one."""
        openid = openid or "o" + secrets.token_urlsafe(20)
        code = "0a" + secrets.token_urlsafe(22)
        self.codes[code] = Code(openid, "o6" + openid[2:], state)
        return code

    def queue(self, *faults: Fault) -> None:
        self._faults.extend(faults)

    def reset(self) -> None:
        self.codes.clear()
        self.calls.clear()
        self._faults.clear()
        self.unionids = False

    def take(self, query: Mapping[str, str]) -> Fault:
        """What is to be done about one request."""
        self.calls.append(query)
        fault = self._faults.pop(0) if self._faults else None
        if fault is None:
            return Fault(body=self._answer(query))
        if fault.spends:
            body = self._answer(query)
            return Fault(fault.status, body, fault.headers, fault.stall, fault.reset)
        return fault

    def _answer(self, query: Mapping[str, str]) -> bytes:
        if errcode := self._wrong_parameter(query):
            return _error(errcode)
        code = self.codes.get(query["js_code"])
        if code is None:
            return _error(40029)
        match code.state:
            case "used":
                return _error(40163)
            case "expired":
                return _error(42003)
            case "blocked":
                return _error(40226)
        code.state = "used"
        session = {"session_key": base64.b64encode(secrets.token_bytes(16)).decode(), "openid": code.openid}
        return json.dumps(session | ({"unionid": code.unionid} if self.unionids else {})).encode()

    def _wrong_parameter(self, query: Mapping[str, str]) -> int:
        """The first errcode in the order in which WeChat looks at the parameters, or 0."""
        checks = (
            (not query.get("appid"), 41002),
            (query.get("appid") != self.appid, 40013),
            (not query.get("secret"), 41004),
            (query.get("secret") != self.secret, 40125),
            (query.get("grant_type") != "authorization_code", 40002),
            (not query.get("js_code"), 41008),
        )
        return next((errcode for wrong, errcode in checks if wrong), 0)


class _Endpoint:
    """The raw ASGI side, which can break its own connection."""

    def __init__(self, standin: WeChatStandIn) -> None:
        self._standin = standin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._standin.take(dict(Request(scope).query_params))
        if fault.stall is not None:
            await unless_left(receive, fault.stall.wait())
        if fault.reset:
            cut(receive)
            return
        headers = {"content-type": "text/plain", "content-length": str(len(fault.body)), **fault.headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": fault.status, "headers": raw})
        await send({"type": "http.response.body", "body": fault.body})


def _error(errcode: int) -> bytes:
    errmsg = f"{ERRMSG.get(errcode, 'error')}, rid: 66b5fb8f-5e3c0071-3d7f539a"
    return json.dumps({"errcode": errcode, "errmsg": errmsg}).encode()
