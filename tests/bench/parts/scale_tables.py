"""The tables of how cost grows."""

from tests.bench.records import Record, Result, figure, median, table, with_spread


def render(what: Result) -> str:
    """A table for each thing that grows."""
    return "\n\n".join(
        [
            "Workers, each on a core that it has to share with the load and the databases where there are only two. "
            "What whole cores would do is their number divided by the CPU of one operation:",
            _workers(what.where(case="workers")),
            "Connections that say nothing, beside 64 that ping:",
            _connections(what.where(case="connections")),
            "Sockets of one user that follow the same answer (the first asked, the others resumed it):",
            _grown(what.where(case="followers"), "followers"),
            "Nodes that share one PostgreSQL and one Valkey. Each answer is made on one node and followed on the next "
            "too; the CPU is that of all of them together:",
            _grown(what.where(case="nodes"), "nodes"),
            "Messages that a conversation has already, and how long a question waits for the first piece of its "
            "answer. A first question finds nothing of them in memory:",
            _history(what.where(case="history")),
        ]
    )


def _by(records: list[Record], *keys: str) -> dict[tuple[object, ...], list[Record]]:
    grouped: dict[tuple[object, ...], list[Record]] = {}
    for one in records:
        grouped.setdefault(tuple(one[key] for key in keys), []).append(one)
    return grouped


def _workers(records: list[Record]) -> str:
    header = (
        *("load", "workers", "CPU per operation, µs", "operations/s seen", "cores used by workers", "by the load"),
        *("whole cores would do", "to one worker"),
    )
    rows = []
    grouped = _by(records, "what", "workers")
    for what, name in (("ping", "pings"), ("chat", "pieces of answers")):
        whole = {
            workers: workers / median(own, "us") * 1e6
            for (kind, workers), own in grouped.items()
            if kind == what and isinstance(workers, int)
        }
        for workers, would in whole.items():
            own = grouped[what, workers]
            rows.append(
                (
                    name,
                    str(workers),
                    with_spread(own, "us"),
                    figure(median(own, "per_s"), 0),
                    figure(median(own, "share"), 2),
                    figure(median(own, "load"), 2),
                    f"{figure(would, 0)}/s",
                    figure(would / whole[1], 2),
                )
            )
    return table(header, rows)


def _connections(records: list[Record]) -> str:
    header = ("server", "idle connections", "CPU per ping, µs", "to none", "p99 ms")
    grouped = _by(records, "server", "idle")
    rows = []
    for (server, idle), own in grouped.items():
        none = median(grouped[server, 0], "us")
        rows.append(
            (
                str(server),
                f"{idle:,}",
                with_spread(own, "us"),
                figure(median(own, "us") / none, 2),
                figure(median(own, "p99_ms"), 1),
            )
        )
    return table(header, rows)


def _grown(records: list[Record], key: str) -> str:
    header = (key, "CPU per delivered frame, µs", "to one", "frames/s", "age p50 ms", "p99 ms", "errors")
    grouped = _by(records, key)
    one = median(grouped[1,], "us_frame") if (1,) in grouped else None
    rows = [
        (
            str(number),
            with_spread(own, "us_frame"),
            figure(median(own, "us_frame") / one, 2) if one else "-",
            figure(median(own, "frames_per_s"), 0),
            figure(median(own, "p50_ms")),
            figure(median(own, "p99_ms")),
            str(sum(each["errors"] for each in own)),
        )
        for (number,), own in grouped.items()
    ]
    return table(header, rows)


def _history(records: list[Record]) -> str:
    header = ("messages", "first question, ms", "later ones, p50 ms", "slowest ms")
    rows = [
        (f"{one['messages']:,}", *(figure(one[key]) for key in ("cold_ms", "p50_ms", "slowest_ms"))) for one in records
    ]
    return table(header, rows)
