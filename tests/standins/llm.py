"""An OpenAI-compatible model server for tests: it answers, streams, fails, stalls and breaks off as the real ones do.

`LLMStandIn().app` is served over real HTTP. Each request takes the next queued `Plan`, else one made by
`standin.default`, else one derived from the last user message. A plan is built by the functions below (`says`,
`fails`, `breaks_off`…) and is nothing but the bytes to send, with gates where the server waits for the test.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.standins.server import Gate, cut, unless_left

Json = dict[str, Any]
MODEL = "standin-1"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection goes away in the middle of the answer."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Paces the `rate` plan; never a means of synchronisation."""

    seconds: float


Step = bytes | Gate | Cut | Pause


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request is answered with. `gate_first` holds even the status line back."""

    steps: Iterable[Step]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream; charset=utf-8"})
    gate_first: Gate | None = None

    def with_line_ends(self, end: bytes) -> "Plan":
        r"""The same events with `\r\n` or `\r` for every `\n`."""
        return replace(self, steps=[s.replace(b"\n", end) if isinstance(s, bytes) else s for s in self.steps])

    def split(self, sizes: Sequence[int]) -> "Plan":
        """The same bytes, sent in pieces of these sizes over and over."""
        data, size = b"".join(s for s in self.steps if isinstance(s, bytes)), itertools.cycle(sizes)
        pieces: list[Step] = []
        while data:
            n = next(size)
            pieces.append(data[:n])
            data = data[n:]
        return replace(self, steps=pieces)


@dataclass(slots=True, eq=False)
class Call:
    """One request as it came in; `disconnected` is set when the client leaves before the answer is complete.

    `port` is the client's: equal ports are one connection.
    """

    headers: Mapping[str, str]
    json: Json
    port: int
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)


def event(data: object) -> bytes:
    """One SSE event as these servers write it: JSON with its Chinese unescaped, and with half characters escaped."""
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + written.encode(errors="backslashreplace") + b"\n\n"


def chunk(delta: Json, *, finish: str | None = None, index: int = 0, **more: object) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
    return event(_envelope("chat.completion.chunk", [choice]) | {"usage": None} | more)


def text(content: str | None) -> bytes:
    return chunk({"content": content})


def usage(prompt_tokens: int, completion_tokens: int) -> bytes:
    return event(_envelope("chat.completion.chunk", []) | {"usage": _usage(prompt_tokens, completion_tokens)})


def says(*deltas: str, finish: str = "stop") -> Plan:
    """The plain case: role, deltas, finish, usage, [DONE]; a chunk per delta."""
    ending = [chunk({"content": ""}, finish=finish), usage(10, len(deltas)), DONE]
    return Plan([chunk({"role": "assistant", "content": ""}), *map(text, deltas), *ending])


def sends(*steps: Step) -> Plan:
    """An SSE answer of exactly these steps."""
    return Plan(steps)


def gated(*deltas: str) -> tuple[Plan, list[Gate]]:
    """An answer whose every delta waits behind its own gate."""
    gates = [Gate() for _ in deltas]
    plan = says(*deltas)
    opening, *rest = list(plan.steps)
    held = [step for gate, delta in zip(gates, rest[: len(deltas)], strict=True) for step in (gate, delta)]
    return replace(plan, steps=[opening, *held, *rest[len(deltas) :]]), gates


def whole(content: str, *, finish: str = "stop") -> Plan:
    """A complete JSON answer, as a server gives that does not stream."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    body = _envelope("chat.completion", [choice]) | {"usage": _usage(10, 5)}
    return _json_plan(200, body)


def fails(status: int, body: object = None, *, headers: Mapping[str, str] | None = None) -> Plan:
    """An error response: `body` is sent as JSON, or as it is when it is bytes; None is an empty body."""
    if isinstance(body, bytes) or body is None:
        return Plan([body or b""], status, {"content-type": "text/html", **(headers or {})})
    return _json_plan(status, body, headers)


