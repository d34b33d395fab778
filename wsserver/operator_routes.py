"""What balancers, monitors and older pages ask of a server rather than of an operation."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime

import prometheus_client
from pydantic_core import to_json
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from protocol.errors import OperationError
from storage.postgres import Postgres
from storage.redis import Redis, ping
from wsserver.hub import Hub
from wsserver.telemetry import Metrics

READY_TIMEOUT_S = 2.0
"""A balancer asks every few seconds and gives up after a few."""


def operator_routes(postgres: Postgres, redis: Redis, hub: Hub, metrics: Metrics) -> list[BaseRoute]:
    """Alive, ready, and the metrics."""

    async def health(_http: HttpRequest) -> Response:
        return _json({"status": "ok"})

    async def wechat_health(_http: HttpRequest) -> Response:
        return _json({"code": 0, "message": "服务正常", "timestamp": datetime.now(UTC).isoformat()})

    async def ready(_http: HttpRequest) -> Response:
        answers = await asyncio.gather(_answers(postgres.ping()), _answers(ping(redis)))
        checks = dict(zip(("postgres", "redis"), answers, strict=True)) | {"accepting": not hub.draining}
        fine = all(checks.values())
        return _json({"status": "ready" if fine else "not ready", **checks}, 200 if fine else 503)

    async def show_metrics(_http: HttpRequest) -> Response:
        return Response(metrics.text(), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    return [
        Route("/health", health),
        Route("/wechat/health", wechat_health),
        Route("/ready", ready),
        Route("/metrics", show_metrics),
    ]


async def _answers(check: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await check
    except (OperationError, TimeoutError):
        return False
    return True


def _json(fields: object, status: int = 200) -> Response:
    return Response(to_json(fields), status, media_type="application/json")
