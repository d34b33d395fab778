"""WeChat's servers for tests: logins, access tokens and checks of texts, which answer and misbehave as the real ones.

`WeChatStandIn().app` is served over real HTTP. `issue_code` is what `wx.login` does on a phone. A queued fault is met
by the next request instead of the register, unless the fault says that the code is spent all the same. Texts are
judged by the words in them; each path has its own queue of faults.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.standins.server import Gate, cut, unless_left

CodeState = Literal["unused", "used", "expired", "blocked"]
ERRMSG = {
    -1: "system error",
    40003: "invalid openid",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40013: "invalid appid",
    40029: "invalid code",
    40129: "invalid scene",
    40125: "invalid appsecret",
    40163: "code been used",
    40164: "invalid ip, not in whitelist",
    40226: "code blocked",
    41002: "appid missing",
    41004: "appsecret missing",
    41008: "missing code",
    42001: "access_token expired",
    42003: "code expired",
    44002: "empty post data",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    61010: "code is expired",
    87014: "risky content",
}


LOGIN, TOKEN, CHECK = "/sns/jscode2session", "/cgi-bin/stable_token", "/wxa/msg_sec_check"
RISKY, TO_REVIEW = "违禁", "存疑"
"""Words that make a text what they say."""

JSON = {"content-type": "application/json; encoding=utf-8"}
TOKEN_LIFE_S = 7200
MAX_CHARACTERS = 2500


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


@dataclass(frozen=True, slots=True)
class Check:
    """One request to check a text."""

    openid: str
    content: str
    token: str
    raw: bytes


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
    """The server. `queue` plans faults of logins, `calls` are their queries; `unionids` off is an unbound account.

    `checks` are the texts that came to be checked under a good token, `token_requests` what asked for one. `away_users`
    have not been in the mini program for two hours.
    """

    def __init__(self, *, appid: str = "wx0123456789abcdef", secret: str = "s3cr3t-of-the-app", unionids: bool = False):
        self.appid = appid
        self.secret = secret
        self.unionids = unionids
        self.codes: dict[str, Code] = {}
        self.calls: list[Mapping[str, str]] = []
        self.checks: list[Check] = []
        self.token_requests: list[Mapping[str, Any]] = []
        self.away_users: set[str] = set()
        self.checked = asyncio.Condition()
        self.rotates = True
        """Whether a forced token is a new one: asked twice in 30 s it is not."""
        self.expires_in = TOKEN_LIFE_S
        self._token = ""
        self._dead: dict[str, int] = {}
        self._held: list[tuple[str, Gate]] = []
        self._faults: list[Fault] = []
        self._faults_of: dict[str, list[Fault]] = {TOKEN: [], CHECK: []}
        self.app = Starlette(
            routes=[
                Route(LOGIN, _Endpoint(self), methods=["GET"]),
                *(Route(path, _ApiEndpoint(self, path), methods=["POST"]) for path in (TOKEN, CHECK)),
            ]
        )

    def issue_code(self, openid: str | None = None, *, state: CodeState = "unused") -> str:
        """A fresh code for this person, or for a new one."""
        openid = openid or "o" + secrets.token_urlsafe(20)
        code = "0a" + secrets.token_urlsafe(22)
        self.codes[code] = Code(openid, "o6" + openid[2:], state)
        return code

    def queue(self, *faults: Fault) -> None:
        self._faults.extend(faults)

    def queue_for(self, path: str, *faults: Fault) -> None:
        """Faults of tokens or of checks."""
        self._faults_of[path].extend(faults)

    def holds(self, words: str) -> Gate:
        """Have every check of a text with these words wait for the gate."""
        gate = Gate()
        self._held.append((words, gate))
        return gate

    def end_token(self, errcode: int = 42001) -> None:
        """The token of the moment is good no more, as when it ended or leaked, and the next is another."""
        self.refuse_token(errcode)
        self._token = ""

    def refuse_token(self, errcode: int = 40001) -> None:
        """Checks take the token of the moment no more, and it is still the one that is given."""
        self._dead[self._token] = errcode

    def reset(self) -> None:
        self.codes.clear()
        self.calls.clear()
        self._faults.clear()
        self.unionids = False
        for faults in self._faults_of.values():
            faults.clear()
        for _, gate in self._held:
            gate.open()
        self._held.clear()
        self.checks.clear()
        self.token_requests.clear()
        self.away_users.clear()
        self.rotates, self.expires_in = True, TOKEN_LIFE_S

    async def take_post(self, path: str, token: str, raw: bytes) -> Fault:
        """What is to be done about one request for a token, or for a check."""
        faults = self._faults_of[path]
        fault = faults.pop(0) if faults else None
        if fault is not None and not fault.spends:
            return fault
        stall = None
        if path == TOKEN:
            body = self._grant(raw)
        else:
            async with self.checked:
                before = len(self.checks)
                body = self._judge(token, raw)
                self.checked.notify_all()
            for check in self.checks[before:]:
                stall = next((gate for words, gate in self._held if words in check.content), None)
        if fault is None:
            return Fault(body=body, headers=JSON, stall=stall)
        return Fault(fault.status, body, fault.headers, fault.stall, fault.reset)

    def _grant(self, raw: bytes) -> bytes:
        asked = _object(raw)
        if asked is None:
            return _error(47001)
        self.token_requests.append(asked)
        for wrong, errcode in (
            (not asked.get("appid"), 41002),
            (asked.get("appid") != self.appid, 40013),
            (not asked.get("secret"), 41004),
            (asked.get("secret") != self.secret, 40125),
            (asked.get("grant_type") != "client_credential", 40002),
        ):
            if wrong:
                return _error(errcode)
        if not self._token or (asked.get("force_refresh") and self.rotates):
            if self._token:
                self._dead[self._token] = 40001
            self._token = "90_" + secrets.token_urlsafe(60)
        return json.dumps({"access_token": self._token, "expires_in": self.expires_in}).encode()

    def _judge(self, token: str, raw: bytes) -> bytes:
        asked = _object(raw) or {}
        if errcode := self._wrong_check(token, raw, asked):
            return _error(errcode)
        self.checks.append(Check(asked["openid"], asked["content"], token, raw))
        if asked["openid"] in self.away_users:
            return _error(61010)
        # Chinese that is escaped is not seen at all, and passes.
        seen = raw.decode()
        if RISKY in seen:
            return _verdict("risky", 20001)
        return _verdict("review", 21000) if TO_REVIEW in seen else _verdict("pass", 100)

    def _wrong_check(self, token: str, raw: bytes, asked: Mapping[str, Any]) -> int:
        content = asked.get("content")
        checks = (
            (not token or token != self._token or token in self._dead, self._dead.get(token, 40001)),
            (not raw or content == "", 44002),
            (not isinstance(content, str) or asked.get("version") != 2 or "access_token" in asked, 47001),
            (len(content or "") > MAX_CHARACTERS, 47001),
            (asked.get("scene") not in (1, 2, 3, 4), 40129),
            (not str(asked.get("openid")).startswith("o"), 40003),
        )
        return next((errcode for wrong, errcode in checks if wrong), 0)

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
        await _answer_with(fault, receive, send)


class _ApiEndpoint:
    """The same for what is posted."""

    def __init__(self, standin: WeChatStandIn, path: str) -> None:
        self._standin = standin
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        raw = await request.body()
        fault = await self._standin.take_post(self._path, request.query_params.get("access_token", ""), raw)
        if fault.stall is not None:
            await unless_left(receive, fault.stall.wait())
        await _answer_with(fault, receive, send)


async def _answer_with(fault: Fault, receive: Receive, send: Send) -> None:
    if fault.reset:
        cut(receive)
        return
    headers = {"content-type": "text/plain", "content-length": str(len(fault.body)), **fault.headers}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": raw})
    await send({"type": "http.response.body", "body": fault.body})


def _object(raw: bytes) -> Mapping[str, Any] | None:
    try:
        asked = json.loads(raw)
    except ValueError:
        return None
    return asked if isinstance(asked, dict) else None


def _verdict(suggest: str, label: int) -> bytes:
    detail = [
        {"strategy": "content_model", "errcode": 0, "suggest": suggest, "label": label, "prob": 90},
        {"strategy": "keyword", "errcode": 0},
    ]
    ids = {"trace_id": "62987eb8-18ca076c-37fc373b", "result": {"suggest": suggest, "label": label}}
    return json.dumps({"errcode": 0, "errmsg": "ok", "detail": detail} | ids).encode()


def _error(errcode: int) -> bytes:
    errmsg = f"{ERRMSG.get(errcode, 'error')}, rid: 66b5fb8f-5e3c0071-3d7f539a"
    return json.dumps({"errcode": errcode, "errmsg": errmsg}).encode()
