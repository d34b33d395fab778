"""A Postman collection (2.1) made from the OpenAPI document: one request for each of its examples, with its answers."""

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from wsserver.contract.schemas import Json

COLLECTION = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
BASE_URL = "http://127.0.0.1:8000"


def postman(document: Json) -> Json:
    """The collection. Folders are the document's tags; `token` is sent where its header is switched on."""
    folders: dict[str, list[Json]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            folders[described["tags"][0]] += _items(method.upper(), path, described)
    return {
        "info": {
            "name": document["info"]["title"],
            "description": document["info"]["description"],
            "version": document["info"]["version"],
            "schema": COLLECTION,
        },
        "variable": [{"key": "base_url", "value": BASE_URL}, {"key": "token", "value": ""}],
        "item": [{"name": name, "item": items} for name, items in folders.items() if items],
    }


def _items(method: str, path: str, described: Json) -> Iterator[Json]:
    body = described.get("requestBody", {}).get("content", {}).get("application/json")
    if body is None:
        yield _item(f"{method} {path}", _request(method, path, described, None), described, None)
        return
    examples = body.get("examples", {None: {"value": body.get("example")}})
    for name, example in examples.items():
        request = _request(method, path, described, example["value"])
        yield _item(name or f"{method} {path}", request, described, name)


def _item(name: str, request: Json, described: Json, example: str | None) -> Json:
    responses = []
    for status, response in described["responses"].items():
        for media_type, media in response["content"].items():
            answers: Mapping[str | None, Json] = media.get("examples", {None: {"value": media.get("example")}})
            # One a status is enough: the document has all of them.
            key = example if example in answers else next(iter(answers))
            if status == "200" and key != example and example is not None:
                continue
            answer = answers[key]["value"]
            responses.append(_response(f"{status} {key or media_type}", request, int(status), media_type, answer))
    return {"name": name, "request": request, "response": responses}


def _response(name: str, request: Json, status: int, media_type: str, value: Any) -> Json:
    return {
        "name": name,
        "originalRequest": request,
        "code": status,
        "status": HTTPStatus(status).phrase,
        "header": [{"key": "Content-Type", "value": media_type}],
        "body": value if isinstance(value, str) else _pretty(value),
    }


def _request(method: str, path: str, described: Json, body: Any) -> Json:
    parameters = described.get("parameters", [])
    segments = re.sub(r"\{(\w+)[^}]*\}", r":\1", path).strip("/").split("/")
    query = [
        {"key": one["name"], "value": str(one.get("example", "")), "disabled": "example" not in one}
        for one in parameters
        if one["in"] == "query"
    ]
    headers = [
        {"key": one["name"], "value": str(one.get("example", "")), "disabled": True}
        for one in parameters
        if one["in"] == "header"
    ]
    if described["security"]:
        must = {} not in described["security"]
        headers.append({"key": "Authorization", "value": "Bearer {{token}}", "disabled": not must})
    if body is not None:
        headers.append({"key": "Content-Type", "value": "application/json"})
    asked = urlencode({one["key"]: one["value"] for one in query if not one["disabled"]})
    request: Json = {
        "method": method,
        "description": described.get("description", described["summary"]),
        "header": headers,
        "url": {
            "raw": "{{base_url}}/" + "/".join(segments) + (f"?{asked}" if asked else ""),
            "host": ["{{base_url}}"],
            "path": segments,
            "query": query,
            "variable": [
                {"key": one["name"], "value": str(one.get("example", ""))} for one in parameters if one["in"] == "path"
            ],
        },
    }
    if body is not None:
        request["body"] = {"mode": "raw", "raw": _pretty(body), "options": {"raw": {"language": "json"}}}
    return request


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
