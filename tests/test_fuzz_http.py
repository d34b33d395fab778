"""Requests that the document allows, and those that it forbids: whatever comes, the answer is one that it describes."""

import asyncio
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from protocol.operations import OPERATIONS
from tests.clients import PATIENCE_S
from tests.node import TestNode
from tests.schemas import operations_of
from wsserver.contract.openapi import openapi

DOCUMENT = openapi(OPERATIONS)
ROUTES = dict(operations_of(DOCUMENT))
CASES = {GenerationMode.POSITIVE: 14, GenerationMode.NEGATIVE: 10}
"""For each route: some 400 for all of them, which take a quarter of a minute."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def event_by_event(node: Any) -> Any:
    """The document with the schema of one event where it has that of a whole stream: so schemathesis reads them."""
    if isinstance(node, list):
        return [event_by_event(child) for child in node]
    if not isinstance(node, dict):
        return node
    if node.get("contentMediaType") == "text/event-stream":
        data = {"type": "string", "contentMediaType": "application/json", "contentSchema": node["contentSchema"]}
        return {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {key: event_by_event(child) for key, child in node.items()}


def ask_whatever(url: str, route: str, mode: GenerationMode) -> int:
    """Ask a route in many ways. Gives how many."""
    method, path = route.split()
    api = schemathesis.openapi.from_dict(event_by_event(DOCUMENT))
    asked = 0

    @seed(20260501)
    @settings(
        max_examples=CASES[mode],
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def ask(case: "Case[Any]") -> None:
        nonlocal asked
        asked += 1
        response = case.call(base_url=url, timeout=PATIENCE_S)
        case.validate_response(response, checks=CHECKS)

    ask()
    return asked


def asks() -> list[tuple[str, GenerationMode]]:
    """Every route in both modes; where nothing can be said, nothing can be said wrong."""
    return [
        (route, mode)
        for route, described in ROUTES.items()
        for mode in CASES
        if mode is GenerationMode.POSITIVE or "requestBody" in described or described.get("parameters")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("route", "mode"), asks())
async def test_every_answer_is_in_the_document(node: TestNode, route: str, mode: GenerationMode) -> None:
    # In a thread: the server has this one.
    assert await asyncio.to_thread(ask_whatever, node.url, route, mode) > 0
