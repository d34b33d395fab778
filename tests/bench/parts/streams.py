"""Answers of 50 pieces a second: what a piece costs, how many answers one core holds, how soon a first piece comes."""

from collections.abc import Sequence

from tests.bench.capacity import LIMIT_MS, Search, step_of
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
from tests.bench.scripted_model import RATE
from tests.bench.servers import BARE, KINDS, OURS, Running, all_serving, model_serving, services, serving

EACH_PIECE = "CineWire, ROLL_UP_MS=0"
OVER_HTTP = "CineWire, model over HTTP"
HTTP_BEGIN, QUICK_HTTP_BEGIN = 200, 100
ANSWER_S = 10.0


def measure(plan: Plan) -> Result:
    """The cost of a piece, round after round, each over all servers; then the search for the most answers."""
    records: list[Record] = []
    names = (OURS, BARE, "aiohttp", "npm ws") if plan.quick else ALL
    cases: dict[int, Sequence[str]] = (
        {200: names} if plan.quick else {200: (OURS, EACH_PIECE, BARE), 1000: (*ALL, EACH_PIECE), 500: (OURS, BARE)}
    )
    with (
        services() as storage,
        loading() as loads,
        all_serving(names, storage) as (servers, left_out),
        serving(KINDS[OURS], storage, name=EACH_PIECE, settings={"ROLL_UP_MS": "0"}) as each_piece,
    ):
        for turn in range(plan.rounds):
            for chats, wanted in cases.items():
                note(f"streams: round {turn + 1} of {plan.rounds}, {chats} chats")
                # The others' cost is measured once: each of them takes ten seconds to begin a thousand.
                shown = wanted if turn == 0 else (OURS, BARE)
                for server in (*servers, each_piece):
                    if server.name in shown:
                        seen = chatting(loads, server, chats, 2.0 if plan.quick else 3.0)
                        records.append({"case": "cost", "server": server.name, "round": turn, **step_of(chats, seen)})
        searched = [server for server in servers if server.name in (OURS, BARE)]
        records += search_most(loads, searched, plan, _begin_at(records), case="capacity")
    records += _over_http(plan)
    return result("streams", plan, records, left_out)


def chatting(loads: Loads, server: Running, chats: int, seconds: float) -> Seen:
    """Keep that many answers running on sockets of their own."""
    loads.open("chats", server, chats, login="chat" if server.kind.name == OURS else None)
    try:
        return loads.chats("chats", server, count=chats, answer_s=ANSWER_S, seconds=seconds)
    finally:
        loads.close("chats")


def _begin_at(records: Sequence[Record]) -> dict[str, int]:
    """Seven tenths of what the cost of a piece lets one expect."""
    begin = {}
    for name in (OURS, BARE):
        own = [one for one in records if one["server"] == name]
        begin[name] = max(50, round(0.7e6 / (median(own, "us") * RATE) / 50) * 50)
    return begin


def _over_http(plan: Plan) -> list[Record]:
    """The same search with answers of a model's server, which this server asks as it asks any."""
    with services() as storage, loading() as loads, model_serving() as (base_url, _):
        settings = {
            **{"LLM_BASE_URL": base_url, "LLM_MODEL": "scripted", "LLM_API_KEY": "none"},
            **{"LLM_TITLES": "false", "ENRICHMENT_EXTRACTION": "false"},
        }
        with serving(KINDS[OURS], storage, name=OVER_HTTP, settings=settings) as server:
            begin = {OVER_HTTP: QUICK_HTTP_BEGIN if plan.quick else HTTP_BEGIN}
            return search_most(loads, [server], plan, begin, case="http")


def search_most(
    loads: Loads, servers: Sequence[Running], plan: Plan, begin: dict[str, int], *, case: str
) -> list[Record]:
    """Step by step on each server in turn."""
    searches = {server.name: Search(begin[server.name], quick=plan.quick) for server in servers}
    records: list[Record] = []
    while going := [server for server in servers if not searches[server.name].over]:
        for server in going:
            search = searches[server.name]
            chats = search.next
            seen = chatting(loads, server, chats, 1.5 if plan.quick else 4.0)
            step = step_of(chats, seen)
            search.was(chats, fine=step["fine"])
            note(f"streams: {server.name} with {chats} chats: p99 {step['p99_ms']:.0f} ms, most so far {search.most}")
            records.append({"case": case, "server": server.name, "round": 0, **step})
    return records


def render(what: Result) -> str:
    """Tables of the cost of a piece, of first pieces, and of the steps of the search."""
    parts = []
    cost = what.where(case="cost")
    for chats in sorted({one["chats"] for one in cost}):
        records = [one for one in cost if one["chats"] == chats]
        parts.append(f"{chats} answers at a time:\n\n{_cost_table(records)}")
    parts.append(
        f"The most answers of {RATE} pieces a second that one core holds, 99 of 100 pieces not older than"
        f" {LIMIT_MS:g} ms when the client has them:\n\n{capacity_table(what.where(case='capacity'))}"
    )
    parts.append(f"And from a model's server over HTTP:\n\n{capacity_table(what.where(case='http'))}")
    parts.append(
        f"The steps of these searches:\n\n{steps_table([*what.where(case='capacity'), *what.where(case='http')])}"
    )
    return "\n\n".join([*parts, left_out_lines(what)]).strip()


def _cost_table(records: list[Record]) -> str:
    header = (
        *("server", "µs of CPU per piece", "to bare", "µs per frame", "to bare", "pieces in a frame"),
        *("age p50 ms", "p99 ms", "first p50 ms", "p99 ms", "lost, doubled", "load's CPU"),
    )
    rows = [
        (
            name,
            with_spread(own, "us"),
            ratio_to_bare(own, records, "us"),
            with_spread(own, "us_frame"),
            ratio_to_bare(own, records, "us_frame"),
            figure(median(own, "pieces_in_frame")),
            *(figure(median(own, key)) for key in ("p50_ms", "p99_ms", "first_p50_ms", "first_p99_ms")),
            f"{sum(one['missing'] for one in own)}, {sum(one['doubled'] for one in own)}",
            load_share(own),
        )
        for name, own in by_server(records).items()
    ]
    return table(header, rows)


def capacity_table(records: list[Record]) -> str:
    """The greatest number of each that was fine."""
    most = {name: most_of(own) for name, own in by_server(records).items()}
    bare = most.get(BARE)
    too_many = {one["server"] for one in records if not one["fine"] and one["chats"] > most[one["server"]]}
    rows = [
        (
            name,
            f"{'' if name in too_many else 'more than '}{figure(count, 0)}",
            figure(count / bare, 2) if bare else "-",
        )
        for name, count in most.items()
    ]
    return table(("server", "answers at a time", "to bare"), rows)


def most_of(records: list[Record]) -> int:
    return max((one["chats"] for one in records if one["fine"]), default=0)


def steps_table(records: list[Record]) -> str:
    header = ("server", "answers", "age p50 ms", "p99 ms", "pieces/s", "errors", "server's CPU", "load's CPU", "held")
    rows = [
        (
            one["server"],
            figure(one["chats"], 0),
            figure(one["p50_ms"]),
            figure(one["p99_ms"]),
            figure(one["per_s"], 0),
            str(one["errors"] + one["gone"]),
            f"{one['share']:.0%}",
            f"{one['load']:.0%}",
            "yes" if one["fine"] else "no",
        )
        for one in sorted(records, key=lambda one: (one["server"], one["chats"]))
    ]
    return table(header, rows)
