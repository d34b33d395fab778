"""The bytes of one streamed chat completion and what they mean: no IO, no clock, no retries.

Two layers: server-sent events (WHATWG HTML, section 9.2), then the chunks of OpenAI's chat completions in the
dialects of DashScope, vLLM and Ollama. Servers differ in everything that the reference leaves open, so all of it
is read leniently; what is handed out is clean text.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from protocol import errors
from protocol.errors import ErrorKind

EVENT_LIMIT_BYTES = 1024 * 1024  # real events are under 10 KiB; a whole unstreamed answer under 100 KiB
THINK, THOUGHT = "<think>", "</think>"
BOM = b"\xef\xbb\xbf"
NOT_JSON = "not JSON"
COUNT_LIMIT = 2**31  # what PostgreSQL's integer holds; no answer has so many tokens

# Vendors spell one code as DataInspectionFailed and data_inspection_failed: only the letters are compared.
_REFUSED = {"datainspectionfailed", "contentfilter", "contentpolicyviolation", "responsibleaipolicyviolation"}
_UNPAID = {"arrearage", "billinghardlimitreached"}
_QUOTA = {"insufficientquota", "throttlingallocationquota"}
# Errors inside a stream have no HTTP status: theirs is taken from the name.
_STATUS_BY_NAME = {
    "invalidapikey": 401,
    "authenticationerror": 401,
    "accessdenied": 403,
    "modelaccessdenied": 403,
    "modelnotfound": 404,
    "notfounderror": 404,
    "invalidparameter": 400,
    "invalidparametererror": 400,
    "invalidrequesterror": 400,
    "badrequesterror": 400,
    "limitrequests": 429,
    "limitburstrate": 429,
    "insufficientquota": 429,
    "ratelimitexceeded": 429,
    "ratelimiterror": 429,
    "throttling": 429,
    "throttlingratequota": 429,
    "throttlingburstrate": 429,
    "throttlingallocationquota": 429,
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the vendor counts and bills them."""

    prompt_tokens: int
    completion_tokens: int


class Failure(Exception):  # noqa: N818 - a try that failed, not yet an error of the call
    """One try that failed. `again` says that the same server may do better; `cause` is fit for the log."""

    def __init__(self, kind: ErrorKind, cause: str, *, again: bool = False, request_id: str | None = None) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = cause
        self.again = again
        self.request_id = request_id
        self.retry_after_s: float | None = None


