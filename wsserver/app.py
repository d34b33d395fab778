"""Composition root: the only file that knows all the others. Starts the server, and stops it in order."""

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from protocol.envelope import Decoder
from protocol.errors import OperationError
from protocol.operations import OPERATIONS
from protocol.session import Limits
from storage.accounts import Sessions
from storage.belongings import Belongings
from storage.chat import Conversations
from storage.conversations import ConversationTable
from storage.demo.load import load_demo
from storage.demo.people import people_in_chinese
from storage.embedded import EmbeddedError, Services
from storage.enrichment import EnrichmentLog
from storage.film_index import FilmIndex
from storage.film_search import FilmSearch
from storage.graph_outbox import GraphOutbox
from storage.guests import Guests
from storage.limits import RateLimits, UserSockets
from storage.movies import Movies
from storage.news import UserNews
from storage.ownership import RunTable
from storage.redis import Redis, pool_use
from storage.runs import RunLogs
from storage.tmdb_entities import People, TvShows
from storage.users import Users
from storage.watchlist import Watchlist
from wsserver.auth import Authenticator, CodeExchange, GuestSecrets
from wsserver.collector import spare_what_lives
from wsserver.commands import say
from wsserver.connections import StartError, Storage, open_storage, services_of
from wsserver.contract.pages import contract_routes
from wsserver.dispatch import Dispatcher
from wsserver.domains.accounts import account_handlers
from wsserver.domains.answering import Answering
from wsserver.domains.belongings import belongings_handlers
from wsserver.domains.chat import Chats, chat_handlers
from wsserver.domains.conversations import conversation_handlers
from wsserver.domains.guests import guest_handlers
from wsserver.domains.movies import movie_handlers
from wsserver.domains.watchlist import watchlist_handlers
from wsserver.domains.watchlist_capture import WatchlistCapture
from wsserver.film_parts import answerer_of, film_source, has_tmdb, refresh_of, titles_of, tmdb_of
from wsserver.heart import Heart
from wsserver.housekeeping import keep_house
from wsserver.http import HttpEdge, on_http_exception
from wsserver.hub import Hub
from wsserver.news import News
from wsserver.operator_routes import operator_routes
from wsserver.ownership import Ownership
from wsserver.request_ids import HEADER, RequestIds
from wsserver.safety_parts import safety_of
from wsserver.samples import sample
from wsserver.serving import listen, served
from wsserver.settings import Settings, SettingsError, load_settings
from wsserver.tasks import Tasks
from wsserver.telemetry import Metrics, VendorCalls, configure_logging
from wsserver.tracing import Tracing, TracingError, open_tracing
from wsserver.vendors.wechat import LocalLogin, WeChat
from wsserver.watch import Seats, SessionWatch
from wsserver.websocket import Sockets
from wsserver.workers import (
    Assignment,
    NoWorkerError,
    Plan,
    metrics_folder,
    shared_socket,
    supervise,
    take_assignment,
)

log = structlog.get_logger(__name__)

SOCKET_PATHS = ("/wechat/ws", "/ws")

VENDOR_CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=100)
"""Each streaming answer holds one connection to its model: a limit here would make chats wait for each other."""


