"""Streams a chat completion from any OpenAI-compatible server: DashScope, vLLM, Ollama, OpenAI.

It answers which server is asked, how often, and what the client is told when none answers. What the bytes of an
answer mean is `completion.py`'s; what is asked, and who may read the answer, is the caller's.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

import httpx
import structlog

from protocol import errors
from protocol.errors import ErrorKind, OperationError
from wsserver.vendors.completion import Completion, Failure, Usage, failure_from, identifier
from wsserver.vendors.waiting import Alarm, jittered, retry_after_s, until

__all__ = ["Finished", "LanguageModel", "ModelServer", "TextDelta", "Turn", "Usage"]

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 4.0  # another continent's TLS takes under 1 s; a server that is loading its model refuses at once
FIRST_TOKEN_TIMEOUT_S = 60.0  # Ollama loads a model before its first byte; nobody looks at a blank page for longer
CHUNK_TIMEOUT_S = 30.0  # a healthy server sends many tokens a second, and a queue in front of it has been passed
TOTAL_TIMEOUT_S = 300.0  # 4,096 tokens at 15 tokens/s, the slowest server worth waiting for
MAX_TOKENS = 4096  # of one answer: a model in a loop ends as `length`
TRIES = 3  # on one server; a fourth has seldom found what three did not
BACKOFF_S = 0.5  # doubles per try, with jitter: 3 tries end within 1.5 s of waiting
LONGEST_PAUSE_S = 10.0  # a server that asks for a longer pause is left for the next one
REST_S = 10.0  # a server that has just failed is tried last for this long
RETRY_AFTER_S = 5  # told to clients when a busy server names no time: limits are per second and per minute
USAGE_WAIT_S = 5.0  # from the finish reason to the usage chunk: the answer is complete without it
GOODBYE_WAIT_S = 0.2  # from [DONE] to the end of the body: worth it, because the connection can then be used again
ERROR_BODY_LIMIT_BYTES = 65_536
ERROR_BODY_WAIT_S = 2.0  # the status alone says enough

# Which failure is told when several servers failed: first what passes by itself.
_TELLING = (
    errors.MODEL_REFUSED,
    errors.MODEL_BUSY,
    errors.MODEL_TIMEOUT,
    errors.MODEL_UNAVAILABLE,
    errors.MODEL_REJECTED,
    errors.MODEL_MISCONFIGURED,
)


@dataclass(frozen=True, slots=True)
class ModelServer:
    """One configured server. `extra_body` is merged over the request: `{"enable_thinking": False}`."""

    base_url: str
    api_key: str | None = field(repr=False)
    model: str
    extra_body: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        url = httpx.URL(self.base_url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError(f"not a base URL of a model server: {self.base_url!r}")
        # h11 refuses such a header with an error that quotes it, key and all.
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError("the model server's API key has characters that no header can carry")

    @property
    def host(self) -> str:
        return httpx.URL(self.base_url).host


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the conversation, as the model is shown it."""

    role: Literal["system", "user", "assistant"]
    content: str = field(repr=False)


@dataclass(slots=True)
class TextDelta:
    """Text to show, as much as was there at once: never empty, always encodable as UTF-8, without NUL.

    Not frozen, which takes twice as long.
    """

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a complete answer. `model` is the vendor's word: an alias moves silently."""

    finish_reason: Literal["stop", "length"]
    usage: Usage | None
    model: str


@dataclass(slots=True)
class _Call:
    """What the log line of one call says."""

    started: float = field(default_factory=time.monotonic)
    server: ModelServer | None = None
    outcome: str = "failed"
    first_token_ms: int | None = None
    completion: Completion | None = None
    failures: list[str] = field(default_factory=list)

    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)

    def log(self) -> None:
        usage = self.completion.usage if self.completion else None
        log.info(
            "model call",
            host=self.server.host if self.server else None,
            model=self.completion.model if self.completion else None,
            outcome=self.outcome,
            failures=self.failures,
            first_token_ms=self.first_token_ms,
            ms=self.elapsed_ms(),
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
        )


def _nobody(_outcome: str, _elapsed_s: float) -> None:
    """Counts nothing."""


