"""The OpenAPI document says what the running server does, and follows from the declarations alone."""

import json
from typing import Annotated, Any, Literal, get_args

import httpx
import pytest
from openapi_spec_validator import validate
from pydantic import Field
from starlette.applications import Starlette
from starlette.routing import Route as HttpRoute

from protocol.chat import CHAT, ChatFrame
from protocol.errors import ERRORS
from protocol.operation import Access, Body, Noun, OperationTable, Request, Route, Shape
from protocol.operations import OPERATIONS
from tests.clients import events
from tests.node import TestNode
from tests.schemas import examples_of, operations_of, problems
from wsserver.contract.examples import MissingExampleError
from wsserver.contract.failures import route_failures
from wsserver.contract.openapi import openapi
from wsserver.contract.pages import contract_routes

DOCUMENT = openapi(OPERATIONS)
DESCRIBED = dict(operations_of(DOCUMENT))


def routes_of(application: Starlette) -> set[str]:
    return {
        f"{method} {route.path}"
        for route in application.routes
        if isinstance(route, HttpRoute)
        for method in (route.methods or set()) - {"HEAD"}
    }


def test_the_document_is_openapi() -> None:
    validate(DOCUMENT)


def test_every_route_of_the_server_is_in_the_document_and_nothing_else(node: TestNode) -> None:
    application: Any = node.node.uvicorn.config.app
    while not isinstance(application, Starlette):
        application = application.app
    own = {f"GET {route.path}" for route in contract_routes()}
    assert set(DESCRIBED) == routes_of(application) - own


@pytest.mark.parametrize("name", DESCRIBED)
def test_examples_are_what_their_schemas_say(name: str) -> None:
    described = DESCRIBED[name]
    media = [*described.get("requestBody", {}).get("content", {}).values()]
    media += [media for response in described["responses"].values() for media in response["content"].values()]
    media += [parameter for parameter in described.get("parameters", []) if "example" in parameter]
    assert media
    for one in media:
        for example in examples_of(one):
            assert problems(DOCUMENT, one["schema"], example) == [], example


@pytest.mark.parametrize("name", [name for name, each in DESCRIBED.items() if "text/event-stream" in str(each)])
def test_the_events_of_an_example_are_what_the_schema_of_events_says(name: str) -> None:
    media = DESCRIBED[name]["responses"]["200"]["content"]["text/event-stream"]
    for example in examples_of(media):
        lines = [line.removeprefix("data: ") for line in example.splitlines() if line.startswith("data: ")]
        assert len(lines) > 1
        schema = media["schema"]
        if "$ref" in schema:
            schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        for line in lines:
            assert problems(DOCUMENT, schema["contentSchema"], json.loads(line)) == [], line


def test_every_error_that_an_operation_declares_is_in_each_of_its_routes() -> None:
    for operation in OPERATIONS.values():
        for route in operation.routes:
            said = json.dumps(DESCRIBED[f"{route.method} {route.path}"]["responses"])
            for kind in (*operation.errors, *route_failures(operation, route)):
                assert f'"{kind.reason}"' in said, (route.path, kind.reason)
        said = json.dumps(DESCRIBED["POST /api/v1/messages"]["responses"])
        for kind in (*operation.errors, *getattr(operation, "run_errors", ())):
            assert f'"{kind.reason}"' in said, (operation.name, kind.reason)


def test_every_reason_in_the_document_is_one_that_exists() -> None:
    reasons: set[str] = set()

    def look(node: Any) -> None:
        if isinstance(node, dict):
            properties = node.get("properties")
            if isinstance(properties, dict) and isinstance(enum := properties.get("reason", {}).get("enum"), list):
                reasons.update(enum)
            for child in node.values():
                look(child)
        elif isinstance(node, list):
            for child in node:
                look(child)

    look(DOCUMENT["paths"])
    assert reasons
    assert reasons <= set(ERRORS)


async def test_a_body_of_which_nothing_is_required_may_be_left_out(http: httpx.AsyncClient) -> None:
    optional = [name for name, each in DESCRIBED.items() if not each.get("requestBody", {"required": True})["required"]]
    assert optional == ["POST /api/v1/conversations"]
    schema = DESCRIBED[optional[0]]["responses"]["200"]["content"]["application/json"]["schema"]
    made = await http.post("/api/v1/conversations", headers={"X-User-ID": "u-doc"})
    assert made.status_code == 200
    assert problems(DOCUMENT, schema, made.json()) == []


def test_a_chat_declares_a_frame_of_each_kind() -> None:
    assert {type(frame) for frame in CHAT.frames} == set(get_args(ChatFrame))


