"""The tools themselves: a client that overlooks what is broken, or a proxy that breaks more, would prove nothing."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.faults.answer import Answer, BrokenPromiseError
from tests.faults.client import Client, Counts
from tests.faults.model import answer_to, question, text_for
from tests.faults.proxy import How, Proxy

Frame = dict[str, Any]


def chunk(seq: int, content: str, **more: object) -> Frame:
    return {"type": "chunk", "request_id": "r", "seq": seq, "content": content, **more}


def complete(seq: int, answer: str, finish_reason: str = "stop") -> Frame:
    return chunk(seq, "", type="complete", answer=answer, finish_reason=finish_reason)


def restart(seq: int) -> Frame:
    return chunk(seq, "", type="restart")


def answer(*frames: Frame) -> Answer:
    taken = Answer("q", "id", "abc", request_id="r")
    for frame in frames:
        taken.take(frame)
    return taken


def test_a_whole_answer_is_taken_and_after_a_restart_only_what_came_then() -> None:
    taken = answer(chunk(1, "a"), chunk(2, "bc"), complete(3, "abc"))
    assert (taken.shown, taken.is_over, taken.broken.lost) == ("abc", True, 0)
    taken = answer(chunk(1, "ab"), restart(1001), chunk(1002, "abc"), complete(1003, "abc"))
    assert (taken.shown, taken.restarts) == ("abc", 1)


@pytest.mark.parametrize(
    ("frames", "how", "lost", "doubled", "reordered"),
    [
        ([chunk(2, "a")], "lost", 1, 0, 0),
        ([chunk(1, "a"), chunk(4, "b")], "lost", 2, 0, 0),
        ([chunk(1, "a"), complete(3, "a")], "lost", 1, 0, 0),
        ([chunk(1, "a"), chunk(1, "a")], "doubled", 0, 1, 0),
        ([chunk(1, "a"), chunk(1, "b")], "reordered", 0, 0, 1),
        ([chunk(1, "a"), restart(5), chunk(3, "a")], "reordered", 0, 0, 1),
        ([chunk(1, "abc"), complete(2, "abc"), chunk(3, "a")], "after the last", 0, 1, 0),
        ([chunk(1, "b")], "did not say", 0, 0, 0),
        ([chunk(1, "a"), complete(2, "ab")], "not what its chunks", 0, 0, 0),
        ([chunk(1, "a"), complete(2, "a")], "not what the model", 0, 0, 0),
        ([chunk(1, "a", id="another")], "another chat", 0, 0, 0),
    ],
)
def test_every_broken_promise_is_seen(frames: list[Frame], how: str, lost: int, doubled: int, reordered: int) -> None:
    taken = Answer("q", "id", "abc", request_id="r")
    *fine, bad = frames
    for frame in fine:
        taken.take(frame)
    with pytest.raises(BrokenPromiseError, match=how):
        taken.take(bad)
    broken = taken.broken
    assert (broken.lost, broken.doubled, broken.reordered) == (lost, doubled, reordered)


def test_a_chat_that_became_two_runs_and_a_stored_answer_that_is_another_are_seen() -> None:
    taken = answer()
    with pytest.raises(BrokenPromiseError, match="another run"):
        taken.accept({"data": {"request_id": "s", "conversation_id": None}})
    with pytest.raises(BrokenPromiseError, match="not stored"):
        taken.gone({"recovered": False, "message": {"content": "ab"}})
    taken.gone({"recovered": False, "message": {"content": "abc"}})
    assert taken.is_over


def test_the_model_says_another_thing_to_every_question() -> None:
    one, two = (question(name, deltas=3, per_s=2.5) for name in ("a", "b"))
    assert len(answer_to(one)) == 3
    assert not set(answer_to(one)) & set(answer_to(two))


class Script:
    """A server that says what a test wants: `talks` has what happens on the first connection, the second, and so on."""

    def __init__(self, *talks: Callable[["Script", ServerConnection], Awaitable[None]]) -> None:
        self.talks = list(talks)
        self.heard: list[Frame] = []

    async def hear(self, socket: ServerConnection) -> Frame:
        while True:
            message: Frame = json.loads(await socket.recv())
            if message["type"] != "ping":
                self.heard.append(message)
                return message

    async def say(self, socket: ServerConnection, *frames: Frame) -> None:
        for frame in frames:
            await socket.send(json.dumps(frame))

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        async def talk(socket: ServerConnection) -> None:
            await self.say(socket, {"type": "connected"})
            login = await self.hear(socket)
            reply = {"type": f"{login['type']}_response", "code": 0, "data": {"token": "t"}}
            await self.say(socket, reply)
            await self.talks.pop(0)(self, socket)

        async with serve(talk, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


ACCEPTED = {"type": "chat_processing", "id": "id", "data": {"request_id": "r", "conversation_id": None}}


async def vanish(script: Script, socket: ServerConnection) -> None:
    await script.hear(socket)
    socket.transport.abort()


async def begin(script: Script, socket: ServerConnection) -> None:
    await script.hear(socket)
    await script.say(socket, ACCEPTED, chunk(1, "a"))
    await script.say(socket, {"type": "goodbye", "code": 1012, "retry_after_ms": 100})
    await socket.close(1012)


async def refuse_and_go_on(script: Script, socket: ServerConnection) -> None:
    resume = await script.hear(socket)
    refused = {"type": "error", "id": resume["id"], "reason": "storage_unavailable", "retryable": True}
    await script.say(socket, refused | {"retry_after_ms": 50})
    resume = await script.hear(socket)
    resumed = {"type": "resume_response", "id": resume["id"], "data": {"recovered": True}}
    await script.say(socket, resumed, chunk(2, "bc"), complete(3, "abc"))
    await socket.wait_closed()


async def skip(script: Script, socket: ServerConnection) -> None:
    await script.hear(socket)
    await script.say(socket, ACCEPTED, chunk(1, "a"), chunk(3, "c"))
    await socket.wait_closed()


async def say_nothing(script: Script, socket: ServerConnection) -> None:
    await script.hear(socket)
    await socket.wait_closed()


async def test_the_client_sends_again_resumes_and_waits_as_it_is_told() -> None:
    script, counts = Script(vanish, begin, refuse_and_go_on), Counts()
    async with script.open() as url, asyncio.timeout(10), Client([url], counts).open() as client:
        taken = await client.ask("q", id="id", expected="abc")
    assert taken.shown == "abc"
    types = [(message["type"], message.get("after_seq")) for message in script.heard]
    assert types == [
        ("login", None),
        ("chat", None),
        ("auth", None),
        ("chat", None),
        ("auth", None),
        ("resume", 1),
        ("resume", 1),
    ]
    assert {message["id"] for message in script.heard if message["type"] == "chat"} == {"id"}
    said = (counts.chats, counts.resends, counts.resumes, counts.goodbyes, counts.drops, counts.answers)
    assert said == (1, 1, 2, 1, 1, 1)
    assert counts.closes == {"1012": 1}


async def test_the_client_fails_its_test_at_the_first_lost_frame() -> None:
    counts = Counts()
    async with Script(skip).open() as url, asyncio.timeout(10), contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client([url], counts).open())
        with pytest.raises(BrokenPromiseError, match="lost 1 frames"):
            await client.ask("q", id="id", expected="abc")
        with pytest.raises(BrokenPromiseError):
            await stack.aclose()
    assert counts.broken.lost == 1


async def test_what_is_broken_after_the_last_answer_fails_the_test_too() -> None:
    counts, gate = Counts(), asyncio.Event()

    async def go_on_after_the_end(script: Script, socket: ServerConnection) -> None:
        await script.hear(socket)
        await script.say(socket, ACCEPTED, chunk(1, "abc"), complete(2, "abc"))
        await gate.wait()
        await script.say(socket, chunk(3, "abc"))
        await socket.wait_closed()

    async with Script(go_on_after_the_end).open() as url, asyncio.timeout(10), contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client([url], counts).open())
        await client.ask("q", id="id", expected="abc")
        gate.set()
        while counts.frames < 3:
            await asyncio.sleep(0)
        with pytest.raises(BrokenPromiseError, match="of a run that is over"):
            await stack.aclose()


async def test_the_client_leaves_a_socket_on_which_nothing_comes() -> None:
    script, counts = Script(say_nothing, begin, refuse_and_go_on), Counts()
    async with script.open() as url, asyncio.timeout(10), Client([url], counts, silence_s=0.2).open() as client:
        await client.ask("q", id="id", expected="abc")
    assert counts.silences == 1


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_all, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_the_proxy_passes_everything_on_in_order() -> None:
    sent = b"".join(b"%07d\n" % number for number in range(200_000))
    async with echo() as port, Proxy(port).open() as proxy, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.close()


@pytest.mark.parametrize(("how", "what"), [("fin", b""), ("rst", None)])
async def test_the_proxy_cuts_in_good_order_and_without_a_word(how: How, what: bytes | None) -> None:
    async with echo() as port, Proxy(port).open() as proxy, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x")
        await reader.readexactly(1)
        assert proxy.cut_all(how) == 1
        got: bytes | None = None
        with contextlib.suppress(ConnectionResetError):
            got = await reader.read()
        assert got == what
        assert (len(proxy), dict(proxy.counts)) == (0, {"accepted": 1, how: 1})
        writer.close()


async def test_the_proxy_cuts_at_random_refuses_for_who_is_not_there_and_stalls() -> None:
    async with echo() as port, Proxy(port, cut_every_s=0.01).open() as proxy, asyncio.timeout(10):
        reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        proxy.cut_every_s, proxy.target = None, None
        reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert proxy.counts["refused"] == 1
        proxy.target = port
        proxy.stall()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        proxy.flow()
        assert await reader.readexactly(1) == b"x"
        writer.close()


async def test_the_model_is_what_the_clients_expect_of_it() -> None:
    asked = question("甲", deltas=2, per_s=1)
    assert text_for(asked) == "甲的第1段🎬；甲的第2段🎬；"
    assert text_for(question("甲", deltas=1, per_s=1, length=3)) == "甲的第1段🎬影影影；"
