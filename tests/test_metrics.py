"""Metrics answer what is asked at night, and what is drawn and what wakes somebody asks only for what is there."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase
from redis.asyncio import Redis as OneRedis

from protocol.errors import ERRORS
from storage.embedded import Services
from storage.pool import PoolUse
from storage.postgres import Postgres
from storage.redis import MAX_CONNECTIONS, open_redis, pool_use
from storage.redis_connection import Pool
from tests.clients import PATIENCE_S, events, socket_client
from tests.conftest import ModelNode
from tests.standins.llm import stalls
from tests.standins.server import Gate
from wsserver.outbox import Outbox
from wsserver.samples import LAG_S, sample
from wsserver.telemetry import DELAY_BUCKETS_S, GatheredHistogram, Metrics

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
NOT_OURS = {"up": {"job", "instance"}}
"""What Prometheus itself says, and by which labels."""

EVERYWHERE = {"job", "instance"}
NAME = re.compile(r"\b(?:cinewire|process)_[a-z_]+\b|\bup\b")
SELECTED = re.compile(r"([a-z_]+)\{([^}]*)\}")
GROUPED = re.compile(r"\bby \(([^)]*)\)")


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """A sample; zero when nothing was counted yet."""
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def until(wanted: Callable[[], bool]) -> None:
    """Wait for what is measured now and then."""
    async with asyncio.timeout(PATIENCE_S):
        while not wanted():
            await asyncio.sleep(0.02)


async def test_a_streamed_answer_is_counted_from_the_models_piece_to_its_end(model_node: ModelNode) -> None:
    metrics = model_node.node.node.sockets.metrics
    names: tuple[tuple[str, dict[str, str]], ...] = (
        ("cinewire_chunk_delay_seconds_count", {}),
        ("cinewire_first_chunk_seconds_count", {}),
        ("cinewire_answer_seconds_count", {"end": "complete"}),
        ("cinewire_vendor_calls_total", {"vendor": "model", "outcome": "stop"}),
        ("cinewire_vendor_call_seconds_count", {"vendor": "model"}),
        ("cinewire_vendor_calls_total", {"vendor": "wechat_login", "outcome": "ok"}),
        ("cinewire_operation_seconds_count", {"operation": "chat", "outcome": "ok"}),
    )
    before = [value(metrics, name, **labels) for name, labels in names]
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        frames = await client.stream({"type": "chat", "query": "数到三"})
    chunks = sum(frame["type"] == "chunk" for frame in frames)
    assert chunks
    await until(lambda: value(metrics, "cinewire_answer_seconds_count", end="complete") > before[2])
    counted = [value(metrics, name, **labels) - had for (name, labels), had in zip(names, before, strict=True)]
    assert counted == [chunks, 1, 1, 1, 1, 1, 1]


async def test_resumes_are_counted_by_what_came_of_them(model_node: ModelNode) -> None:
    metrics = model_node.node.node.sockets.metrics

    def results() -> list[float]:
        found = ("recovered", "gone", "not_found")
        return [value(metrics, "cinewire_resumes_total", result=result) for result in found]

    before = results()
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        frames = await client.stream({"type": "chat", "query": "数到三"})
        request_id, last_seq = frames[-1]["request_id"], frames[-1]["seq"]
        await client.send({"type": "resume", "request_id": request_id, "after_seq": 0})
        assert (await client.receive_until("complete"))[0]["data"]["recovered"] is True
        beyond = {"type": "resume", "request_id": request_id, "after_seq": last_seq + 1}
        assert (await client.call(beyond))["data"]["recovered"] is False
        assert (await client.call({"type": "resume", "request_id": "0" * 32}))["reason"] == "run_not_found"
    assert [now - had for now, had in zip(results(), before, strict=True)] == [1, 1, 1]


def test_what_is_gathered_first_is_in_the_histogram_as_if_it_were_not() -> None:
    registry = CollectorRegistry()
    plain = Histogram("plain", "As the library does it", buckets=DELAY_BUCKETS_S, registry=registry)
    gathered = GatheredHistogram("gathered", "As we do it", buckets=DELAY_BUCKETS_S, registry=registry)

    def said(name: str) -> dict[str, float]:
        (family,) = (family for family in registry.collect() if family.name == name)
        samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        return {sample.name.removeprefix(name) + str(sample.labels): sample.value for sample in samples}

    for _ in range(3):
        for amount in (0.0, 0.0005, 0.00051, 0.04, 0.1, 9.99, 10.0, 10.01, 1e9):
            plain.observe(amount)
            gathered.observe(amount)
        assert said("gathered") == said("plain")
        gathered.gather()
        assert said("gathered") == said("plain")


async def test_closes_are_counted_by_code(model_node: ModelNode) -> None:
    metrics = model_node.node.node.sockets.metrics
    before = value(metrics, "cinewire_connections_closed_total", code="4002")
    async with socket_client(model_node.url) as client:
        for _ in range(10):
            await client.send("no message")
        assert await client.closed() == 4002
    await until(lambda: value(metrics, "cinewire_connections_closed_total", code="4002") == before + 1)


async def test_event_streams_are_counted_while_they_are_open(model_node: ModelNode) -> None:
    metrics = model_node.node.node.sockets.metrics
    before = value(metrics, "cinewire_event_streams")
    gate = Gate()
    model_node.model.queue(stalls(gate, "慢"))
    body = {"message": "慢", "user_id": "u-metrics", "session_id": "s", "kb_prefix": ""}
    async with (
        httpx.AsyncClient(base_url=model_node.url, trust_env=False, timeout=PATIENCE_S) as http,
        http.stream("POST", "/api/v1/mp/chat/stream", json=body) as response,
    ):
        async for _event in events(response):
            break
        assert value(metrics, "cinewire_event_streams") == before + 1
        gate.open()
    await until(lambda: value(metrics, "cinewire_event_streams") == before)


async def test_an_outbox_says_how_much_waits_until_it_is_taken_or_given_up() -> None:
    outbox = Outbox(limit_bytes=10)
    assert outbox.put(b"12345")
    assert outbox.put(b"123")
    assert outbox.size_bytes == 8
    assert await outbox.take() == [b"12345", b"123"]
    assert outbox.size_bytes == 0
    assert outbox.put(b"12345678")
    assert not outbox.put(b"1234")
    assert outbox.size_bytes == 0


async def test_a_full_pool_of_postgres_says_who_uses_it_and_who_waits(services: Services) -> None:
    assert services.database_url is not None
    async with Postgres.open(services.database_url, size=2) as postgres, asyncio.TaskGroup() as tasks:
        go_on = asyncio.Event()

        async def hold() -> None:
            async with postgres.connection():
                await go_on.wait()

        for _ in range(5):
            tasks.create_task(hold())
        await until(lambda: postgres.use().in_use == 2)
        assert (postgres.use().idle, postgres.use().waiting) == (0, 3)
        go_on.set()
        await until(lambda: postgres.use().waiting == 0)


async def test_a_full_pool_of_redis_says_who_uses_it_and_who_waits(services: Services) -> None:
    assert services.redis_url is not None
    async with open_redis(services.redis_url) as redis, asyncio.TaskGroup() as tasks:
        go_on = asyncio.Event()
        assert isinstance(redis, OneRedis)
        pool = redis.connection_pool
        assert isinstance(pool, Pool)

        async def hold() -> None:
            connection = await pool.get_connection()
            await go_on.wait()
            await pool.release(connection)

        for _ in range(MAX_CONNECTIONS + 3):
            tasks.create_task(hold())
        await until(lambda: pool_use(redis) == PoolUse(MAX_CONNECTIONS, 0, 3))
        go_on.set()
        await until(lambda: pool_use(redis) == PoolUse(0, MAX_CONNECTIONS, 0))


async def test_a_loop_that_is_held_up_is_seen_to_be_late() -> None:
    metrics = Metrics()
    sampling = asyncio.create_task(sample(metrics, {"postgres": lambda: PoolUse(3, 2, 1)}, lambda: 7))
    try:
        await until(lambda: value(metrics, "cinewire_outbox_bytes") == 7)
        assert value(metrics, "cinewire_pool_connections", pool="postgres", state="in_use") == 3
        assert value(metrics, "cinewire_pool_connections", pool="postgres", state="idle") == 2
        assert value(metrics, "cinewire_pool_waiting", pool="postgres") == 1
        time.sleep(2 * LAG_S)  # noqa: ASYNC251 (this is the hold-up)
        await until(lambda: value(metrics, "cinewire_loop_lag_seconds_count") > 0)
        assert value(metrics, "cinewire_loop_lag_seconds_sum") >= LAG_S / 2
    finally:
        sampling.cancel()


# ---- the dashboard and the alerts ----


def queries() -> Iterator[tuple[str, str]]:
    """Every query that is drawn or that wakes somebody, with where it stands."""
    dashboard = json.loads((DEPLOY / "grafana" / "cinewire.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def known() -> dict[str, set[str]]:
    """The series that a server shows, and the labels that each has."""
    found: dict[str, set[str]] = dict(NOT_OURS)
    for collector in Metrics().registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            labels = set(collector._labelnames) | EVERYWHERE
            family = next(iter(collector.describe())).name
            if isinstance(collector, Histogram):
                found |= {f"{family}_bucket": labels | {"le"}, f"{family}_count": labels, f"{family}_sum": labels}
            elif isinstance(collector, Counter):
                found[f"{family}_total"] = labels
            else:
                found[family] = labels
        else:
            found |= {family.samples[0].name: EVERYWHERE for family in collector.collect()}
    return found


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda text: str(text)[:40])
def test_every_query_asks_for_what_there_is(where: str, query: str) -> None:
    series = known()
    named = {name for name in NAME.findall(query) if name not in ("process", "up") or name in series}
    assert named, where
    assert named <= series.keys(), f"{where}: {named - series.keys()}"
    for name, selectors in SELECTED.findall(query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
        assert labels <= series[name], f"{where}: {name} has no {labels - series[name]}"
    allowed = set[str]().union(*(series[name] for name in named))
    for grouped in GROUPED.findall(query):
        labels = {label.strip() for label in grouped.split(",")}
        assert labels <= allowed, f"{where}: nothing has {labels - allowed}"
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")


def test_every_metric_of_ours_is_drawn() -> None:
    drawn = {name for _, query in queries() for name in NAME.findall(query)}
    ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known() if name.startswith("cinewire_")}
    assert ours == {re.sub(r"_(bucket|count|sum)$", "", name) for name in drawn if name.startswith("cinewire_")}


@pytest.mark.parametrize("document", ["operating.md", "operating.zh-CN.md"])
def test_every_metric_of_ours_is_explained(document: str) -> None:
    explained = set(NAME.findall((DEPLOY.parent / "docs" / document).read_text()))
    ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known() if name.startswith("cinewire_")}
    assert {name for name in explained if name.startswith("cinewire_")} == ours


def test_every_alert_says_how_bad_it_is_what_happened_and_what_to_do() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "do"}, rule["alert"]
        assert len(rule["annotations"]["do"]) > 60, rule["alert"]


def test_reasons_that_alerts_look_for_are_reasons_of_ours() -> None:
    other = {"ok", "stop", "length", "cancelled", "not_found", "pass", "review", "risky", "not_seen_lately"}
    other |= {"complete", "handed over"}
    for where, query in queries():
        for selected in re.findall(r'(?:outcome|end)(?:=~|!~|!=|=)"([^"]*)"', query):
            for reason in selected.split("|"):
                fits = [kind for kind in ERRORS if re.fullmatch(reason, kind)]
                assert fits or reason in other, f"{where}: {reason}"