class Completion:
    """One answer, fed with its bytes in whatever pieces they arrive.

    `tokens` counts the pieces that the model produced, shown or not: it moves while the model is alive. `failure` is
    set when the answer cannot go on; the texts before it have been handed out. `done` is [DONE], `ended` the end.
    """

    def __init__(self) -> None:
        self.finish_reason: Literal["stop", "length"] | None = None
        self.usage: Usage | None = None
        self.model = ""
        self.failure: Failure | None = None
        self.tokens = 0
        self.done = False
        self.ended = False
        self._rest = bytearray()  # a line without its end yet
        self._after_cr = False  # a LF that follows belongs to the line before it
        self._started = False  # the first line has been seen
        self._unstreamed = False  # the body is one JSON document, not events
        self._data: list[bytes] = []  # the data lines of the event at hand
        self._data_bytes = 0
        self._half = ""  # a high surrogate that waits for its other half
        self._opening = True  # nothing shown yet: thoughts may still come first
        self._thinking = self._thought = False
        self._held = ""  # the opening so far, while it cannot be told what it is

    def feed(self, data: bytes) -> list[str]:
        """The texts to show that these bytes complete."""
        if self.failure is not None or self.done or not data:
            return []
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        if self._rest:
            self._rest += data
            if b"\n" not in data and b"\r" not in data:
                self._bound(len(self._rest))
                return []
            data = bytes(self._rest)
            self._rest.clear()
        lines = data.splitlines()
        if lines and not data.endswith((b"\n", b"\r")):
            self._rest += lines.pop()
        texts: list[str] = []
        for line in lines:
            self._line(line, texts)
        return texts

    def end(self, cut: Failure) -> list[str]:
        """The last texts, when no more bytes will come; `cut` becomes the failure of an answer that is not complete."""
        self.ended = True
        texts: list[str] = []
        if self._rest:
            self._line(bytes(self._rest), texts)
        self._event(texts)  # some servers leave the last blank line out
        if self.finish_reason is None and (self.failure is None or self.failure.cause == NOT_JSON):
            self.failure = cut
        if self.failure is None and (text := self._show("\ufffd" if self._half else "", last=True)):
            texts.append(text)
        return texts

    def _line(self, line: bytes, texts: list[str]) -> None:
        if not self._started:
            line = line.removeprefix(BOM)
            self._started = bool(line.strip())
            self._unstreamed = line.lstrip().startswith(b"{")
        if self._unstreamed or line.startswith(b"data:"):
            self._data.append(line if self._unstreamed else line[5:])
            self._data_bytes += len(line) + 1
            self._bound(self._data_bytes)
        elif not line:
            self._event(texts)

    def _event(self, texts: list[str]) -> None:
        if not self._data:
            return
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        if self.failure is not None or self.done:
            return
        if data.strip() == b"[DONE]":
            self.done = True
            self.finish_reason = self.finish_reason or "stop"
        elif text := self._chunk(data):
            texts.append(text)

    def _bound(self, size_bytes: int) -> None:
        if size_bytes > EVENT_LIMIT_BYTES:
            self._fail(errors.MODEL_UNAVAILABLE, "event too large")
            self._rest.clear()
            self._data.clear()

    def _fail(self, kind: ErrorKind, cause: str, *, again: bool = False) -> None:
        self.failure = self.failure or Failure(kind, cause, again=again)

    def _chunk(self, data: bytes) -> str:
        """The text to show that one JSON document holds, often none."""
        exact = True
        try:
            chunk = orjson.loads(data)
        except ValueError:
            exact = False  # orjson refuses the half characters that some servers send
            try:
                chunk = json.loads(data.decode(errors="replace"))
            except (ValueError, RecursionError):
                if self.finish_reason is None:
                    self._fail(errors.MODEL_UNAVAILABLE, NOT_JSON, again=True)
                return ""
        if not isinstance(chunk, dict):
            return ""
        choices = chunk.get("choices")
        if chunk.get("error") or (choices is None and ("code" in chunk or chunk.get("object") == "error")):
            self.failure = self.failure or failure_from(chunk)
            return ""
        if (usage := chunk.get("usage")) is not None:
            self.usage = _usage(usage) or self.usage
        if not self.model:
            self.model = identifier(chunk.get("model")) or ""
        text = ""
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and not choice.get("index"):
                text += self._choice(choice, exact=exact)
        return text

    def _choice(self, choice: dict[str, Any], *, exact: bool) -> str:
        delta = choice.get("delta") or choice.get("message")
        text = ""
        if isinstance(delta, dict):
            content = delta.get("content")
            if isinstance(content, str) and content:
                self.tokens += 1
                text = self._show(content if exact and not self._half else self._whole_characters(content))
            elif delta.get("reasoning_content") or delta.get("reasoning"):
                self.tokens += 1
        reason = choice.get("finish_reason")
        if reason or self._unstreamed:  # some servers write "" for null
            self._finish(str(reason or "stop"))
        return text

    def _finish(self, reason: str) -> None:
        if reason in {"content_filter", "sensitive"}:
            self._fail(errors.MODEL_REFUSED, reason)
        elif reason in {"error", "abort"}:
            self._fail(errors.MODEL_UNAVAILABLE, f"finish_reason {reason}", again=True)
        else:
            self.finish_reason = "length" if reason in {"length", "max_tokens"} else "stop"

    def _whole_characters(self, content: str) -> str:
        """Joins the halves of characters that were split over two deltas; a half that stays alone becomes U+FFFD."""
        content = self._half + content
        self._half = content[-1] if "\ud800" <= content[-1] <= "\udbff" else ""
        if self._half:
            content = content[:-1]
        return content.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _show(self, content: str, *, last: bool = False) -> str:
        """`content` without NUL (PostgreSQL cannot store it) and without the thoughts that open the answer."""
        if "\0" in content:
            content = content.replace("\0", "")
        if not self._opening:
            return content
        self._held += content
        if not self._thinking:
            seen = self._held.lstrip()
            if THINK.startswith(seen) and seen != THINK and not last:
                return ""
            if not seen.startswith(THINK):
                self._opening = not seen
                shown, self._held = seen if self._thought or not seen else self._held, ""
                return shown
            self._thinking = self._thought = True
            self._held = seen[len(THINK) :]
        _, thought, after = self._held.partition(THOUGHT)
        if not thought:
            self._held = self._held[1 - len(THOUGHT) :]
            return ""
        self._thinking = False
        self._held = ""
        return self._show(after, last=last)


def _usage(usage: object) -> Usage | None:
    match usage:
        case {"prompt_tokens": int(prompt), "completion_tokens": int(completion)}:
            if 0 <= prompt < COUNT_LIMIT and 0 <= completion < COUNT_LIMIT:
                return Usage(prompt, completion)
    return None


def failure_from(body: object, status: int | None = None) -> Failure:
    """Sorts an error, in any of the vendors' shapes; `status` is None for one that came inside a stream.

    `{"error": {…}}`, `{"error": "text"}`, `{"object": "error", …}`, DashScope's `{"code", "message", "request_id"}`, or
    no JSON at all (None). The code is a string, an int or null; where it names nothing, the type does.
    """
    outer = body if isinstance(body, dict) else {}
    inner = outer.get("error") or outer
    code, kind, message = None, None, inner
    if isinstance(inner, dict):
        code, kind, message = inner.get("code"), inner.get("type"), inner.get("message")
    number = re.fullmatch("[45][0-9]{2}", str(code))
    label = str(kind or "") if number or not code else str(code)
    name = re.sub("[^a-z]", "", label.lower())
    if status is None:
        status = int(number[0]) if number else _STATUS_BY_NAME.get(name, 500)
    verdict, again = _verdict(status, name, str(message or "").lower())
    cause = f"{status} {identifier(label) or ''}".strip()
    return Failure(verdict, cause, again=again, request_id=identifier(outer.get("request_id")))


def identifier(value: object) -> str | None:
    """A vendor's code, id or name when it looks like one; anything else may quote the prompt, or be unfit to store."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w.:/@+-]{1,80}", value, re.ASCII) else None


def _verdict(status: int, name: str, message: str) -> tuple[ErrorKind, bool]:
    if name in _REFUSED or "datainspectionfailed" in message:
        return errors.MODEL_REFUSED, False
    # The quota of tokens per minute comes back by itself; the free one, and one that wants money, do not.
    used_up = name in _QUOTA and ("free" in message or "billing" in message)
    if used_up or name in _UNPAID or status in {401, 402, 403, 404, 405} or status < 400:
        return errors.MODEL_MISCONFIGURED, False
    if status == 429:
        return errors.MODEL_BUSY, True
    if status >= 500 or status in {408, 499}:
        return errors.MODEL_UNAVAILABLE, True
    return errors.MODEL_REJECTED, False