class LanguageModel:
    """The configured servers as one: the first that works answers."""

    def __init__(
        self,
        servers: Sequence[ModelServer],
        client: httpx.AsyncClient,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        first_token_timeout_s: float = FIRST_TOKEN_TIMEOUT_S,
        chunk_timeout_s: float = CHUNK_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
        max_tokens: int = MAX_TOKENS,
        backoff_s: float = BACKOFF_S,
        count: Callable[[str, float], None] = _nobody,
    ) -> None:
        """`count` is told the outcome of each call, to its end, and its seconds."""
        if not servers:
            raise ValueError("a language model needs at least one server")
        self._servers = list(servers)
        self._rests_until = [0.0] * len(self._servers)
        self._client = client
        # Reads have deadlines of their own below: httpx has one number for the first token and for all later ones.
        self._timeout = httpx.Timeout(connect_timeout_s, read=None)
        self._first_token_timeout_s = first_token_timeout_s
        self._chunk_timeout_s = chunk_timeout_s
        self._total_timeout_s = total_timeout_s
        self._max_tokens = max_tokens
        self._backoff_s = backoff_s
        self._count = count

    async def stream(self, turns: Sequence[Turn]) -> AsyncGenerator[TextDelta | Finished, None]:
        """Yields the answer's deltas and then exactly one `Finished`, or raises a MODEL_* `OperationError`.

        Closing the generator, or cancelling the task that reads it, closes the HTTP stream: that stops the server too.
        """
        call = _Call()
        try:
            reply, first_texts = await self._first_texts(turns, call)
            call.completion = reply.completion
            call.first_token_ms = call.elapsed_ms()
            texts: list[str] | None = first_texts
            async with aclosing(reply):
                try:
                    while texts is not None:
                        if texts:
                            yield TextDelta("".join(texts))
                        texts = await reply.read()
                except Failure as failure:
                    call.failures.append(failure.cause)
                    refused = failure.kind is errors.MODEL_REFUSED
                    raise OperationError(errors.MODEL_REFUSED if refused else errors.MODEL_INTERRUPTED) from None
            finished = reply.completion
            call.outcome = finished.finish_reason or "stop"
            yield Finished(call.outcome, finished.usage, finished.model)
        except OperationError as error:
            call.outcome = error.kind.reason
            raise
        except (GeneratorExit, asyncio.CancelledError):
            call.outcome = "cancelled" if call.outcome == "failed" else call.outcome
            raise
        finally:
            call.log()
            self._count(call.outcome, time.monotonic() - call.started)

    async def _first_texts(self, turns: Sequence[Turn], call: _Call) -> "tuple[_Reply, list[str]]":
        """Asks server after server until one has something to show."""
        ends_at = time.monotonic() + self._total_timeout_s
        failures: list[Failure] = []
        now = time.monotonic()
        for i in sorted(range(len(self._servers)), key=lambda i: self._rests_until[i] > now):
            call.server = self._servers[i]
            try:
                reply, texts = await self._ask(call.server, turns, call, ends_at)
            except Failure as failure:
                failures.append(failure)
                if failure.kind is errors.MODEL_REFUSED:
                    break
                if failure.kind is not errors.MODEL_REJECTED:  # which says more of the request than of the server
                    self._rests_until[i] = time.monotonic() + REST_S
            else:
                self._rests_until[i] = 0.0
                reply.completion.model = reply.completion.model or call.server.model
                return reply, texts
        raise _told(failures)

    async def _ask(
        self, server: ModelServer, turns: Sequence[Turn], call: _Call, ends_at: float
    ) -> "tuple[_Reply, list[str]]":
        """Asks one server, again where that may help, all within one time for the first token."""
        request = self._request(server, turns)
        deadline = min(time.monotonic() + self._first_token_timeout_s, ends_at)
        tries = 0
        while True:
            tries += 1
            try:
                return await self._try(request, deadline, ends_at)
            except Failure as failure:
                call.failures.append(failure.cause)
                _complain(server, failure)
                pause_s = max(jittered(self._backoff_s * 2 ** (tries - 1)), failure.retry_after_s or 0)
                too_late = pause_s > LONGEST_PAUSE_S or time.monotonic() + pause_s >= deadline
                if not failure.again or tries == TRIES or too_late:
                    raise
            await asyncio.sleep(pause_s)

    async def _try(self, request: httpx.Request, deadline: float, ends_at: float) -> "tuple[_Reply, list[str]]":
        """Sends once, and reads until there is text: a `Failure` from here has shown nobody anything."""
        reply = _Reply(await self._send(request, deadline), deadline, ends_at, self._chunk_timeout_s)
        try:
            while (texts := await reply.read()) == []:
                pass
        except BaseException:
            await reply.aclose()
            raise
        if texts is None:
            await reply.aclose()
            thought_too_long = reply.completion.finish_reason == "length"
            raise Failure(errors.MODEL_UNAVAILABLE, "empty answer", again=not thought_too_long)
        return reply, texts

    async def _send(self, request: httpx.Request, deadline: float) -> httpx.Response:
        try:
            async with until(deadline):
                response = await self._client.send(request, stream=True, follow_redirects=False)
                if response.status_code == 200:
                    return response
                async with aclosing(response):
                    raise await _refusal(response)
        except TimeoutError:
            raise Failure(errors.MODEL_TIMEOUT, "no answer in time") from None
        except httpx.HTTPError as error:
            raise Failure(errors.MODEL_UNAVAILABLE, type(error).__name__, again=True) from None

    def _request(self, server: ModelServer, turns: Sequence[Turn]) -> httpx.Request:
        body = {
            "model": server.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            "max_tokens": self._max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **server.extra_body,
        }
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",  # a compressor in between would hold tokens back
        }
        if server.api_key is not None:
            headers["authorization"] = f"Bearer {server.api_key}"
        url = server.base_url.rstrip("/") + "/chat/completions"
        # ASCII escapes, so that no text of a user can make the encoder fail.
        return self._client.build_request(
            "POST", url, content=json.dumps(body).encode(), headers=headers, timeout=self._timeout
        )


