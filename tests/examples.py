"""Examples out of the documents and the READMEs, made ready to be sent: what they name is made first."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.clients import PATIENCE_S, SocketClient

ROOT = Path(__file__).resolve().parent.parent
PROSE = sorted((*ROOT.glob("README*.md"), *ROOT.glob("docs/clients*.md"), *ROOT.glob("docs/messages*.md")))
"""What is written for developers of clients; each of these has talks and command lines."""
BASE_URL = "http://127.0.0.1:8000"
"""Where the READMEs' server is."""

_SHORTENED = re.compile(r"[0-9a-f]{4}…")
_NAMED = re.compile(r'"(\w+)":"([0-9a-f]{4}…)"')
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


async def lived(client: SocketClient, url: str) -> dict[str, object]:
    """Names of things that exist, by the fields in which messages name them."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
        answered = await http.post("/wechat/chat", json={"query": "你好"})
    question = {"type": "chat", "query": "想看《盗梦空间》", "id": "before", "watchlist_auto_capture": True}
    frames = await client.stream(question)
    captured = next(frame for frame in frames if frame["type"] == "watchlist")
    return {
        "request_id": frames[0]["data"]["request_id"],
        "conversation_id": frames[0]["data"]["conversation_id"],
        "message_id": frames[-1]["message_id"],
        "capture_id": captured["content"]["capture_id"],
        "token": client.token,
        "secret": answered.json()["data"]["guest_secret"],
        "after_seq": 0,
    }


def made_real(
    message: Mapping[str, Any], exists: Mapping[str, object], names: dict[str, object] | None = None
) -> dict[str, Any]:
    """The message, naming what exists. With `names`, only what is shortened, like `768e…`, stands for something."""
    if names is None:
        return {key: exists.get(key, value) for key, value in message.items()}
    return {key: _real(key, value, exists, names) for key, value in message.items()}


def _real(key: str, value: object, exists: Mapping[str, object], names: dict[str, object]) -> object:
    if not isinstance(value, str) or not _SHORTENED.fullmatch(value):
        return value
    if value not in names:
        names[value] = exists[key]
    return names[value]


def learn(names: dict[str, object], line: str, frames: Sequence[object]) -> None:
    """What the shortened names in a line of an answer stand for, from the answer that came."""
    for key, name in _NAMED.findall(line):
        for found in (value for frame in frames for value in _values(frame, key)):
            names.setdefault(name, found)


def _values(value: object, key: str) -> Iterator[object]:
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _values(one, key)


def fenced(path: Path, language: str) -> Iterator[str]:
    """The blocks of a Markdown file in this language."""
    for found in _FENCED.finditer(path.read_text("utf-8")):
        if found[1] == language:
            yield found[2]


def talks(path: Path) -> list[list[tuple[str, str]]]:
    """What goes over a socket in a Markdown file: `>` and `<` with a message of the client and frames of the server.

    A talk begins with what the client sends, or with the first frame of a socket.
    """
    texts = fenced(path, "text")
    blocks = ([(line[0], line[2:]) for line in text.splitlines() if line[:2] in ("> ", "< ")] for text in texts)
    return [lines for lines in blocks if any(side == ">" for side, _ in lines)]


@dataclass(frozen=True, slots=True)
class Curl:
    """A request as a command line of curl makes it. `note` is the comment behind it: some of the answer."""

    line: str
    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    note: str


def curls(path: Path) -> list[list[Curl]]:
    """The blocks of command lines of curl in a Markdown file. Raises ValueError for an option that is unknown here."""
    blocks = (block.replace("\\\n", " ").splitlines() for block in fenced(path, "bash"))
    found = [[_curl(line) for line in lines if line.startswith("curl ")] for lines in blocks]
    return [lines for lines in found if lines]


def _curl(line: str) -> Curl:
    said, _, note = line.partition("  # ")
    words = iter(shlex.split(said)[1:])
    method, url, body = "", "", None
    headers: dict[str, str] = {}
    for word in words:
        match word:
            case "-N" | "-s" | "-sN":
                pass
            case "-X":
                method = next(words)
            case "-H":
                name, _, value = next(words).partition(":")
                headers[name] = value.strip()
            case "-d":
                body = next(words)
            case _ if word.startswith(BASE_URL):
                url = word.removeprefix(BASE_URL)
            case _:
                raise ValueError(f"{word} in {line}")
    return Curl(line, method or ("GET" if body is None else "POST"), url, headers, body, note)
