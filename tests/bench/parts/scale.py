"""How cost grows: with workers, with connections that say nothing, with followers of an answer, nodes, and history.

Costs are CPU of this server's processes for one operation. Where the load and the databases have to share the servers'
cores, throughput says little and cost says all: what a core could do is what one operation leaves of it.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence

from storage.embedded import Services
from tests.bench.history import first_chunks
from tests.bench.loads import Loads, Seen, loading
from tests.bench.machine import cores, note, raise_file_limit
from tests.bench.parts.scale_tables import render
from tests.bench.records import Plan, Record, Result, result
from tests.bench.servers import BARE, KINDS, OURS, Running, services, serving

__all__ = ["measure", "render"]

PINGING = 64
CHATS, QUICK_CHATS = 200, 50
RUNS = 60
ANSWER_S = 10.0
LEVELS, QUICK_LEVELS = (0, 1_000, 5_000, 10_000, 20_000), (0, 1_000)
FILES_LEFT = 500
"""Of those that a process may open, for what is no client."""

FOLLOWERS, QUICK_FOLLOWERS = (1, 2, 5), (1, 5)
NODES, QUICK_NODES = (1, 2, 4), (1, 2)
HISTORY, QUICK_HISTORY = (10, 100, 1_000, 2_000), (10, 1_000)


def measure(plan: Plan) -> Result:
    """Each question in turn, for as many rounds as there are."""
    records: list[Record] = []
    with services() as storage, loading() as loads:
        note("scale: workers")
        records += _workers(loads, storage, plan)
        note("scale: connections")
        records += _connections(loads, storage, plan)
        note("scale: followers, nodes")
        records += _followers(loads, storage, plan)
        records += _nodes(loads, storage, plan)
        note("scale: history")
        with serving(KINDS[OURS], storage) as server:
            lengths = QUICK_HISTORY if plan.quick else HISTORY
            records += asyncio.run(first_chunks(server, storage, lengths, times=10 if plan.quick else 30))
    return result("scale", plan, records)


def worker_cores(workers: int) -> frozenset[int]:
    """A core for each worker; with two of them the load keeps off both, where there are enough for that."""
    return cores().server | cores().second if workers == 2 else cores().server


def _workers(loads: Loads, storage: Services, plan: Plan) -> list[Record]:
    records = []
    chats = QUICK_CHATS if plan.quick else CHATS
    with contextlib.ExitStack() as stack:
        servers = []
        for workers in (1, 2):
            settings = {"WORKERS": str(workers)}
            serve = serving(KINDS[OURS], storage, on=worker_cores(workers), settings=settings)
            servers.append((workers, stack.enter_context(serve)))
        for turn in range(plan.rounds):
            for workers, server in servers:
                seen = pinging(loads, server, PINGING * 2)
                records.append({"case": "workers", "what": "ping", "workers": workers, "round": turn, **_figures(seen)})
                seen = _chatting(loads, server, chats * workers, f"workers{workers}-{turn}")
                records.append({"case": "workers", "what": "chat", "workers": workers, "round": turn, **_figures(seen)})
    return records


def pinging(loads: Loads, server: Running, sockets: int, seconds: float = 1.0) -> Seen:
    loads.open("pings", server, sockets, login="ping" if server.kind.name == OURS else None)
    try:
        return loads.ping("pings", server, seconds=seconds)
    finally:
        loads.close("pings")


def _chatting(loads: Loads, server: Running, chats: int, users: str) -> Seen:
    loads.open("chats", server, chats, login=users)
    try:
        return loads.chats("chats", server, count=chats, answer_s=ANSWER_S, seconds=2.0)
    finally:
        loads.close("chats")


def _connections(loads: Loads, storage: Services, plan: Plan) -> list[Record]:
    records = []
    most = raise_file_limit() - FILES_LEFT
    levels = sorted({min(level, most) for level in (QUICK_LEVELS if plan.quick else LEVELS)})
    for name in (OURS,) if plan.quick else (OURS, BARE):
        with serving(KINDS[name], storage) as server:
            there = 0
            for level in levels:
                login = "idle" if name == OURS else None
                loads.open("idle", server, level - there, first=there, login=login)
                there = level
                for turn in range(plan.rounds):
                    seen = pinging(loads, server, PINGING)
                    fields = {"case": "connections", "server": name, "idle": level, "round": turn}
                    records.append({**fields, **_figures(seen)})
            loads.close("idle")
    return records


def _followers(loads: Loads, storage: Services, plan: Plan) -> list[Record]:
    records = []
    with serving(KINDS[OURS], storage) as server:
        for turn in range(plan.rounds):
            for followers in QUICK_FOLLOWERS if plan.quick else FOLLOWERS:
                groups = [f"place{number}" for number in range(followers)]
                for group in groups:
                    loads.open(group, server, RUNS, login=f"followed-{followers}-{turn}")
                seen = loads.follow([(groups[0], groups[1:])], [server], answer_s=ANSWER_S, seconds=2.0)
                records.append({"case": "followers", "followers": followers, "round": turn, **_figures(seen)})
                for group in groups:
                    loads.close(group)
    return records


def _nodes(loads: Loads, storage: Services, plan: Plan) -> list[Record]:
    """Each run is made on one node and followed on the next: with one node, on the same."""
    records = []
    counts = QUICK_NODES if plan.quick else NODES
    with _several(storage, max(counts)) as servers:
        for turn in range(plan.rounds):
            for nodes in counts:
                pairs = []
                for number in range(nodes):
                    login, each = f"node-{nodes}-{turn}-{number}", RUNS // nodes
                    leaders, followers = f"leaders{number}", f"followers{number}"
                    loads.open(leaders, servers[number], each, login=login)
                    loads.open(followers, servers[(number + 1) % nodes], each, login=login)
                    pairs.append((leaders, [followers]))
                seen = loads.follow(pairs, servers[:nodes], answer_s=ANSWER_S, seconds=2.0)
                records.append({"case": "nodes", "nodes": nodes, "round": turn, **_figures(seen)})
                for leaders, followers_of in pairs:
                    for group in (leaders, *followers_of):
                        loads.close(group)
    return records


@contextlib.contextmanager
def _several(storage: Services, count: int) -> Iterator[Sequence[Running]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(serving(KINDS[OURS], storage, name=f"node {number}")) for number in range(count)]


def _figures(seen: Seen) -> Record:
    frames = seen.more.get("frames", 0)
    return {
        "us": seen.us,
        "us_frame": seen.server_cpu_s / frames * 1e6 if frames else None,
        "per_s": seen.per_s,
        "frames_per_s": frames / seen.seconds,
        "p50_ms": seen.ms(50),
        "p99_ms": seen.ms(99),
        "share": seen.server_share,
        "load": sum(seen.load_shares),
        "machine_cores": os.cpu_count(),
        "errors": seen.more.get("errors", 0) + seen.more.get("wrong", 0),
        "error": seen.more.get("error", ""),
    }