class _Reply:
    """One HTTP answer on its way in. Only waiting for it counts as its silence, not the time its reader takes."""

    def __init__(self, response: httpx.Response, deadline: float, ends_at: float, chunk_timeout_s: float) -> None:
        self.completion = Completion()
        self._response = response
        self._bytes = response.aiter_bytes() if "content-encoding" in response.headers else response.aiter_raw()
        self._alarm = Alarm()
        self._patience_s = deadline - time.monotonic()  # for the next token
        self._ends_at = ends_at
        self._chunk_timeout_s = chunk_timeout_s

    async def read(self) -> list[str] | None:
        """The texts that came next, often none; None after the end of a complete answer. Raises `Failure`."""
        completion = self.completion
        if completion.failure is not None:
            raise completion.failure
        if completion.ended:
            return None
        started = time.monotonic()
        try:
            data = await self._alarm.read(self._bytes, min(self._patience_s, self._ends_at - started))
        except StopAsyncIteration:
            return completion.end(Failure(errors.MODEL_UNAVAILABLE, "ended early", again=True))
        except TimeoutError:
            return completion.end(Failure(errors.MODEL_TIMEOUT, "stalled"))
        except httpx.HTTPError as error:
            return completion.end(Failure(errors.MODEL_UNAVAILABLE, type(error).__name__, again=True))
        tokens = completion.tokens
        texts = completion.feed(data)
        self._patience_s -= time.monotonic() - started
        if completion.finish_reason is not None:
            self._patience_s = min(self._patience_s, GOODBYE_WAIT_S if completion.done else USAGE_WAIT_S)
        elif completion.tokens > tokens:
            self._patience_s = self._chunk_timeout_s
        return texts

    async def aclose(self) -> None:
        self._alarm.off()
        await self._response.aclose()


async def _refusal(response: httpx.Response) -> Failure:
    """The failure that an error response tells of; its body may be empty, HTML or endless."""
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_WAIT_S):
            async for data in response.aiter_bytes():
                body += data
                if len(body) > ERROR_BODY_LIMIT_BYTES:
                    break
        vendor_error = json.loads(body)
    except (ValueError, RecursionError, TimeoutError, httpx.HTTPError):
        vendor_error = None
    failure = failure_from(vendor_error, response.status_code)
    failure.retry_after_s = retry_after_s(response.headers.get("retry-after"))
    failure.request_id = identifier(response.headers.get("x-request-id")) or failure.request_id
    return failure


def _complain(server: ModelServer, failure: Failure) -> None:
    """What an operator has to mend is said loudly; what passes by itself is in the line of the call."""
    if failure.kind in (errors.MODEL_MISCONFIGURED, errors.MODEL_REJECTED):
        log.error(
            "model server refuses us",
            host=server.host,
            configured_model=server.model,
            reason=failure.kind.reason,
            vendor_error=failure.cause,
            vendor_request_id=failure.request_id,
        )


def _told(failures: Sequence[Failure]) -> OperationError:
    """What the client is told when no server had anything to show."""
    kind: ErrorKind = min((failure.kind for failure in failures), key=_TELLING.index)
    named = [f.retry_after_s for f in failures if f.kind is kind and f.retry_after_s is not None]
    if kind is errors.MODEL_BUSY and not named:
        named = [RETRY_AFTER_S]
    return OperationError(kind, retry_after_ms=round(min(named) * 1000) if named else None)
