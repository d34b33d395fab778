"""The routes that are no operations: what balancers, monitors and pages ask of a server, and what they are told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The process serves."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether a balancer may send clients here: both databases answer, and the server is not about to stop."""

    status: Literal["ready", "not ready"]
    postgres: bool
    redis: bool
    accepting: bool


class WeChatHealth(BaseModel):
    """The same as `/health` for pages that read `code`. `timestamp` is ISO 8601 in UTC."""

    code: Literal[0]
    message: str
    timestamp: str


@dataclass(frozen=True, slots=True)
class OperatorRoute:
    """A GET without parameters. `model` is None where it answers with text. `examples` by HTTP status."""

    path: str
    summary: str
    model: type[BaseModel] | None
    examples: Mapping[int, Any]


_READY = {"status": "ready", "postgres": True, "redis": True, "accepting": True}

OPERATOR_ROUTES = (
    OperatorRoute("/health", "Whether the process is alive", Health, {200: {"status": "ok"}}),
    OperatorRoute(
        "/ready",
        "Whether clients may be sent here",
        Readiness,
        {200: _READY, 503: _READY | {"status": "not ready", "accepting": False}},
    ),
    OperatorRoute(
        "/wechat/health",
        "Whether the process is alive, in an envelope",
        WeChatHealth,
        {200: {"code": 0, "message": "服务正常", "timestamp": "2026-05-01T12:00:00+00:00"}},
    ),
    OperatorRoute(
        "/metrics",
        "Metrics in Prometheus' text format",
        None,
        {200: "# HELP cinewire_runs Answers in the making\n# TYPE cinewire_runs gauge\ncinewire_runs 2.0\n"},
    ),
)