@dataclass(slots=True)
class Node:
    """A server that is being served."""

    port: int
    hub: Hub
    ownership: Ownership
    sockets: Sockets
    uvicorn: uvicorn.Server

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, send every client away, and wait for the answers in the making, at most that long."""
        self.hub.start_draining()
        self.sockets.say_goodbye()
        # The clients go first: they follow their answers through another node while those are finished here.
        await self.sockets.close_all()
        left = await self.hub.drained(timeout_s)
        log.info("drained", answers_left=left)
        with contextlib.suppress(OperationError):
            await self.ownership.hand_over()
        await self.hub.stop_runs()


@contextlib.asynccontextmanager
async def running(settings: Settings, listener: socket.socket, services: Services) -> AsyncIterator[Node]:
    """Serve on `listener` until the block ends. Raises StartError when a service cannot be reached."""
    async with contextlib.AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_storage(settings, services))
        postgres, redis = storage.postgres, storage.redis
        movies = Movies(postgres)
        if settings.database_url is None and (loaded := await load_demo(movies)):
            log.info("demo catalogue loaded", movies=loaded)
        http_client = await stack.enter_async_context(
            httpx.AsyncClient(limits=VENDOR_CONNECTIONS, follow_redirects=False, trust_env=True)
        )
        metrics = Metrics()
        heart = Heart(storage.database_url)
        tracing = await stack.enter_async_context(_tracing(settings, heart.node))
        calls = metrics.vendor if tracing is None else tracing.vendors(metrics.vendor)
        tmdb = tmdb_of(settings, redis, http_client, calls) if has_tmdb(settings) else None
        films = await stack.enter_async_context(film_source(settings, tmdb, postgres, redis))
        hub = Hub(RunLogs(redis), metrics, roll_up_s=settings.roll_up_ms / 1000, deadline_s=settings.run_deadline_s)
        sessions = Sessions(redis)
        authenticator = Authenticator(
            sessions=sessions,
            exchange=_code_exchange(settings, http_client, calls),
            appid=settings.wechat_appid or "local",
            secret=settings.signing_secret(),
            token_ttl_s=settings.token_ttl_s,
            guests_allowed=settings.guests_allowed,
        )
        rates = _rates(settings, redis)
        table = RunTable(postgres)
        ownership = Ownership(RunTable(storage.undisturbed), hub, heart)
        conversations = Conversations(postgres, redis, history_characters=settings.llm_history_characters)
        conversation_table = ConversationTable(postgres, redis)
        news = News(UserNews(redis), ownership.node)
        watchlist = Watchlist(postgres)
        users = await stack.enter_async_context(Users(postgres).open())
        answering = Answering(
            hub,
            table=table,
            ownership=ownership,
            conversations=conversations,
            answerer=answerer_of(settings, http_client, postgres, resolver=films.resolver, hub=hub, calls=calls),
            capture=WatchlistCapture(watchlist, movies, people_in_chinese()),
            safety=safety_of(settings, redis, http_client, sessions=sessions, calls=calls, hub=hub),
            titles=titles_of(settings, http_client, conversation_table, news, calls),
            news=news,
        )
        guest_secrets = GuestSecrets(settings.signing_secret())
        chats = Chats(
            hub,
            table=table,
            ownership=ownership,
            conversations=conversations,
            answering=answering,
            rates=rates,
            guest_secrets=guest_secrets,
        )
        session_watch = SessionWatch(sessions)
        authenticator.when_session_ends(session_watch.end)
        seats = Seats(UserSockets(redis, limit=settings.sockets_per_user), ownership.node)
        decoder = Decoder(OPERATIONS)
        dispatcher = Dispatcher(
            OPERATIONS,
            (
                account_handlers(authenticator, users),
                belongings_handlers(Belongings(postgres, redis), authenticator, hub),
                chat_handlers(chats),
                conversation_handlers(conversation_table, conversations, hub, news),
                guest_handlers(Guests(postgres, redis), guest_secrets),
                movie_handlers(movies, FilmSearch(postgres), films.fetch),
                watchlist_handlers(watchlist, movies),
            ),
            metrics,
            rates,
            tracing,
        )
        sockets = Sockets(
            decoder=decoder,
            dispatcher=dispatcher,
            authenticator=authenticator,
            metrics=metrics,
            limits=Limits(
                login_deadline_s=settings.login_deadline_s,
                silence_s=settings.silence_timeout_s,
                messages_per_s=settings.rate_limit_messages_per_s,
                burst=settings.rate_limit_burst,
            ),
            rates=rates,
            sessions=session_watch,
            seats=seats,
            news=news,
            origins=frozenset(settings.cors_origins),
        )
        edge = HttpEdge(
            decoder=decoder,
            dispatcher=dispatcher,
            authenticator=authenticator,
            sessions=session_watch,
            metrics=metrics,
            heartbeat_s=settings.sse_heartbeat_s,
        )
        application = Starlette(
            routes=[
                *edge.routes(),
                *operator_routes(postgres, redis, hub, metrics),
                *contract_routes(),
            ],
            exception_handlers={HTTPException: on_http_exception, Exception: on_http_exception},
        )
        await stack.enter_async_context(news.open())
        await stack.enter_async_context(hub.open())
        await stack.enter_async_context(ownership.open())
        await stack.enter_async_context(session_watch.open())
        await stack.enter_async_context(seats.open())
        await stack.enter_async_context(sockets.open())
        await stack.enter_async_context(_sampled(metrics, storage, sockets))
        await stack.enter_async_context(_in_background(FilmIndex(postgres).renew(), name="keys of films"))
        forgettings = {
            "enrichments": EnrichmentLog(postgres).purge,
            "outbox": GraphOutbox(postgres).purge,
            "conversations": conversation_table.purge,
            "captures": watchlist.forget_captures,
            "deleted accounts": users.forget_erased,
            "films": movies.drop_older_than,
            "people": People(postgres).drop_older_than,
            "shows": TvShows(postgres).drop_older_than,
        }
        await stack.enter_async_context(_in_background(keep_house(forgettings), name="housekeeping"))
        if settings.tmdb_refresh_cron is not None and tmdb is not None:
            await stack.enter_async_context(
                refresh_of(settings, settings.tmdb_refresh_cron, storage, tmdb, ownership.node).open()
            )
        server = await stack.enter_async_context(
            served(SocketsFirst(sockets, RequestIds(_with_cors(application, settings))), listener)
        )
        yield Node(listener.getsockname()[1], hub, ownership, sockets, server)


def _sampled(metrics: Metrics, storage: Storage, sockets: Sockets) -> contextlib.AbstractAsyncContextManager[None]:
    pools = {"postgres": storage.postgres.use, "redis": lambda: pool_use(storage.redis)}
    return _in_background(sample(metrics, pools, sockets.outbox_bytes), name="samples")


@contextlib.asynccontextmanager
async def _tracing(settings: Settings, node: str) -> AsyncIterator[Tracing | None]:
    try:
        async with open_tracing(settings.otel_exporter_otlp_endpoint, node=node) as tracing:
            yield tracing
    except TracingError as error:
        raise StartError(str(error)) from error


@contextlib.asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator[None]:
    async with Tasks().open() as tasks:
        tasks.spawn(work, name=name)
        yield


def _rates(settings: Settings, redis: Redis) -> RateLimits:
    return RateLimits(
        redis,
        chats_per_min=settings.rate_limit_chats_per_min,
        logins_per_min=settings.rate_limit_logins_per_min,
        guest_chats_per_min=settings.rate_limit_guest_chats_per_min,
        sockets_per_min=settings.rate_limit_sockets_per_min,
        limit_loopback=settings.rate_limit_loopback,
    )


def _code_exchange(settings: Settings, client: httpx.AsyncClient, calls: VendorCalls) -> CodeExchange:
    if settings.wechat_appid is None or settings.wechat_app_secret is None:
        log.warning("WECHAT_APPID is not set: the local login accepts any code. For development only.")
        return LocalLogin()
    return WeChat(
        appid=settings.wechat_appid,
        secret=settings.wechat_app_secret.get_secret_value(),
        base_url=settings.wechat_api_base,
        client=client,
        count=calls("wechat_login"),
    )


class SocketsFirst:
    """What is around HTTP requests does nothing for sockets, and was a tenth of what taking one in costs."""

    def __init__(self, sockets: ASGIApp, app: ASGIApp) -> None:
        self.sockets = sockets
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_socket = scope["type"] == "websocket" and scope["path"] in SOCKET_PATHS
        await (self.sockets if is_socket else self.app)(scope, receive, send)


def _with_cors(application: ASGIApp, settings: Settings) -> ASGIApp:
    """Around all of the application: what Starlette itself answers to a failure is readable for listed pages too."""
    if not settings.cors_origins:
        return application
    return CORSMiddleware(
        application,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "X-User-ID", HEADER],
        expose_headers=["Retry-After", HEADER],
    )


async def _serve(
    settings: Settings, listener: socket.socket, services: Services, say_ready: Callable[[int], None]
) -> None:
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    async with running(settings, listener, services) as node:
        spare_what_lives()
        say_ready(node.port)
        await stop.wait()
        log.info("stopping", drain_timeout_s=settings.drain_timeout_s)
        draining = asyncio.create_task(node.drain(settings.drain_timeout_s), name="drain")
        impatient = asyncio.create_task(stop_now.wait(), name="second signal")
        await asyncio.wait((draining, impatient), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, impatient):
            task.cancel()


def main(arguments: Sequence[str] = ()) -> int:
    """Serve until a signal. Gives the exit code: 0 when stopped, 1 when it could not start, 2 for wrong settings."""
    argparse.ArgumentParser(prog="run.py serve", description="Serve. Settings come from the environment.").parse_args(
        list(arguments)
    )
    assignment = take_assignment()
    try:
        settings = load_settings()
    except SettingsError as error:
        return say(f"Wrong settings:\n{error}", 2)
    configure_logging(level=settings.log_level, json=settings.json_logs)
    try:
        if assignment is not None:
            _work(settings, assignment)
        elif settings.workers > 1:
            _supervise(settings)
        else:
            with listen(settings.host, settings.port) as listener, services_of(settings) as services:
                uvloop.run(_serve(settings, listener, services, partial(_say_ready, settings.host)))
    except (StartError, EmbeddedError, NoWorkerError) as error:
        return say(str(error), 1)
    return 0


def _supervise(settings: Settings) -> None:
    """Serve from several processes."""
    # A port that others share could be taken along with them: this says that it is somebody else's.
    with listen(settings.host, settings.port) as probe:
        port: int = probe.getsockname()[1]
    try:
        held = shared_socket(settings.host, port)
    except OSError as error:
        raise StartError(f"HOST, PORT: cannot listen on {settings.host}:{port}: {error.strerror}") from error
    with held, services_of(settings) as services, metrics_folder(settings.data_dir) as metrics:
        assert services.database_url is not None  # noqa: S101 (a service that was not given was started)
        assert services.redis_url is not None  # noqa: S101
        plan = Plan(
            settings.workers, port, services.database_url, services.redis_url, metrics, settings.drain_timeout_s
        )
        supervise(plan, partial(_say_ready, settings.host, port))


def _work(settings: Settings, assignment: Assignment) -> None:
    """Serve as one of several processes. The socket listens when everything else is ready."""
    services = Services(assignment.database_url, assignment.redis_url, None)
    with shared_socket(settings.host, assignment.port) as listener:
        uvloop.run(_serve(settings, listener, services, lambda _port: assignment.say_ready()))


def _say_ready(host: str, port: int) -> None:
    address = f"{host if ':' not in host else f'[{host}]'}:{port}"
    print(f"CineWire is ready: ws://{address}/wechat/ws and http://{address}", flush=True)  # noqa: T201


if __name__ == "__main__":  # a worker; everybody else comes from run.py
    sys.exit(main())
