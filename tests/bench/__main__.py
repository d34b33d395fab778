"""Benchmarks: `python3 run.py bench [name …]`. Each prints what it counted; nothing about time is asserted anywhere.

Machines are noisy, so every figure stands beside one that was measured in the same run: another server's in the
comparison (compare.py), which is what runs when no name is given, and the round trip of a ping in all others.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from tests.bench.compare import LONG_ONLY, PARTS, compare
from tests.bench.conversations import conversations
from tests.bench.films_lookup import films_lookup
from tests.bench.hot_path import hot_path
from tests.bench.seeding import seeding
from tests.bench.served import ROOT, milliseconds, ping_s, server
from tests.clients import SocketClient, socket_client

QUESTIONS = ("介绍一下《盗梦空间》", "推荐几部90年代的科幻片", "诺兰导演过哪些电影", "who directed The Matrix?")


async def first_chunk_s(client: SocketClient, question: str) -> tuple[float, float]:
    """Seconds from sending a chat to its first chunk and to its end."""
    started = time.perf_counter()
    await client.send({"type": "chat", "query": question, "stream": True})
    frames = await client.receive_until("chunk", "error")
    first = time.perf_counter() - started
    frames += await client.receive_until("complete", "error") if frames[-1]["type"] == "chunk" else []
    assert frames[-1]["type"] == "complete", frames[-1]
    return first, time.perf_counter() - started


async def first_chunk() -> None:
    """The first words of the catalogue assistant, on an idle server, one chat after the other."""
    async with server() as (url, process), socket_client(url) as client:
        await client.login()
        print(f"resident memory of the serving process, idle: {process.memory_info().rss / 2**20:.0f} MiB")
        await first_chunk_s(client, QUESTIONS[0])
        chats, pings = [], []
        for number in range(200):
            pings.append(await ping_s(client))
            chats.append(await first_chunk_s(client, QUESTIONS[number % len(QUESTIONS)]))
            await asyncio.sleep(0.11)  # two messages: below the limit of 20 messages a second
        print(f"ping and pong                    {milliseconds(pings)}")
        print(f"chat to first chunk              {milliseconds([first for first, _ in chats])}")
        print(f"chat to its end                  {milliseconds([end for _, end in chats])}")
        ratio = statistics.median(first for first, _ in chats) / statistics.median(pings)
        print(f"first chunk, in pings            {ratio:.1f}")
        print(f"resident memory, after           {process.memory_info().rss / 2**20:.0f} MiB")


async def many_sockets(count: int = 200) -> None:
    """Many sockets that all ask at once: how long the luckiest and the unluckiest wait."""
    async with server() as (url, process):
        ready = asyncio.Barrier(count + 1)

        async def one(number: int) -> tuple[float, float]:
            async with socket_client(url, open_timeout=60) as client:
                await client.login()
                await ready.wait()
                return await first_chunk_s(client, QUESTIONS[number % len(QUESTIONS)])

        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(one(number)) for number in range(count)]
            await ready.wait()
            started = time.perf_counter()
        elapsed_s = time.perf_counter() - started
        firsts = [task.result()[0] for task in answers]
        ends = [task.result()[1] for task in answers]
        print(f"{count} sockets, one chat each, at once: all answered in {elapsed_s:.2f} s")
        print(f"chat to first chunk              {milliseconds(firsts)}   max {max(firsts) * 1e3:7.2f} ms")
        print(f"chat to its end                  {milliseconds(ends)}   max {max(ends) * 1e3:7.2f} ms")
        print(f"unluckiest end / median end      {max(ends) / statistics.median(ends):.2f}")
        print(f"resident memory, after           {process.memory_info().rss / 2**20:.0f} MiB")


async def drops() -> None:
    """5,000 clients, every socket cut about every 2 s and reconnected to a random node: what is lost or doubled."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-s", "tests/faults/test_drops.py"),
        cwd=ROOT,
        env={**os.environ, "DROPS_CLIENTS": os.environ.get("DROPS_CLIENTS", "5000")},
    )
    assert await process.wait() == 0, "see above"


BENCHES: dict[str, Callable[[], Awaitable[None]]] = {
    "first-chunk": first_chunk,
    "many-sockets": many_sockets,
    "drops": drops,
    "conversations": conversations,
    "films-lookup": films_lookup,
    "seeding": seeding,
    "hot-path": hot_path,
}


async def run(names: Sequence[str]) -> None:
    for name in names:
        bench = BENCHES[name]
        print(f"## {name}: {(bench.__doc__ or '').strip()}", flush=True)
        await bench()
        print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="run.py bench", description="Measure beside other servers, or beside a ping of the same run."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"parts of the comparison, {', '.join(PARTS)}, all when none is given; or {', '.join(BENCHES)}",
    )
    parser.add_argument("--quick", action="store_true", help="a comparison of three minutes, which is not kept")
    parser.add_argument("--keep", action="store_true", help="write a quick one's results down all the same")
    chosen = parser.parse_args()
    names = chosen.names or [name for name in PARTS if not (chosen.quick and name in LONG_ONLY)]
    if unknown := set(names) - set(BENCHES) - set(PARTS):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    if parts := [name for name in names if name in PARTS]:
        compare(parts, quick=chosen.quick, keeps=chosen.keep or not chosen.quick)
    asyncio.run(run([name for name in names if name in BENCHES]))


if __name__ == "__main__":
    main()
