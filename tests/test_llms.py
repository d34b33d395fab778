"""`/llms.txt` tells a model what it needs for a client, and nothing that the server does not do."""

import re

import httpx

from protocol.errors import CLOSE_CODES
from protocol.operations import OPERATIONS
from wsserver.contract.llms import llms

TEXT = llms(OPERATIONS)
MOST_LINES = 60


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n\n", 1)[1].split("\n## ", 1)[0]


async def test_it_is_served_as_text_and_its_links_lead_somewhere(http: httpx.AsyncClient) -> None:
    served = await http.get("/llms.txt")
    assert (served.status_code, served.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert served.text == TEXT
    again = await http.get("/llms.txt", headers={"If-None-Match": served.headers["etag"]})
    assert again.status_code == 304
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert set(links) == {"/asyncapi.json", "/openapi.json", "/docs/ws", "/docs"}
    for link in links:
        assert (await http.get(link)).status_code == 200, link


def test_its_rules_are_short_and_name_what_there_is() -> None:
    assert len(section("Rules of the socket").splitlines()) <= MOST_LINES
    for type_ in re.findall(r'{"type":"(\w+)"', section("Rules of the socket")):
        assert type_ in OPERATIONS or type_ == "connected"


def test_it_has_every_message_and_every_close_code() -> None:
    messages = section("Messages")
    assert set(re.findall(r'^- `{"type":"(\w+)"', messages, re.MULTILINE)) == set(OPERATIONS)
    assert {int(code) for code in re.findall(r"^- (\d+),", section("When it is closed"), re.MULTILINE)} == set(
        CLOSE_CODES
    )
