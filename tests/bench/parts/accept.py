"""Taking a client in: the handshake, one ping and its pong, the close. This server's also with every way to log in."""

import json
import urllib.request
from typing import Any

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
from tests.bench.servers import OURS, Running, all_serving, services

AT_ONCE = 64
USERS = 64

Step = tuple[str, str]

PING: Step = ('{"type":"ping"}', '"pong"')
PLAIN: list[Step] = [PING]
SOCKETIO: list[Step] = [("", '0{"sid"'), ("40", '40{"sid"'), ('42["ping",{"type":"ping"}]', '42["pong"')]
LOGIN: list[Step] = [('{"type":"login","code":"{code}"}', '"login_response","code":0'), PING]
AUTH: list[Step] = [('{"type":"auth","token":"{token}"}', '"auth_response","code":0'), PING]


def measure(plan: Plan) -> Result:
    """Round after round, each over all servers and all ways to log in."""
    records: list[Record] = []
    with services() as storage, loading() as loads, all_serving(ALL, storage) as (servers, left_out):
        ours = next(server for server in servers if server.kind.name == OURS)
        tokens = [_token(ours, number) for number in range(USERS)]
        rows: list[tuple[str, Running, dict[str, Any]]] = [(server.name, server, _bare(server)) for server in servers]
        rows[1:1] = [
            (f"{OURS}, token in the handshake", ours, {"steps": PLAIN, "authorizes": True, "tokens": tokens}),
            (f"{OURS}, login by a code", ours, {"steps": LOGIN}),
            (f"{OURS}, login by a token", ours, {"steps": AUTH, "tokens": tokens}),
        ]
        for turn in range(plan.rounds):
            note(f"accept: round {turn + 1} of {plan.rounds}, {len(rows)} rows")
            for name, server, command in rows:
                seen = _once(loads, server, command, 0.8 if plan.quick else 1.5)
                records.append({"server": name, "round": turn, **_figures(seen)})
    return result("accept", plan, records, left_out)


def _bare(server: Running) -> dict[str, Any]:
    return {"steps": SOCKETIO if server.kind.speech == "socketio" else PLAIN}


def _once(loads: Loads, server: Running, command: dict[str, Any], seconds: float) -> Seen:
    return loads.knock(server, seconds=seconds, at_once=AT_ONCE, path=server.kind.path, **command)


def _token(server: Running, number: int) -> str:
    asked = json.dumps({"type": "login", "code": f"accept-{number}"}).encode()
    address = f"http://127.0.0.1:{server.port}/api/v1/messages"
    request = urllib.request.Request(address, asked, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        token: str = json.load(answer)["data"]["token"]
    return token


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
    """One table. The rate to bare is the other way round than the cost to bare: more is better."""
    rows = [
        (
            name,
            with_spread(own, "us", 0),
            ratio_to_bare(own, what.records, "us"),
            figure(median(own, "per_s"), 0),
            ratio_to_bare(own, what.records, "per_s"),
            figure(median(own, "p50_ms")),
            figure(median(own, "p99_ms")),
            str(sum(one["wrong"] for one in own)),
            f"{median(own, 'share'):.0%}",
            load_share(own),
        )
        for name, own in by_server(what.records).items()
    ]
    header = (
        *("server", "µs of CPU per client", "to bare", "clients/s", "to bare", "p50 ms", "p99 ms", "failed"),
        *("server's CPU", "load's CPU"),
    )
    return "\n\n".join([table(header, rows), left_out_lines(what)]).strip()
