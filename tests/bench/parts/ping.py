"""A ping and its pong: what a message costs that nothing is done for. This server's goes through its whole router."""

from tests.bench.loads import Loads, Seen, loading
from tests.bench.machine import note
from tests.bench.records import (
    ALL,
    Plan,
    Record,
    Result,
    by_server,
    figure,
    left_out_lines,
    load_share,
    median,
    ratio_to_bare,
    result,
    table,
    with_spread,
)
from tests.bench.servers import BARE, OURS, Running, all_serving, services

LOGGED_IN = "CineWire, logged in"
SOCKETS = 64
NARROWER = (OURS, BARE, "aiohttp", "npm ws")
"""Measured with one socket and with a thousand too: what the others cost there follows."""


def measure(plan: Plan) -> Result:
    """Round after round, each over all servers."""
    records: list[Record] = []
    cases = (SOCKETS,) if plan.quick else (SOCKETS, 1, 1000)
    seconds = 0.8 if plan.quick else 1.5
    with services() as storage, loading() as loads, all_serving(ALL, storage) as (servers, left_out):
        rows: list[tuple[str, Running, str | None]] = [(server.name, server, None) for server in servers]
        ours = next(server for server in servers if server.kind.name == OURS)
        rows.insert(1, (LOGGED_IN, ours, "ping"))
        for turn in range(plan.rounds):
            for sockets in cases:
                note(f"ping: round {turn + 1} of {plan.rounds}, {sockets} sockets")
                for name, server, login in rows:
                    if sockets != SOCKETS and server.name not in NARROWER:
                        continue
                    seen = _once(loads, server, login, sockets, seconds)
                    records.append({"server": name, "round": turn, "sockets": sockets, **_figures(seen)})
    return result("ping", plan, records, left_out)


def _once(loads: Loads, server: Running, login: str | None, sockets: int, seconds: float) -> Seen:
    loads.open("ping", server, sockets, login=login)
    try:
        return loads.ping("ping", server, seconds=seconds)
    finally:
        loads.close("ping")


def _figures(seen: Seen) -> Record:
    return {
        "us": seen.us,
        "per_s": seen.per_s,
        "p50_ms": seen.ms(50),
        "p99_ms": seen.ms(99),
        "share": seen.server_share,
        "load": max(seen.load_shares),
        "wrong": seen.more["wrong"],
    }


def render(what: Result) -> str:
    """A table for each number of sockets."""
    parts = []
    for sockets in dict.fromkeys(one["sockets"] for one in what.records):
        records = what.where(sockets=sockets)
        rows = [
            (
                name,
                with_spread(own, "us"),
                ratio_to_bare(own, records, "us"),
                figure(median(own, "per_s"), 0),
                figure(median(own, "p50_ms"), 2),
                figure(median(own, "p99_ms"), 2),
                f"{median(own, 'share'):.0%}",
                load_share(own),
            )
            for name, own in by_server(records).items()
        ]
        header = (
            "server",
            "µs of CPU per ping",
            "to bare",
            "pings/s",
            "p50 ms",
            "p99 ms",
            "server's CPU",
            "load's CPU",
        )
        parts.append(f"{sockets} socket{'s' if sockets > 1 else ''}:\n\n{table(header, rows)}")
    wrong = sum(one["wrong"] for one in what.records)
    parts.append(f"Pongs that were not what they should be: {wrong}.")
    return "\n\n".join([*parts, left_out_lines(what)]).strip()
