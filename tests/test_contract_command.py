"""The command that writes the documents, and the collection that Postman reads."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.schemas import operations_of
from wsserver.contract.command import main, texts

DOCUMENT = json.loads(texts()["openapi.json"])
COLLECTION = json.loads(texts()["postman.json"])


REQUESTS = {f"{folder['name']}: {item['name']}": item for folder in COLLECTION["item"] for item in folder["item"]}


def route_of(request: dict[str, Any]) -> str:
    """The route that a request is for, as the document names it."""
    segments = [f"{{{part[1:]}}}" if part.startswith(":") else part for part in request["url"]["path"]]
    return f"{request['method']} /{'/'.join(segments)}"


def test_what_was_written_is_current_until_something_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "documents"
    assert main([str(folder), "--check"]) == 1
    assert main([str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {"openapi.json", "asyncapi.json", "postman.json", "llms.txt"}
    assert main([str(folder), "--check"]) == 0
    capsys.readouterr()
    (folder / "openapi.json").write_text("{}")
    assert main([str(folder), "--check"]) == 1
    said = capsys.readouterr().err
    assert str(folder / "openapi.json") in said
    assert "asyncapi" not in said


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "file"
    taken.touch()
    assert main([str(taken)]) == 1
    assert str(taken) in capsys.readouterr().err


def test_the_collection_has_every_route_of_the_document() -> None:
    assert {route_of(item["request"]) for item in REQUESTS.values()} == set(dict(operations_of(DOCUMENT)))


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_of_the_collection_is_answered_as_one_of_its_answers(
    http: httpx.AsyncClient, name: str
) -> None:
    item = REQUESTS[name]
    request = item["request"]
    path = request["url"]["raw"].removeprefix("{{base_url}}")
    for variable in request["url"]["variable"]:
        path = path.replace(f":{variable['key']}", variable["value"])
    headers = {one["key"]: one["value"] for one in request["header"] if not one.get("disabled")}
    answer = await http.request(request["method"], path, headers=headers, content=request.get("body", {}).get("raw"))
    assert answer.status_code in {each["code"] for each in item["response"]}, name
