"""What the model client makes of servers that answer well, oddly, badly or not at all."""

import asyncio
import gzip
import itertools
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import errors
from protocol.errors import ErrorKind, OperationError
from tests.logs import logged_of
from tests.standins import llm as standin
from tests.standins.llm import DONE, LLMStandIn, Pause, Plan, chunk, error, event, fails, says, sends, text
from tests.standins.server import Gate, serve
from wsserver.vendors import llm
from wsserver.vendors.completion import EVENT_LIMIT_BYTES, Completion, Failure
from wsserver.vendors.llm import Finished, LanguageModel, ModelServer, TextDelta, Turn, Usage
from wsserver.vendors.waiting import Alarm, retry_after_s

KEY = "sk-very-secret-key"
PROMPT = "请推荐一部关于太空的电影"
TURNS = [Turn("system", "你是影评人"), Turn("user", PROMPT)]
BOUND_S = 10
END = [chunk({}, finish="stop"), DONE]
CUT = Failure(errors.MODEL_UNAVAILABLE, "cut")


class Vendor:
    """A stand-in that is being served, and clients for it."""

    def __init__(self, server: LLMStandIn, base_url: str, client: httpx.AsyncClient) -> None:
        self.server = server
        self.base_url = base_url + "/v1"
        self.client = client

    def configured(self, **extra_body: object) -> ModelServer:
        return ModelServer(self.base_url, KEY, "qwen-plus", extra_body)

    def model(
        self,
        *servers: ModelServer,
        backoff_s: float = 0.001,
        first_token_timeout_s: float = BOUND_S,
        chunk_timeout_s: float = BOUND_S,
        total_timeout_s: float = BOUND_S,
    ) -> LanguageModel:
        return LanguageModel(
            servers or [self.configured()],
            self.client,
            backoff_s=backoff_s,
            first_token_timeout_s=first_token_timeout_s,
            chunk_timeout_s=chunk_timeout_s,
            total_timeout_s=total_timeout_s,
        )


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Vendor]:
    server = LLMStandIn(api_key=KEY)
    async with serve(server.app) as base_url, httpx.AsyncClient(trust_env=False) as client:
        yield Vendor(server, base_url, client)


@pytest.fixture
def vendor(served: Vendor) -> Vendor:
    served.server.reset()
    return served


@pytest.fixture(scope="module")
async def served_second() -> AsyncIterator[Vendor]:
    server = LLMStandIn()
    async with serve(server.app) as base_url, httpx.AsyncClient(trust_env=False) as client:
        yield Vendor(server, base_url, client)


@pytest.fixture
def second(served_second: Vendor) -> Vendor:
    served_second.server.reset()
    return served_second


async def answer(model: LanguageModel) -> tuple[list[str], Finished]:
    """The deltas and the one `Finished`, which must be last."""
    texts: list[str] = []
    finished: list[Finished] = []
    async with asyncio.timeout(BOUND_S), aclosing(model.stream(TURNS)) as stream:
        async for item in stream:
            assert not finished
            if isinstance(item, TextDelta):
                assert item.text
                assert item.text.encode()
                texts.append(item.text)
            else:
                finished.append(item)
    assert len(finished) == 1
    return texts, finished[0]


async def failure(model: LanguageModel) -> tuple[list[str], OperationError]:
    """The deltas that came before the failure, and the failure."""
    texts: list[str] = []
    try:
        async with asyncio.timeout(BOUND_S), aclosing(model.stream(TURNS)) as stream:
            async for item in stream:
                assert isinstance(item, TextDelta)
                texts.append(item.text)
    except OperationError as told:
        return texts, told
    pytest.fail("the answer ended without a failure")


# What is asked and what a well-behaved server answers.


async def test_an_answer_is_handed_on_delta_by_delta_and_ends_with_its_usage(vendor: Vendor) -> None:
    texts, finished = await answer(vendor.model())
    assert texts == standin.answer_to(PROMPT)
    assert finished == Finished("stop", Usage(10, len(texts)), standin.MODEL)


async def test_the_request_has_the_turns_the_key_and_what_the_server_is_configured_with(vendor: Vendor) -> None:
    await answer(vendor.model(vendor.configured(enable_thinking=False, max_tokens=77)))
    (call,) = vendor.server.calls
    assert call.json == {
        "model": "qwen-plus",
        "messages": [{"role": "system", "content": "你是影评人"}, {"role": "user", "content": PROMPT}],
        "max_tokens": 77,
        "stream": True,
        "stream_options": {"include_usage": True},
        "enable_thinking": False,
    }
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["accept-encoding"] == "identity"