def error(code: str | int | None, message: str = "no", kind: str = "invalid_request_error") -> Json:
    """OpenAI's error shape, which DashScope, vLLM and Ollama share, with a request id beside it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}, "request_id": "req-standin-1"}


def breaks_off(*deltas: str) -> Plan:
    """The connection goes away after these deltas."""
    return Plan([*map(text, deltas), Cut()])


def resets() -> Plan:
    """The connection goes away before any status line."""
    return Plan([Cut()], status=0)


def stalls(gate: Gate, *deltas: str) -> Plan:
    """After these deltas nothing comes until the gate is opened; without deltas not even the status line."""
    if not deltas:
        return replace(says("late"), gate_first=gate)
    return Plan([*map(text, deltas), gate, chunk({}, finish="stop"), DONE])


def rate(deltas_per_s: float, count: int, delta: str = "电影") -> Plan:
    """A steady stream for benchmarks. It is used up by one request: `standin.default = lambda: rate(50, 500)`."""
    return Plan(_paced(deltas_per_s, count, text(delta)))


def answer_to(question: str) -> list[str]:
    """The deltas of the default answer: a function of the question alone, with Chinese and emoji."""
    words = [question[i : i + 3] for i in range(0, len(question), 3)]
    return ["你问的是：", *words, "。", "🎬", "答案", "在", "电影", "里", "👩‍🚀", "！"]


class LLMStandIn:
    """The server. `queue` plans the next requests, `calls` are those that came; `api_key` set means it is checked."""

    def __init__(self, *, api_key: str | None = None) -> None:
        self.api_key = api_key
        self.default: Callable[[], Plan] | None = None
        self.calls: list[Call] = []
        self.called = asyncio.Condition()
        self._queue: list[Plan] = []
        self.app = Starlette(routes=[Route("/v1/chat/completions", _Endpoint(self), methods=["POST"])])

    def queue(self, *plans: Plan) -> None:
        self._queue.extend(plans)

    def reset(self) -> None:
        self.default = None
        self.calls.clear()
        self._queue.clear()

    async def call(self, index: int = 0) -> Call:
        """The request number `index`, waited for when it has not come yet."""
        async with self.called:
            await self.called.wait_for(lambda: len(self.calls) > index)
        return self.calls[index]

    async def take(self, call: Call) -> Plan:
        async with self.called:
            self.calls.append(call)
            self.called.notify_all()
        if self.api_key is not None and call.headers.get("authorization") != f"Bearer {self.api_key}":
            return fails(401, error("invalid_api_key", "Incorrect API key provided. "))
        messages = call.json.get("messages") or []
        if not messages or messages[-1]["role"] != "user" or any(m["role"] == "system" for m in messages[1:]):
            return fails(400, error("invalid_parameter_error", "messages are out of order"))
        if self._queue:
            return self._queue.pop(0)
        if self.default is not None:
            return self.default()
        deltas = answer_to(messages[-1]["content"])
        return says(*deltas) if call.json.get("stream") else whole("".join(deltas))


class _Endpoint:
    """The raw ASGI side: it must see a client leave while it answers, and be able to break its own connection."""

    def __init__(self, standin: LLMStandIn) -> None:
        self._standin = standin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        call = Call(dict(request.headers), await request.json(), scope["client"][1])
        plan = await self._standin.take(call)
        if not await unless_left(receive, _play(plan, receive, send)):
            call.disconnected.set()


async def _play(plan: Plan, receive: Receive, send: Send) -> None:
    if plan.gate_first is not None:
        await plan.gate_first.wait()
    if plan.status == 0:
        cut(receive)
        return
    headers = [(name.encode(), value.encode()) for name, value in plan.headers.items()]
    await send({"type": "http.response.start", "status": plan.status, "headers": headers})
    for step in plan.steps:
        match step:
            case bytes():
                await send({"type": "http.response.body", "body": step, "more_body": True})
            case Gate():
                await step.wait()
            case Pause():
                await asyncio.sleep(step.seconds)
            case Cut():
                cut(receive)
                return
    await send({"type": "http.response.body", "body": b""})


def _paced(deltas_per_s: float, count: int, delta: bytes) -> Iterator[Step]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    for sent in range(count):
        late_by = loop.time() - started - sent / deltas_per_s
        if late_by < 0:
            yield Pause(-late_by)
        yield delta
    yield chunk({"content": ""}, finish="stop")
    yield usage(10, count)
    yield DONE


def _envelope(kind: str, choices: list[Json]) -> Json:
    head = {"id": "chatcmpl-3f1c2b9e", "object": kind, "created": 1763625600, "model": MODEL}
    return head | {"system_fingerprint": None, "choices": choices}


def _usage(prompt_tokens: int, completion_tokens: int) -> Json:
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def _json_plan(status: int, body: object, headers: Mapping[str, str] | None = None) -> Plan:
    data = json.dumps(body, ensure_ascii=False).encode()
    return Plan([data], status, {"content-type": "application/json", **(headers or {})})