async def test_a_real_answers_events_are_what_the_document_says(http: httpx.AsyncClient) -> None:
    for path in ("/api/v1/mp/chat/stream", "/api/v1/chat/stream"):
        schema = DESCRIBED[f"POST {path}"]["responses"]["200"]["content"]["text/event-stream"]["schema"][
            "contentSchema"
        ]
        body = {
            "message": "想看《盗梦空间》，推荐三部诺兰导演的电影",
            "user_id": f"u-doc of {path}",
            "session_id": path,
            "debug": True,
        }
        body["watchlist_auto_capture"] = True
        async with http.stream("POST", path, json=body) as response:
            frames = [frame async for frame in events(response)]
        kinds = {frame.get("type") or frame["status"] for frame in frames}
        assert kinds & {"complete", "done"}
        assert "watchlist" in kinds
        for frame in frames:
            assert problems(DOCUMENT, schema, frame) == [], frame


@pytest.mark.parametrize("name", ["movies_bulk", "movie_detail", "movies_search"])
async def test_examples_of_film_lookups_are_what_the_server_answers(http: httpx.AsyncClient, name: str) -> None:
    messages = DESCRIBED["POST /api/v1/messages"]
    request = messages["requestBody"]["content"]["application/json"]["examples"][name]["value"]
    example = messages["responses"]["200"]["content"]["application/json"]["examples"][name]["value"]
    assert (await http.post("/api/v1/messages", json=request)).json() == example


# ---- what a declaration must have ----


class AskTrivia(Request):
    type: Literal["movie_trivia"]
    tmdb_id: int


class Trivia(Noun):
    text: str


class TriviaBody(Body):
    film: Annotated[int, Field(ge=1)]

    def message(self) -> dict[str, object]:
        return {"tmdb_id": self.film}


def trivia(**declared: Any) -> dict[str, Any]:
    table = OperationTable()
    table.declare("movie_trivia", AskTrivia, Trivia, summary="Trivia", access=Access.GUEST, **declared)
    return openapi(table.by_name)


ASK, TRIVIA = AskTrivia(type="movie_trivia", tmdb_id=603), Trivia(text="…")
ROUTE = Route("POST", "/trivia", Shape.BARE, TriviaBody)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({}, r"'movie_trivia' has no example of its request: add example=AskTrivia\(type='movie_trivia', …\)"),
        ({"example": ASK}, r"'movie_trivia' has no example of its reply: add example_reply=Trivia\(…\)"),
        (
            {"example": ASK, "example_reply": TRIVIA, "routes": (ROUTE,)},
            r"POST /trivia of operation 'movie_trivia' has no example that it would take: add example=",
        ),
    ],
)
def test_a_declaration_without_an_example_is_told_what_to_add(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(MissingExampleError, match=said):
        trivia(**declared)


def test_a_new_operation_is_documented_by_its_declaration_alone() -> None:
    route = Route("POST", "/trivia", Shape.BARE, TriviaBody, {"film": 603})
    document = trivia(example=ASK, example_reply=TRIVIA, routes=(route,))
    validate(document)
    assert document["paths"]["/trivia"]["post"]["requestBody"]["content"]["application/json"]["example"] == {
        "film": 603
    }


# ---- the pages ----


async def test_the_document_is_served_and_is_not_sent_twice(http: httpx.AsyncClient) -> None:
    served = await http.get("/openapi.json")
    assert (served.status_code, served.headers["content-type"]) == (200, "application/json")
    assert served.json() == json.loads(json.dumps(DOCUMENT))
    again = await http.get("/openapi.json", headers={"If-None-Match": served.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_has_all_that_it_needs_from_here(http: httpx.AsyncClient, page: str) -> None:
    shown = await http.get(page)
    assert shown.status_code == 200
    policy = shown.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in shown.text
    files = [part.split('"')[0] for part in shown.text.replace('src="', 'href="').split('href="')[1:]]
    files.remove("data:,")
    assert len(files) >= 3
    for file in files:
        asset = await http.get(f"/{file}")
        assert asset.status_code == 200
        assert asset.headers["content-type"].startswith(("text/javascript", "text/css"))
        assert "immutable" in asset.headers["cache-control"]
        again = await http.get(f"/{file}", headers={"If-None-Match": asset.headers["etag"]})
        assert again.status_code == 304


async def test_no_other_file_can_be_had(http: httpx.AsyncClient) -> None:
    for name in ("README.md", "swagger-ui-bundle.js", "..%2Fpages.py", "%2e%2e/pages.py"):
        assert (await http.get(f"/docs/static/{name}")).status_code == 404