async def test_no_key_means_no_authorization_header(second: Vendor) -> None:
    await answer(second.model(ModelServer(second.base_url, None, "qwen3:8b")))
    assert "authorization" not in second.server.calls[0].headers


async def test_a_delta_is_handed_on_before_the_next_one_is_sent(vendor: Vendor) -> None:
    plan, gates = standin.gated("一", "二", "三")
    vendor.server.queue(plan)
    got: list[object] = []
    async with asyncio.timeout(BOUND_S), aclosing(vendor.model().stream(TURNS)) as stream:
        for gate, expected in zip(gates, "一二三", strict=True):
            gate.open()
            got.append(await anext(stream))
            assert got[-1] == TextDelta(expected)
        assert isinstance(await anext(stream), Finished)


async def test_a_finished_answer_leaves_its_connection_for_the_next_one(vendor: Vendor) -> None:
    model = vendor.model()
    await answer(model)
    await answer(model)
    first, next_one = vendor.server.calls
    assert first.port == next_one.port


# Dialects.

LEADING = "\n\n  诗"
DIALECTS: dict[str, tuple[Plan, list[str]]] = {
    "CRLF": (says("你", "好").with_line_ends(b"\r\n"), ["你", "好"]),
    "CR": (says("你", "好").with_line_ends(b"\r"), ["你", "好"]),
    "BOM": (sends(b"\xef\xbb\xbf", *says("你").steps), ["你"]),
    "data without a space": (sends(text("你").replace(b"data: ", b"data:"), *END), ["你"]),
    "comments, keep-alives and other fields": (
        sends(b": ping\n\n\n", b"event: message\nid: 1\nretry: 5\n" + text("你"), b":\n", *END),
        ["你"],
    ),
    "data over several lines": (
        sends(text("你").replace(b'"choices"', b'\ndata:"choices"').replace(b'"delta"', b'\ndata: "delta"'), *END),
        ["你"],
    ),
    "one byte at a time": (says("你好", "👩‍🚀").split([1]), ["你好", "👩‍🚀"]),
    "no [DONE]": (sends(text("你"), END[0]), ["你"]),
    "no blank line at the end": (sends(text("你"), END[0].rstrip()), ["你"]),
    "[DONE] without a finish reason": (sends(text("你"), DONE), ["你"]),
    "nothing is read after [DONE]": (sends(text("你"), *END, text("鬼")), ["你"]),
    "null content": (sends(text(None), text("你"), text(None), *END), ["你"]),
    "content on the finish chunk": (sends(text("你"), chunk({"content": "好"}, finish="stop"), DONE), ["你", "好"]),
    "content after the finish chunk": (sends(END[0], text("你"), DONE), ["你"]),
    "usage on every chunk": (sends(chunk({"content": "你"}, usage={"prompt_tokens": 1}), *END), ["你"]),
    "an empty finish reason on every chunk": (sends(chunk({"content": "你"}, finish=""), *END), ["你"]),
    "other choices": (sends(chunk({"content": "鬼"}, index=1), text("你"), *END), ["你"]),
    "reasoning_content": (sends(chunk({"content": None, "reasoning_content": "想"}), text("你"), *END), ["你"]),
    "reasoning": (sends(chunk({"content": "", "reasoning": "想"}), text("你"), *END), ["你"]),
    "think tags": (sends(text("<think>想"), text("想</think>\n\n你"), text("好"), *END), ["你", "好"]),
    "think tags in pieces": (
        sends(*map(text, ["\n", "<th", "ink", ">", "想", "<", "/think", ">", "\n", "\n", "你", " <think>"]), *END),
        ["你", " <think>"],
    ),
    "what only begins like a think tag": (sends(*map(text, ["<", "thin", "gs>"]), *END), ["<things>"]),
    "an answer that ends inside what may be a tag": (sends(text("<thi"), *END), ["<thi"]),
    "white space before the answer": (sends(text("\n\n"), text("  诗"), *END), [LEADING]),
    "tool_calls": (sends(text("你"), chunk({}, finish="tool_calls"), DONE), ["你"]),
    "NUL": (sends(text("a\0b"), text("\0"), text("c"), *END), ["ab", "c"]),
    "an odd event in between": (sends(event([1]), event({"choices": 7}), event({}), text("你"), *END), ["你"]),
    "half characters that follow each other": (sends(text("x\ud83d"), text("\ude00y"), *END), ["x", "😀y"]),
    "half characters that stay alone": (
        sends(*map(text, ["\ud83d", "a", "\ude00b", "\ud83d"]), *END),
        ["\ufffda", "\ufffdb", "\ufffd"],
    ),
    "a whole answer instead of a stream": (standin.whole("你好"), ["你好"]),
    "a whole answer, pretty-printed, called a stream": (
        sends(json.dumps(json.loads(next(iter(standin.whole("你好").steps))), indent=2).encode()),  # type: ignore[arg-type]
        ["你好"],
    ),
    "a stream called text/plain": (replace(says("你"), headers={"content-type": "text/plain"}), ["你"]),
    "a compressed stream": (
        Plan([gzip.compress(b"".join(says("你", "好").steps))], headers={"content-encoding": "gzip"}),  # type: ignore[arg-type]
        ["你好"],
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_gives_the_same_clean_deltas(vendor: Vendor, dialect: str) -> None:
    plan, expected = DIALECTS[dialect]
    vendor.server.queue(plan)
    texts, finished = await answer(vendor.model())
    assert texts == expected
    assert finished.finish_reason == "stop"
    assert len(vendor.server.calls) == 1


async def test_an_answer_cut_by_its_length_says_so(vendor: Vendor) -> None:
    vendor.server.queue(says("你", finish="length"))
    assert (await answer(vendor.model()))[1].finish_reason == "length"


async def test_a_server_that_names_no_model_is_taken_at_its_configuration(vendor: Vendor) -> None:
    vendor.server.queue(sends(event({"choices": [{"delta": {"content": "你"}, "finish_reason": "stop"}]}), DONE))
    assert (await answer(vendor.model()))[1] == Finished("stop", None, "qwen-plus")


async def test_a_name_and_counts_that_could_not_be_stored_are_not_handed_on(vendor: Vendor) -> None:
    absurd = {"prompt_tokens": 2**40, "completion_tokens": -1}
    vendor.server.queue(sends(chunk({"content": "你"}, finish="stop", model="a\0\ud83d", usage=absurd), DONE))
    assert (await answer(vendor.model()))[1] == Finished("stop", None, "qwen-plus")


# The parser alone: what no client could show in reasonable time.

RECORDED = b"".join(
    [
        b"\xef\xbb\xbf: warming up\r\n\r\n",
        chunk({"role": "assistant", "content": ""}).replace(b"\n", b"\r\n"),
        text("<think>先想一想"),
        text("</think>\n\n"),
        text("电影").replace(b"\n", b"\r"),
        text("🎬\ud83d"),
        text("\ude00 ok\0").replace(b'"choices"', b"\r\ndata:\t" + b'"choices"'),
        b"\r\r\n\n",
        text("完").replace(b"data: ", b"data:"),
        chunk({"content": "。"}, finish="stop", usage=None),
        standin.usage(3, 4),
        DONE,
    ]
)


def deltas(pieces: list[bytes]) -> tuple[list[str], object]:
    completion = Completion()
    texts = [text for piece in pieces for text in completion.feed(piece)]
    texts += completion.end(CUT)
    return texts, (completion.finish_reason, completion.usage, completion.model, completion.failure)


def test_the_recorded_stream_has_these_deltas() -> None:
    assert deltas([RECORDED])[0] == ["电影", "🎬", "😀 ok", "完", "。"]


@given(st.lists(st.integers(0, len(RECORDED)), max_size=40))
@example([RECORDED.index(b"\r\ndata:\t") + 1] * 2)
def test_any_split_of_the_bytes_gives_the_same_deltas(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(RECORDED)]
    assert deltas([RECORDED[a:b] for a, b in itertools.pairwise(at)]) == deltas([RECORDED])


def test_a_cut_at_any_byte_gives_the_same_deltas() -> None:
    for at in range(len(RECORDED)):
        assert deltas([RECORDED[:at], RECORDED[at:]]) == deltas([RECORDED]), at


@given(st.lists(st.text(st.characters(), max_size=6), max_size=8))
def test_text_split_inside_its_characters_arrives_whole(parts: list[str]) -> None:
    whole = "答" + "".join(parts)
    units = whole.encode("utf-16-le", "surrogatepass")
    halves = [units[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2)]
    texts, _ = deltas([*map(text, halves), *END])
    clean = whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "")
    assert "".join(texts) == clean
    assert all(piece.encode() for piece in texts)


@given(
    st.binary(max_size=300), st.lists(st.sampled_from([b"data:", b"\n\n", b"{", b'{"choices":[', b"\r"]), max_size=9)
)
def test_rubbish_never_breaks_the_parser(noise: bytes, parts: list[bytes]) -> None:
    deltas([noise, *parts, noise, b"data: " + noise + b"\n\n", *parts])


KEYS = ["choices", "delta", "message", "content", "index", "finish_reason"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*KEYS, "error", "code", "usage", "model", "type"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_json_of_any_shape_never_breaks_the_parser(shape: object) -> None:
    deltas([event({"choices": [{"delta": {"content": "x"}}]}), event(shape), event({"choices": shape})])
    deltas([event({"error": shape})])


@pytest.mark.parametrize("piece", [b"x" * 1000, b"data: xxxxxxxxxxxxxxxx\n" * 50], ids=["one line", "many lines"])
def test_an_event_without_end_is_given_up_at_its_limit(piece: bytes) -> None:
    completion = Completion()
    fed_bytes = 0
    while completion.failure is None and fed_bytes < 3 * EVENT_LIMIT_BYTES:
        completion.feed(piece)
        fed_bytes += len(piece)
    assert fed_bytes < EVENT_LIMIT_BYTES + 2 * len(piece)
    assert completion.failure is not None
    assert completion.failure.kind is errors.MODEL_UNAVAILABLE


# Failures before the first token.

THROTTLED = error("limit_requests", "You exceeded your current requests list.")
FREE_USED_UP = error("insufficient_quota", "Free allocated quota exceeded.")
TOKENS_USED_UP = error("insufficient_quota", "Allocated quota exceeded, please increase your quota limit.")
FLAT_VLLM = {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400}
NATIVE = {"code": "DataInspectionFailed", "message": "Input data may contain…", "request_id": "r-1"}
REFUSALS: dict[str, tuple[Plan, ErrorKind, int]] = {
    # plan, what the client is told, how often the server is asked
    "429": (fails(429, THROTTLED), errors.MODEL_BUSY, 3),
    "429 tokens per minute": (fails(429, TOKENS_USED_UP), errors.MODEL_BUSY, 3),
    "429 free quota": (fails(429, FREE_USED_UP), errors.MODEL_MISCONFIGURED, 1),
    "500": (fails(500, error("internal_error")), errors.MODEL_UNAVAILABLE, 3),
    "502 HTML": (fails(502, b"<html>Bad Gateway</html>"), errors.MODEL_UNAVAILABLE, 3),
    "503 empty": (fails(503), errors.MODEL_UNAVAILABLE, 3),
    "503 text": (
        fails(503, {"error": "server busy, please try again.  maximum pending requests exceeded"}),
        errors.MODEL_UNAVAILABLE,
        3,
    ),
    "400": (fails(400, error("invalid_parameter_error")), errors.MODEL_REJECTED, 1),
    "400 flat": (fails(400, FLAT_VLLM), errors.MODEL_REJECTED, 1),
    "400 arrearage": (fails(400, error("Arrearage")), errors.MODEL_MISCONFIGURED, 1),
    "400 inspection": (fails(400, error("data_inspection_failed")), errors.MODEL_REFUSED, 1),
    "400 inspection, native": (fails(400, NATIVE), errors.MODEL_REFUSED, 1),
    "400 inspection, in the message": (
        fails(400, error("400", "<400> InternalError.Algo.DataInspectionFailed: …")),
        errors.MODEL_REFUSED,
        1,
    ),
    "401": (fails(401, error("invalid_api_key")), errors.MODEL_MISCONFIGURED, 1),
    "401 text": (fails(401, {"error": "Unauthorized"}), errors.MODEL_MISCONFIGURED, 1),
    "403": (fails(403, error("access_denied")), errors.MODEL_MISCONFIGURED, 1),
    "404 int code": (fails(404, error(404, kind="NotFoundError")), errors.MODEL_MISCONFIGURED, 1),
    "404 null code": (fails(404, error(None, kind="not_found_error")), errors.MODEL_MISCONFIGURED, 1),
    "a redirect": (fails(302, headers={"location": "https://example.invalid/"}), errors.MODEL_MISCONFIGURED, 1),
    "an error event": (sends(event(error("internal_error"))), errors.MODEL_UNAVAILABLE, 3),
    "an error event, flat": (sends(event({"code": "Throttling.RateQuota", "message": ""})), errors.MODEL_BUSY, 3),
    "an error event, int code": (sends(event(error(400, kind="BadRequestError")), DONE), errors.MODEL_REJECTED, 1),
    "an error event, text": (sends(event({"error": "an error was encountered"})), errors.MODEL_UNAVAILABLE, 3),
    "an inspection event": (sends(event(error("data_inspection_failed"))), errors.MODEL_REFUSED, 1),
    "an error with status 200": (Plan([json.dumps(error("model_not_found")).encode()]), errors.MODEL_MISCONFIGURED, 1),
    "content_filter": (sends(chunk({}, finish="content_filter"), DONE), errors.MODEL_REFUSED, 1),
    "an aborted answer": (sends(chunk({}, finish="abort"), DONE), errors.MODEL_UNAVAILABLE, 3),
    "an empty answer": (says(), errors.MODEL_UNAVAILABLE, 3),
    "only white space": (says("\n", " "), errors.MODEL_UNAVAILABLE, 3),
    "only thoughts": (says("<think>", "想"), errors.MODEL_UNAVAILABLE, 3),
    "thoughts up to the length": (
        sends(chunk({"reasoning": "想"}), chunk({}, finish="length"), DONE),
        errors.MODEL_UNAVAILABLE,
        1,
    ),
    "an empty stream": (sends(), errors.MODEL_UNAVAILABLE, 3),
    "HTML with status 200": (sends(b"<html><body>\n<p>hello</p>\n"), errors.MODEL_UNAVAILABLE, 3),
    "an event that is not JSON": (sends(b"data: {oops\n\n"), errors.MODEL_UNAVAILABLE, 3),
    "a connection cut before the answer": (standin.resets(), errors.MODEL_UNAVAILABLE, 3),
    "a connection cut while it thinks": (sends(chunk({"reasoning": "想"}), standin.Cut()), errors.MODEL_UNAVAILABLE, 3),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_failure_before_the_first_token_is_told_and_retried_as_its_kind_asks(
    vendor: Vendor, refusal: str
) -> None:
    plan, kind, tries = REFUSALS[refusal]
    vendor.server.queue(*[plan] * tries)
    texts, told = await failure(vendor.model())
    assert texts == []
    assert told.kind is kind
    assert len(vendor.server.calls) == tries
    assert (told.retry_after_ms is not None) is (kind is errors.MODEL_BUSY)


@pytest.mark.parametrize("refusal", [name for name, (_, _, tries) in REFUSALS.items() if tries > 1])
async def test_what_passes_by_itself_is_not_seen_by_the_client(vendor: Vendor, refusal: str) -> None:
    plan = REFUSALS[refusal][0]
    vendor.server.queue(plan, plan)
    texts, _ = await answer(vendor.model())
    assert texts == standin.answer_to(PROMPT)
    assert len(vendor.server.calls) == 3


@pytest.mark.parametrize(
    "refusal", [name for name, (_, kind, _) in REFUSALS.items() if kind is not errors.MODEL_REFUSED]
)
async def test_the_next_server_answers_when_the_first_cannot(vendor: Vendor, second: Vendor, refusal: str) -> None:
    plan, _, tries = REFUSALS[refusal]
    vendor.server.queue(*[plan] * tries)
    second.server.queue(says("我", "来"))
    texts, _ = await answer(vendor.model(vendor.configured(), second.configured()))
    assert texts == ["我", "来"]
    assert len(vendor.server.calls) == tries


async def test_refused_content_is_not_shown_to_another_server(vendor: Vendor, second: Vendor) -> None:
    vendor.server.queue(fails(400, error("data_inspection_failed")))
    _, told = await failure(vendor.model(vendor.configured(), second.configured()))
    assert told.kind is errors.MODEL_REFUSED
    assert second.server.calls == []


async def test_a_server_that_cannot_be_reached_is_unavailable(vendor: Vendor) -> None:
    closed = ModelServer("http://127.0.0.1:1/v1", KEY, "m")
    _, told = await failure(vendor.model(closed))
    assert told.kind is errors.MODEL_UNAVAILABLE
    assert (await answer(vendor.model(closed, vendor.configured())))[0] == standin.answer_to(PROMPT)


@pytest.mark.parametrize(
    ("first", "then", "kind"),
    [
        (fails(401), fails(429), errors.MODEL_BUSY),
        (fails(503), fails(404), errors.MODEL_UNAVAILABLE),
        (fails(400), fails(401), errors.MODEL_REJECTED),
    ],
    ids=["401 and 429", "503 and 404", "400 and 401"],
)
async def test_of_several_failures_the_one_that_passes_by_itself_is_told(
    vendor: Vendor, second: Vendor, first: Plan, then: Plan, kind: ErrorKind
) -> None:
    vendor.server.queue(*[first] * 3)
    second.server.queue(*[then] * 3)
    _, told = await failure(vendor.model(vendor.configured(), second.configured()))
    assert told.kind is kind


async def test_a_server_that_has_just_failed_is_asked_last(vendor: Vendor, second: Vendor) -> None:
    model = vendor.model(vendor.configured(), second.configured())
    vendor.server.queue(fails(401))
    await answer(model)
    await answer(model)
    assert len(vendor.server.calls) == 1
    assert len(second.server.calls) == 2
    second.server.queue(fails(401))
    await answer(model)  # both rest now: the configured order counts, and the first works again
    await answer(model)
    assert len(vendor.server.calls) == 3


async def test_a_request_that_one_server_rejects_does_not_send_the_next_ones_elsewhere(
    vendor: Vendor, second: Vendor
) -> None:
    model = vendor.model(vendor.configured(), second.configured())
    vendor.server.queue(fails(400, error("invalid_parameter_error")))
    await answer(model)
    await answer(model)
    assert len(vendor.server.calls) == 2


# Waiting.


async def test_a_pause_that_the_server_asks_for_is_kept(vendor: Vendor) -> None:
    vendor.server.queue(fails(429, THROTTLED, headers={"retry-after": "1"}))
    started = time.monotonic()
    await answer(vendor.model())
    assert 1 <= time.monotonic() - started < 4
    assert len(vendor.server.calls) == 2


async def test_a_long_pause_is_not_waited_for_but_told_to_the_client(vendor: Vendor) -> None:
    vendor.server.queue(fails(429, THROTTLED, headers={"retry-after": "120"}))
    _, told = await failure(vendor.model(first_token_timeout_s=600, total_timeout_s=600))
    assert told.retry_after_ms == 120_000
    assert len(vendor.server.calls) == 1


def test_retry_after_is_seconds_or_a_date_and_never_absurd() -> None:
    assert retry_after_s(None) is None
    assert retry_after_s("2") == 2
    assert retry_after_s("0.5") == 0.5
    assert retry_after_s("-3") == 0
    assert retry_after_s("nan") == 0
    assert retry_after_s("inf") == 3600
    assert retry_after_s("soon") is None
    in_a_minute = retry_after_s(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 60
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize("said", [(), ("",)], ids=["no status line", "no token"])
async def test_a_first_token_that_does_not_come_in_time_is_a_timeout_and_is_not_retried(
    vendor: Vendor, said: tuple[str, ...]
) -> None:
    vendor.server.queue(standin.stalls(Gate(), *said))
    _, told = await failure(vendor.model(first_token_timeout_s=0.1))
    assert told.kind is errors.MODEL_TIMEOUT
    call = await vendor.server.call()
    await asyncio.wait_for(call.disconnected.wait(), BOUND_S)
    assert len(vendor.server.calls) == 1


async def test_a_stalled_first_server_is_left_for_the_next(vendor: Vendor, second: Vendor) -> None:
    vendor.server.queue(standin.stalls(Gate()))
    model = vendor.model(vendor.configured(), second.configured(), first_token_timeout_s=0.3)
    assert (await answer(model))[0] == standin.answer_to(PROMPT)


async def test_comments_do_not_keep_an_answer_alive(vendor: Vendor) -> None:
    vendor.server.queue(Plan(itertools.cycle([b": ping\n\n", Pause(0.01)])))
    _, told = await failure(vendor.model(first_token_timeout_s=0.1))
    assert told.kind is errors.MODEL_TIMEOUT


async def test_reasoning_keeps_an_answer_alive_beyond_the_time_for_its_first_token(vendor: Vendor) -> None:
    thoughts = [step for _ in range(8) for step in (chunk({"reasoning": "想"}), Pause(0.05))]
    vendor.server.queue(sends(*thoughts, text("你"), *END))
    assert (await answer(vendor.model(first_token_timeout_s=0.25)))[0] == ["你"]


async def test_the_whole_call_has_an_end_even_while_the_model_thinks_on(vendor: Vendor) -> None:
    vendor.server.queue(Plan(itertools.cycle([chunk({"reasoning": "想"}), Pause(0.01)])))
    _, told = await failure(vendor.model(total_timeout_s=0.2))
    assert told.kind is errors.MODEL_TIMEOUT


async def test_a_slow_reader_is_not_taken_for_a_silent_server(vendor: Vendor) -> None:
    gate = Gate()
    vendor.server.queue(standin.stalls(gate, "你"))
    async with asyncio.timeout(BOUND_S), aclosing(vendor.model(chunk_timeout_s=0.1).stream(TURNS)) as stream:
        assert await anext(stream) == TextDelta("你")
        await asyncio.sleep(0.3)  # the subject, not a synchronisation: thrice the time for a chunk
        gate.open()
        assert isinstance(await anext(stream), Finished)


@pytest.mark.parametrize("ending", ["stall", "cut", "garbage"])
async def test_an_answer_that_has_finished_is_complete_without_its_usage(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(llm, "USAGE_WAIT_S", 0.05)
    endings: dict[str, standin.Step] = {"stall": Gate(), "cut": standin.Cut(), "garbage": b'data: {"usage\n\n'}
    vendor.server.queue(sends(text("你"), END[0], endings[ending]))
    assert await answer(vendor.model()) == (["你"], Finished("stop", None, standin.MODEL))


# Failures after the first token.

INTERRUPTIONS: dict[str, tuple[Plan, ErrorKind]] = {
    "a cut connection": (standin.breaks_off("你", "好"), errors.MODEL_INTERRUPTED),
    "an end without a finish": (sends(text("你"), text("好")), errors.MODEL_INTERRUPTED),
    "an end after empty finish reasons": (
        sends(*[chunk({"content": c}, finish="") for c in "你好"]),
        errors.MODEL_INTERRUPTED,
    ),
    "an event cut in two": (sends(text("你"), text("好"), text("吗")[:-20]), errors.MODEL_INTERRUPTED),
    "a stall": (standin.stalls(Gate(), "你", "好"), errors.MODEL_INTERRUPTED),
    "an error event": (sends(text("你"), text("好"), event(error("internal_error")), DONE), errors.MODEL_INTERRUPTED),
    "a throttling event": (sends(text("你"), text("好"), event(THROTTLED)), errors.MODEL_INTERRUPTED),
    "an inspection event": (sends(text("你"), text("好"), event(NATIVE)), errors.MODEL_REFUSED),
    "a content filter": (sends(text("你"), text("好"), chunk({}, finish="content_filter")), errors.MODEL_REFUSED),
    "an endless line": (
        sends(text("你"), text("好"), b"data: " + b"x" * (EVENT_LIMIT_BYTES + 1)),
        errors.MODEL_INTERRUPTED,
    ),
}


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
async def test_nothing_is_retried_after_the_first_token(vendor: Vendor, second: Vendor, interruption: str) -> None:
    plan, kind = INTERRUPTIONS[interruption]
    vendor.server.queue(plan)
    texts, told = await failure(vendor.model(vendor.configured(), second.configured(), chunk_timeout_s=0.2))
    assert texts == ["你", "好"]
    assert told.kind is kind
    assert len(vendor.server.calls) == 1
    assert second.server.calls == []


async def test_a_broken_answer_is_hung_up_on_while_its_error_is_still_being_handled(vendor: Vendor) -> None:
    vendor.server.queue(sends(text("你"), event(error("internal_error")), Gate()))
    _, told = await failure(vendor.model())
    await asyncio.wait_for((await vendor.server.call()).disconnected.wait(), BOUND_S)
    assert told.kind is errors.MODEL_INTERRUPTED  # and so its traceback was alive until here


# Cancelling.


async def test_closing_the_stream_stops_the_server(vendor: Vendor) -> None:
    vendor.server.queue(standin.stalls(Gate(), "你"))
    async with asyncio.timeout(BOUND_S):
        stream = vendor.model().stream(TURNS)
        assert await anext(stream) == TextDelta("你")
        await stream.aclose()
        await (await vendor.server.call()).disconnected.wait()


@pytest.mark.parametrize("said", [(), ("你",)], ids=["before the first token", "in the middle"])
async def test_cancelling_the_reader_stops_the_server_and_is_not_swallowed(
    vendor: Vendor, second: Vendor, said: tuple[str, ...]
) -> None:
    gate = Gate()
    vendor.server.queue(standin.stalls(gate, *said))
    async with asyncio.timeout(BOUND_S):
        reading = asyncio.create_task(answer(vendor.model(vendor.configured(), second.configured())))
        await gate.reached.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await (await vendor.server.call()).disconnected.wait()
    assert second.server.calls == []


async def test_a_cancellation_that_meets_a_timeout_is_not_swallowed() -> None:
    async def source() -> AsyncIterator[bytes]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # the alarm's; and now somebody else's too
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            raise
        yield b""

    reading = asyncio.create_task(Alarm().read(source(), 0.01))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reading, BOUND_S)


async def test_cancelling_during_a_pause_ends_the_call(vendor: Vendor) -> None:
    vendor.server.queue(fails(429, THROTTLED, headers={"retry-after": "5"}))
    async with asyncio.timeout(BOUND_S):
        reading = asyncio.create_task(answer(vendor.model()))
        await vendor.server.call()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert len(vendor.server.calls) == 1


# What is told to operators, and what to nobody.


async def test_each_call_leaves_one_line_with_its_outcome(vendor: Vendor) -> None:
    vendor.server.queue(fails(503), says("你"))
    with logged_of("model") as lines:
        await answer(vendor.model())
    (line,) = lines
    assert line["event"] == "model call"
    assert line["outcome"] == "stop"
    assert line["host"] == "127.0.0.1"
    assert line["model"] == standin.MODEL
    assert line["failures"] == ["503"]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (10, 1)
    assert 0 <= line["first_token_ms"] <= line["ms"]


async def test_a_closed_stream_is_logged_as_cancelled_and_a_broken_one_by_its_reason(vendor: Vendor) -> None:
    vendor.server.queue(says("你", "好"), standin.breaks_off("你"))
    with logged_of("model") as lines:
        async with aclosing(vendor.model().stream(TURNS)) as stream:
            await anext(stream)
        await failure(vendor.model())
    assert [line["outcome"] for line in lines] == ["cancelled", "model_interrupted"]


async def test_a_server_that_refuses_us_is_reported_loudly_with_the_vendors_request_id(vendor: Vendor) -> None:
    vendor.server.queue(fails(401, error("invalid_api_key")))
    with logged_of("model") as lines:
        await failure(vendor.model())
    loud = lines[0]
    assert loud["log_level"] == "error"
    assert loud["vendor_error"] == "401 invalid_api_key"
    assert loud["vendor_request_id"] == "req-standin-1"
    assert loud["reason"] == "model_misconfigured"


async def test_no_prompt_no_answer_and_no_key_reach_a_log_or_a_traceback(
    vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [KEY, PROMPT, "你是影评人", "秘密回答"]
    quoting = error("invalid_parameter_error", f"bad message: {PROMPT} for {KEY}") | {"request_id": PROMPT}
    vendor.server.queue(
        says("秘密回答"),
        standin.breaks_off("秘密回答"),
        fails(400, quoting),
        fails(400, error(PROMPT)),
        fails(401, quoting),
        standin.resets(),
        standin.resets(),
        standin.resets(),
    )
    told: list[OperationError] = []
    with structlog.testing.capture_logs() as lines:
        await answer(vendor.model())
        told += [(await failure(vendor.model()))[1] for _ in range(5)]
    shown = [repr(lines), caplog.text, *("".join(traceback.format_exception(e)) for e in told)]
    shown += [repr(TURNS), repr(TextDelta("秘密回答")), repr(vendor.configured())]
    for secret in secrets:
        for place in shown:
            assert secret not in place


def test_a_server_that_cannot_work_is_refused_when_it_is_configured() -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        ModelServer("https://example.invalid/v1", KEY + "\n", "m")
    assert KEY not in str(caught.value)
    with pytest.raises(ValueError, match="base URL"):
        ModelServer("example.invalid/v1", None, "m")
