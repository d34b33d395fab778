"""What a connection that says nothing costs in memory, and whether memory comes back when thousands come and go.

Every server is started anew and measured alone. This server's connections are logged in, each as somebody of its own;
the others' are only open.
"""

import time

from tests.bench.loads import Loads, loading
from tests.bench.machine import cpu_s, note, settled_memory_bytes
from tests.bench.records import (
    Plan,
    Record,
    Result,
    by_server,
    figure,
    left_out_lines,
    median,
    ratio_to_bare,
    result,
    table,
)
from tests.bench.servers import BARE, KINDS, OURS, Running, services, serving, why_not

CONNECTIONS, OF_OTHERS, QUICK_CONNECTIONS = 15_000, 5_000, 1_500
"""Of this server and the bare one; of all others, whose connections cost the same however many they are."""

CYCLES, QUICK_CYCLES = 5, 2
OF_A_CYCLE, QUICK_OF_A_CYCLE = 5_000, 500
WARM_UP = 200
IDLE_S = 3.0


def measure(plan: Plan) -> Result:
    """Memory of many connections; then, of this server and of the bare one, after each of several cycles."""
    records: list[Record] = []
    left_out: dict[str, str] = {}
    names = (OURS, BARE) if plan.quick else tuple(KINDS)
    with services() as storage, loading() as loads:
        for name in names:
            if (why := why_not(KINDS[name])) is not None:
                left_out[name] = why
                continue
            with serving(KINDS[name], storage) as server:
                many = CONNECTIONS if name in (OURS, BARE) else OF_OTHERS
                count = QUICK_CONNECTIONS if plan.quick else many
                note(f"size: {count} connections to {name}")
                records.append({"case": "size", "server": name, "round": 0, **_connections(loads, server, count)})
            if name in (OURS, BARE):
                with serving(KINDS[name], storage) as server:
                    note(f"size: {name} while connections come and go")
                    records += _cycles(loads, server, plan)
    return result("size", plan, records, left_out)


def _connections(loads: Loads, server: Running, count: int) -> Record:
    login = "size" if server.kind.name == OURS else None
    _come_and_go(loads, server, WARM_UP, login)
    before = settled_memory_bytes(server.pids)
    seconds = loads.open("idle", server, count, login=login)
    after = settled_memory_bytes(server.pids)
    used = cpu_s(server.pids)
    time.sleep(IDLE_S)
    idle = (cpu_s(server.pids) - used) / IDLE_S
    gone = loads.close("idle")
    later = settled_memory_bytes(server.pids)
    return {
        "connections": count,
        "kib": (after - before) / count / 1024,
        "before_mib": before / 2**20,
        "after_mib": after / 2**20,
        "closed_mib": later / 2**20,
        "open_s": seconds,
        "idle_share": idle,
        "gone": gone,
    }


def _cycles(loads: Loads, server: Running, plan: Plan) -> list[Record]:
    cycles, count = (QUICK_CYCLES, QUICK_OF_A_CYCLE) if plan.quick else (CYCLES, OF_A_CYCLE)
    login = "size" if server.kind.name == OURS else None
    _come_and_go(loads, server, WARM_UP, login)
    records: list[Record] = [_after(server, 0, count)]
    for cycle in range(1, cycles + 1):
        _come_and_go(loads, server, count, login)
        records.append(_after(server, cycle, count))
    return records


def _after(server: Running, cycle: int, count: int) -> Record:
    mib = settled_memory_bytes(server.pids) / 2**20
    return {"case": "cycle", "server": server.name, "round": 0, "cycle": cycle, "connections": count, "mib": mib}


def _come_and_go(loads: Loads, server: Running, count: int, login: str | None) -> None:
    loads.open("cycle", server, count, login=login)
    loads.close("cycle")


def render(what: Result) -> str:
    """A table of sizes, one of cycles."""
    sizes = what.where(case="size")
    rows = [
        (
            name,
            figure(median(own, "connections"), 0),
            figure(median(own, "kib")),
            ratio_to_bare(own, sizes, "kib"),
            *(figure(median(own, key)) for key in ("before_mib", "after_mib", "closed_mib")),
            f"{median(own, 'idle_share'):.1%}",
            str(sum(one["gone"] for one in own)),
        )
        for name, own in by_server(sizes).items()
    ]
    header = (
        *(
            "server",
            "connections",
            "KiB per connection",
            "to bare",
            "MiB before",
            "MiB with them",
            "MiB after they left",
        ),
        *("CPU while idle", "lost"),
    )
    cycles = what.where(case="cycle")
    numbers = sorted({one["cycle"] for one in cycles})
    cycle_rows = [
        (name, *(figure(next(one["mib"] for one in own if one["cycle"] == number)) for number in numbers))
        for name, own in by_server(cycles).items()
    ]
    cycle_header = ("server", "MiB at first", *(f"after cycle {number}" for number in numbers[1:]))
    of_a_cycle = cycles[0]["connections"] if cycles else 0
    return "\n\n".join(
        [
            "Connections that say nothing; memory is what the kernel calls proportional (PSS):",
            table(header, rows),
            f"{of_a_cycle:,} connections come and go, again and again:",
            table(cycle_header, cycle_rows),
            left_out_lines(what),
        ]
    ).strip()
