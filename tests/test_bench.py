"""The measuring stick: peers answer as the load expects, what the load counts is so, and tables say what was measured.

Nothing here is about time. The load's own sockets are picows', which only `bench` installs: here `websockets` carries
the same conversations, and a part that needs picows is left out without it.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from storage.embedded import Services
from tests.bench import report
from tests.bench.capacity import LIMIT_MS, Search, step_of
from tests.bench.compare import PARTS
from tests.bench.flames import grown
from tests.bench.histogram import added, counted, percentile_ms
from tests.bench.knocks import Knocks
from tests.bench.load_doing import PONG, STAMP, Chats, Pings
from tests.bench.load_follow import Follows
from tests.bench.loads import Seen, loading
from tests.bench.parts import ping
from tests.bench.parts.streams import capacity_table
from tests.bench.records import Plan, Record, Result, figure, keep, kept, ratio, table
from tests.bench.scripted_model import RATE, ScriptedModel, piece
from tests.bench.servers import BARE, KINDS, MODEL, OURS, PEERS, Kind, Running, serving
from tests.bench.talk import Talk, ask

PATIENCE_S = 20.0

PIECES = 10
"""Of an answer here: a fifth of a second."""

HAS_PICOWS = importlib.util.find_spec("picows") is not None


class Carried(Talk):
    """A talk over a socket of `websockets`."""

    def __init__(self, number: int, speech: str, socket: ClientConnection) -> None:
        super().__init__(number, speech)
        self._socket = socket
        self._to_say: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, payload: bytes) -> None:
        self._to_say.put_nowait(payload)

    async def listen(self) -> None:
        self.connected()
        async for text in self._socket:
            self.heard(text.encode() if isinstance(text, str) else text)

    async def speak(self) -> None:
        while True:
            await self._socket.send((await self._to_say.get()).decode())


@contextlib.asynccontextmanager
async def talking(url: str, speech: str = "json", number: int = 0) -> AsyncIterator[Carried]:
    """A client that can be spoken through."""
    async with connect(url, compression=None, proxy=None) as socket:
        talk = Carried(number, speech, socket)
        tasks = [asyncio.create_task(talk.listen()), asyncio.create_task(talk.speak())]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await talk.opened
            yield talk
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what the other side brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.005)


# ---- peers ----


def unavailable(kind: Kind) -> str | None:
    """Why it cannot be started here; nothing is installed by a test."""
    if kind.program.endswith(".mjs"):
        return None if (PEERS / "node_modules" / "ws").is_dir() else "its packages are not installed"
    missing = [name for name in kind.needs if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


@pytest.mark.parametrize("name", [name for name in KINDS if name != OURS])
async def test_a_peer_answers_as_the_load_expects(name: str) -> None:
    kind = KINDS[name]
    if (why := unavailable(kind)) is not None:
        pytest.skip(why)
    with serving(kind) as server:
        async with talking(server.url, kind.speech) as talk:
            await talks_as_expected(talk)


async def test_this_server_answers_as_the_load_expects(services: Services) -> None:
    with serving(KINDS[OURS], services) as server:
        async with talking(server.url, server.kind.speech) as talk:
            await ask(talk, {"type": "login", "code": "somebody"}, "login_response")
            await talks_as_expected(talk, cancels=True)
            await everybody_has_the_answer(server, talk)


async def talks_as_expected(talk: Talk, *, cancels: bool = False) -> None:
    pings = Pings([talk])
    pings.start()
    await until(lambda: pings.mark() >= 3)
    await pings.finish()
    assert pings.wrong == 0
    chats = Chats([talk], PIECES / RATE, 0.0, cancels=cancels)
    chats.start()
    await until(lambda: chats.answers >= 3)
    await chats.finish()
    seen = chats.since((0, 0, 0, 0, 0), chats.mark())
    assert (seen["missing"], seen["doubled"], seen["errors"], seen["error"]) == (0, 0, 0, "")
    assert seen["operations"] >= 3 * PIECES
    assert seen["frames"] <= seen["operations"]
    assert sum(seen["first"].values()) >= 3


async def everybody_has_the_answer(server: Running, leader: Talk) -> None:
    async with talking(server.url, server.kind.speech) as follower:
        await ask(follower, {"type": "login", "code": "somebody"}, "login_response")
        follows = Follows([([leader], [[follower]])], PIECES / RATE)
        follows.start()
        await until(lambda: not leader.waits and follows.pieces >= 2 * PIECES)
        assert follows.pieces == 2 * PIECES
        assert (follows.errors, follows.followed) == (0, 1)


async def test_clients_come_ping_and_go() -> None:
    with serving(KINDS[BARE]) as server:
        steps = [('{"type":"ping"}', '"pong"')]
        knocks = Knocks({"port": server.port, "path": "/ws", "steps": steps, "at_once": 2})
        knocks.start()
        await until(lambda: knocks.mark() >= 4)
        await knocks.finish()
        assert knocks.failed == 0


async def test_a_client_that_is_turned_away_is_counted_as_one() -> None:
    with serving(KINDS[BARE]) as server:
        knocks = Knocks({"port": server.port, "path": "/nowhere", "steps": [], "at_once": 1})
        knocks.start()
        await until(lambda: knocks.failed >= 2)
        await knocks.finish()
        assert knocks.mark() == 0


async def test_the_model_server_speaks_as_openai_does() -> None:
    with serving(MODEL) as server:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            for _ in range(2):  # on one connection
                asked = {"model": "any", "stream": True, "messages": [{"role": "user", "content": "0.1"}]}
                address = f"http://127.0.0.1:{server.port}/v1/chat/completions"
                answer = await client.post(address, json=asked)
                *events, done, rest = answer.text.split("\n\n")
                assert (done, rest) == ("data: [DONE]", "")
                choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
                assert [choice["finish_reason"] for choice in choices] == [None] * 5 + ["stop"]
                numbers = [STAMP.findall(choice["delta"]["content"].encode())[0][0] for choice in choices[:-1]]
                assert numbers == [b"0", b"1", b"2", b"3", b"4"]


# ---- the load ----


@contextlib.asynccontextmanager
async def scripted(numbers: list[int]) -> AsyncIterator[str]:
    """A server that gives one answer, of the pieces of these numbers, and answers every third ping wrongly first."""
    pings = chats = 0

    async def answer(socket: ServerConnection) -> None:
        nonlocal pings, chats
        async for text in socket:
            if json.loads(text)["type"] == "ping":
                pings += 1
                await socket.send(json.dumps(PONG if pings % 3 else {**PONG, "code": 1}))
                if pings % 3 == 0:
                    await socket.send(json.dumps(PONG))
                continue
            chats += 1
            for number in numbers if chats == 1 else []:
                await socket.send(json.dumps({"type": "chunk", "seq": 1, "content": piece(number, 1)}))
            if chats == 1:
                await socket.send(json.dumps({"type": "complete", "seq": 1}))

    async with serve(answer, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@pytest.mark.parametrize(
    ("numbers", "missing", "doubled"),
    [
        (list(range(10)), 0, 0),
        ([0, 1, 2, 4, 5, 6, 7, 8, 9], 1, 0),
        ([0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9], 0, 1),
        ([0, 1, 2, 3, 4, 5, 6, 7], 2, 0),
        ([2, 3, 4, 5, 6, 7, 8, 9, 9, 9], 2, 2),
    ],
)
async def test_a_piece_that_is_lost_or_doubled_is_noticed(numbers: list[int], missing: int, doubled: int) -> None:
    async with scripted(numbers) as url, talking(url) as talk:
        chats = Chats([talk], 10 / RATE, 0.0)
        chats.start()
        await until(lambda: chats.answers == 1)
        assert (chats.missing, chats.doubled) == (missing, doubled)
        assert chats.pieces == len(numbers)
        await chats.finish()


async def test_a_pong_that_is_none_is_noticed() -> None:
    async with scripted([]) as url, talking(url) as talk:
        pings = Pings([talk])
        pings.start()
        await until(lambda: pings.mark() >= 7)
        await pings.finish()
        assert pings.wrong == pings.mark() // 3


async def test_a_model_that_is_looked_at_late_has_not_waited() -> None:
    answer = ScriptedModel().answer(0.3)
    pieces = await anext(answer)
    time.sleep(5 / RATE)  # noqa: ASYNC251 - the loop itself is late
    late = await anext(answer)
    assert len(late) >= 5
    pieces += late + [text async for texts in answer for text in texts]
    found = [STAMP.findall(text.encode())[0] for text in pieces]
    due = [int(due_ns) for _, due_ns in found]
    assert [int(number) for number, _ in found] == list(range(15))
    # The second is at most one turn after the first, all others exactly one after the one before.
    assert all(later - earlier == 20_000_000 for earlier, later in itertools.pairwise(due[1:]))
    assert 0 < due[1] - due[0] <= 20_000_000


@pytest.mark.skipif(not HAS_PICOWS, reason="picows is not installed")
def test_the_loads_processes_do_as_they_are_told() -> None:
    with serving(KINDS[BARE]) as server, loading() as loads:
        loads.open("some", server, 5)
        seen = loads.ping("some", server, seconds=0.1, warm_s=0.05)
        assert seen.operations > 0
        assert seen.operations == sum(seen.latency.values())
        assert seen.more["wrong"] == 0
        chatted = loads.chats("some", server, count=5, answer_s=1.0, seconds=0.1)
        assert chatted.operations == chatted.more["frames"] > 0
        assert loads.close("some") == 0


# ---- figures ----


def test_percentiles_are_within_a_hundredth() -> None:
    counts = added(
        [counted(range(1_000_000, 51_000_000, 1_000_000)), counted(range(51_000_000, 101_000_000, 1_000_000))]
    )
    for percent in (50, 99):
        assert percentile_ms(counts, percent) == pytest.approx(percent, rel=0.011)
    assert percentile_ms({}, 50) is None


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("truth", [30, 400, 1_000, 3_000])
def test_the_search_ends_near_the_most_that_is_fine(truth: int, *, quick: bool) -> None:
    search = Search(500, quick=quick)
    steps = 0
    while not search.over:
        chats = search.next
        search.was(chats, fine=chats <= truth)
        steps += 1
        assert steps < 20
    assert search.most <= truth
    if not quick:
        assert search.most >= truth / 1.25


def seen(**more: Any) -> Seen:
    """A window of one second in which a hundred answers ran, all pieces of them a millisecond old."""
    fields = {"frames": 2_500, "first": {}, "errors": 0, "missing": 0, "doubled": 0, "gone": 0, "error": "", **more}
    return Seen(100 * RATE, 1.0, 0.5, (0.25,), counted([1_000_000] * 100), fields)


def test_a_step_with_anything_wrong_is_not_fine() -> None:
    step = step_of(100, seen())
    assert step["fine"]
    assert (step["us"], step["us_frame"], step["pieces_in_frame"]) == (100.0, 200.0, 2.0)
    assert not any(step_of(100, seen(**{what: 1}))["fine"] for what in ("errors", "missing", "doubled", "gone"))
    assert not step_of(200, seen())["fine"]
    assert step["p99_ms"] < LIMIT_MS


def test_a_search_that_found_no_end_says_so() -> None:
    steps = [
        {"server": OURS, "chats": 800, "fine": True},
        {"server": BARE, "chats": 400, "fine": True},
        {"server": BARE, "chats": 500, "fine": False},
    ]
    rows = capacity_table(steps).splitlines()[2:]
    assert rows == ["| CineWire | more than 800 | 2.00 |", "| bare Starlette | 400 | 1.00 |"]


def test_a_ratio_is_of_the_same_rounds() -> None:
    # The second round was on a machine that had something else to do: both took three times as long.
    ours = [{"round": 0, "us": 10.0}, {"round": 1, "us": 30.0}, {"round": 2, "us": 10.0}]
    bare = [{"round": 0, "us": 20.0}, {"round": 1, "us": 60.0}, {"round": 2, "us": 20.0}]
    assert ratio(ours, bare, "us") == 0.5
    assert ratio(ours, [], "us") is None


def of_pings() -> Result:
    def record(server: str, turn: int, us: float) -> Record:
        figures = {"per_s": 1e6 / us, "p50_ms": 1.0, "p99_ms": 2.0, "share": 1.0, "load": 0.25, "wrong": 0}
        return {"server": server, "round": turn, "sockets": 64, "us": us, **figures}

    records = [record(OURS, turn, us) for turn, us in enumerate((20.0, 25.0, 24.0))]
    records += [record(BARE, turn, us) for turn, us in enumerate((40.0, 50.0, 50.0))]
    return Result("ping", records, {"npm ws": "Node and npm are not there"})


def test_a_table_shows_the_median_its_spread_and_the_ratio() -> None:
    lines = ping.render(of_pings()).splitlines()
    assert "| CineWire | 24.0 (20.0–25.0) | 0.50 | 41,667 | 1.00 | 2.00 | 100% | 25% |" in lines
    assert "| bare Starlette | 50.0 (40.0–50.0) | 1.00 | 20,000 | 1.00 | 2.00 | 100% | 25% |" in lines
    assert lines[-1] == "* npm ws is left out: Node and npm are not there"


def test_the_readme_is_made_of_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("records", "report", "plots", "flames"):
        monkeypatch.setattr(f"tests.bench.{module}.RESULTS", tmp_path)
    keep(of_pings())
    assert kept()[0].records == of_pings().records
    path = report.write({name: part.title for name, part in PARTS.items()}, {"ping": ping.render})
    text = path.read_text()
    assert "## A ping and its pong" in text
    assert "| CineWire | 24.0 (20.0–25.0) | 0.50 |" in text
    for picture in re.findall(r"\]\((.+?\.png)\)", text):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_table_is_one_of_markdown() -> None:
    assert table(("what", "is"), [("a", "1")]) == "| what | is |\n| --- | ---: |\n| a | 1 |"
    assert [figure(value) for value in (None, float("nan"), float("inf"), 1234.56)] == ["-", "-", "∞", "1,234.6"]


def test_a_flame_begins_where_its_stacks_part() -> None:
    root = grown({"main;loop;read;parse": 30, "main;loop;write": 68, "main;other": 2})
    assert root.name == "loop"
    assert {name: flame.count for name, flame in root.above.items()} == {"read": 30, "write": 68}


def test_a_quick_comparison_has_one_round() -> None:
    assert (Plan(quick=True).rounds, Plan(quick=False).rounds) == (1, 3)
