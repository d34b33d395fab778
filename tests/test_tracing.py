"""Traces: a span for each operation and vendor's call, one trace for what belongs together, nothing where unwanted."""

import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from storage.embedded import Services
from tests.clients import new_code, socket_client
from tests.node import TestNode, serving
from tests.standins.llm import LLMStandIn, fails
from tests.standins.otlp import OtlpStandIn, ReceivedSpan
from tests.standins.server import serve
from wsserver.connections import StartError
from wsserver.telemetry import Metrics
from wsserver.tracing import HOW_TO_INSTALL, open_tracing

ROOT = Path(__file__).resolve().parent.parent
SERVER, CLIENT = 2, 3
"""Kinds of spans, as OTLP numbers them."""


@pytest.fixture
async def model() -> AsyncIterator[tuple[LLMStandIn, str]]:
    standin = LLMStandIn()
    async with serve(standin.app) as url:
        yield standin, url


async def talk(node: TestNode, question: str) -> list[dict[str, Any]]:
    async with socket_client(node.url) as client:
        await client.login()
        await client.call({"type": "ping"})
        return await client.stream({"type": "chat", "query": question})


def by_name(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_chat_and_its_models_call_are_one_trace_that_the_logs_name(
    services: Services, data_dir: Path, model: tuple[LLMStandIn, str]
) -> None:
    receiver, (_, model_url) = OtlpStandIn(), model
    question = f"秘密 {uuid.uuid4().hex}"
    with capture_logs([structlog.contextvars.merge_contextvars]) as logged:
        async with (
            serve(receiver.app) as url,
            serving(
                services,
                data_dir,
                otel_exporter_otlp_endpoint=url,
                llm_base_url=[f"{model_url}/v1"],
                llm_model=["stand-in"],
            ) as node,
        ):
            frames = await talk(node, question)
    assert frames[-1]["type"] == "complete"
    assert {span.name for span in receiver.spans} == {"login", "chat", "model"}
    chat, called = by_name(receiver.spans, "chat"), by_name(receiver.spans, "model")
    assert (chat.kind, called.kind) == (SERVER, CLIENT)
    assert (called.trace_id, called.parent_id, chat.parent_id) == (chat.trace_id, chat.span_id, "")
    assert by_name(receiver.spans, "login").trace_id != chat.trace_id
    assert chat.attributes == {"cinewire.outcome": "ok", "cinewire.request_id": frames[0]["data"]["request_id"]}
    assert called.attributes == {"cinewire.outcome": "stop"}
    assert called.seconds > 0
    assert not chat.is_error
    assert chat.service["service.name"] == "cinewire"
    assert chat.service["service.instance.id"]
    lines = {line["event"]: line.get("trace_id") for line in logged if line.get("operation", "chat") == "chat"}
    assert lines["operation"] == lines["model call"] == lines["run ended"] == chat.trace_id
    assert question not in repr(receiver.spans)


async def test_what_fails_on_our_side_is_an_error_and_what_the_client_did_wrong_is_not(
    services: Services, data_dir: Path, model: tuple[LLMStandIn, str]
) -> None:
    receiver, (standin, model_url) = OtlpStandIn(), model
    standin.queue(*[fails(401)] * 4)
    async with (
        serve(receiver.app) as url,
        serving(
            services,
            data_dir,
            otel_exporter_otlp_endpoint=url,
            llm_base_url=[f"{model_url}/v1"],
            llm_model=["stand-in"],
        ) as node,
        socket_client(node.url) as client,
    ):
        await client.login(new_code())
        frames = await client.stream({"type": "chat", "query": "谁演的？"})
        assert frames[-1]["type"] == "error"
        nobodys = {"type": "movie_detail", "tmdb_id": 2_000_000_000}
        assert (await client.call(nobodys))["code"] == 404
    assert by_name(receiver.spans, "model").is_error
    looked_up = by_name(receiver.spans, "movie_detail")
    assert not looked_up.is_error
    assert looked_up.attributes["cinewire.outcome"] != "ok"


async def test_a_receiver_that_is_away_holds_nobody_up(services: Services, data_dir: Path) -> None:
    async with serving(services, data_dir, otel_exporter_otlp_endpoint="http://127.0.0.1:1") as node:
        assert (await talk(node, "《黑客帝国》是哪一年的？"))[-1]["type"] == "complete"


async def test_without_an_endpoint_there_is_nothing() -> None:
    async with open_tracing(None, node="n") as tracing:
        assert tracing is None


def test_without_an_endpoint_none_of_it_is_imported_nor_needed() -> None:
    # redis-py imports the SDK's metrics where it finds them; what only traces need nobody does.
    only_traces = '("opentelemetry.exporter", "opentelemetry.sdk.trace", "google.protobuf", "requests")'
    for program in (
        f"import sys, wsserver.app; print(*(name for name in sys.modules if name.startswith({only_traces})))",
        "import sys; sys.modules['opentelemetry'] = None; import wsserver.app",
    ):
        ended = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60
        )
        assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr


async def test_an_endpoint_without_the_packages_stops_the_start_and_says_what_to_install(
    services: Services, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StartError, match="OTEL_EXPORTER_OTLP_ENDPOINT: ") as refused:
        async with serving(services, data_dir, otel_exporter_otlp_endpoint="http://127.0.0.1:1"):
            pass
    assert str(refused.value) == HOW_TO_INSTALL


async def test_calls_are_still_counted_where_they_are_traced() -> None:
    receiver, metrics = OtlpStandIn(), Metrics()
    async with serve(receiver.app) as url, open_tracing(url, node="n") as tracing:
        assert tracing is not None
        tracing.vendors(metrics.vendor)("tmdb")("unavailable", 1.5)
    labels = {"vendor": "tmdb", "outcome": "unavailable"}
    assert metrics.registry.get_sample_value("cinewire_vendor_calls_total", labels) == 1
    (span,) = receiver.spans
    assert (span.name, span.kind, span.attributes) == ("tmdb", CLIENT, {"cinewire.outcome": "unavailable"})
    assert 1.49 < span.seconds < 1.51
