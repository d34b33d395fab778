"""Composition root: the only file that knows all the others. Starts the server, and stops it in order."""

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import asyncpg
import httpx
import prometheus_client
import structlog
import uvicorn
import uvloop
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from protocol.envelope import MAX_MESSAGE_BYTES, Decoder
from protocol.errors import OperationError
from protocol.operations import OPERATIONS
from protocol.session import Limits
from storage.accounts import Sessions
from storage.budget import Budget
from storage.chat import Conversations
from storage.demo.load import load_demo
from storage.demo.people import people_in_chinese
from storage.embedded import EmbeddedError, Services, embedded_services
from storage.enrichment import EnrichmentLog
from storage.film_index import FilmIndex
from storage.film_marks import FilmMarks
from storage.film_search import FilmSearch
from storage.limits import RateLimits, UserSockets
from storage.movies import Movies
from storage.ownership import RunTable
from storage.postgres import POOL_SIZE, Postgres
from storage.redis import Redis, open_redis, ping
from storage.refreshes import Refreshes
from storage.runs import RunLogs
from storage.schema import KNOWN_REVISIONS, SchemaError, migrate, revision
from storage.seedings import Seedings
from storage.tmdb_entities import People, TvShows
from storage.watchlist import Watchlist
from wsserver.auth import Authenticator, CodeExchange
from wsserver.dispatch import Dispatcher
from wsserver.domains.accounts import account_handlers
from wsserver.domains.answerer import Answerer
from wsserver.domains.answering import Answering
from wsserver.domains.assistant.catalogue import CatalogueAssistant
from wsserver.domains.chat import Chats, chat_handlers
from wsserver.domains.film_extraction import FilmExtraction
from wsserver.domains.film_fetch import FilmFetch
from wsserver.domains.film_knowledge import FilmKnowledge
from wsserver.domains.film_resolver import FilmResolver
from wsserver.domains.model_answers import DEFAULT_SYSTEM_PROMPT, ModelAnswerer
from wsserver.domains.movies import movie_handlers
from wsserver.domains.watchlist import watchlist_handlers
from wsserver.domains.watchlist_capture import WatchlistCapture
from wsserver.heart import Heart
from wsserver.http import HttpEdge, on_http_exception
from wsserver.hub import Hub
from wsserver.ownership import Ownership
from wsserver.refresh import CONCURRENCY, Keeping, Refresh
from wsserver.seed_command import Requests, SeedOptions, rehearse, seed, seed_options
from wsserver.seeding import Wanted
from wsserver.settings import Settings, SettingsError, load_settings
from wsserver.tasks import Tasks
from wsserver.telemetry import Metrics, configure_logging
from wsserver.vendors.llm import LanguageModel, ModelServer
from wsserver.vendors.tmdb import Tmdb, TmdbError, TmdbRefusedError
from wsserver.vendors.wechat import LocalLogin, WeChat
from wsserver.watch import Seats, SessionWatch
from wsserver.websocket import ABORT_EXTENSION, Sockets
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

READY_TIMEOUT_S = 2.0
"""A balancer asks every few seconds and gives up after a few."""

DATABASE_CONNECTIONS = 80
"""Of all workers together: PostgreSQL takes 100 unless it is told otherwise, and a second copy or a tool wants some."""

GRACEFUL_SHUTDOWN_S = 5
"""uvicorn's wait for connections that were told to close. A number, or it would wait for ever."""

TMDB_BURST = 20
"""Calls of TMDB at once, a page of films. With 20 a second that is 40 in the first one, which is TMDB's ceiling."""

LEAVE_S = 0.5
"""Between two looks whether somebody still uses our databases."""

VENDOR_CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=100)
"""Each streaming answer holds one connection to its model: a limit here would make chats wait for each other."""


CATALOGUE_S = 1.5
"""How long a model's answer waits for what the catalogue knows: it takes ten milliseconds, and more only in a storm."""

EXTRACTION_TOKENS = 300
"""Of what a model reads in a question: a valid answer has about a hundred."""


class StartError(Exception):
    """Why the server could not start, in words for who typed the command."""


class _Protocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, telling the application how to drop a socket whose client neither reads nor leaves."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        scope = getattr(self, "scope", None)
        if scope is not None:
            # The application's task has the same dictionary, and begins in the next turn of the loop.
            scope["extensions"][ABORT_EXTENSION] = {"abort": self.transport.abort}


class _Server(uvicorn.Server):
    """uvicorn, leaving signals to us: it would stop before the runs are finished. `up` is set when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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


@dataclass(frozen=True, slots=True)
class Storage:
    """Connections to where things are kept. `undisturbed` is one that no request ever waits for."""

    database_url: str
    postgres: Postgres
    undisturbed: Postgres
    redis: Redis


@contextlib.asynccontextmanager
async def _storage(settings: Settings, services: Services) -> AsyncIterator[Storage]:
    database_url, redis_url = services.database_url, services.redis_url
    assert database_url is not None  # noqa: S101 (a service that was not given was started)
    assert redis_url is not None  # noqa: S101
    async with contextlib.AsyncExitStack() as stack:
        try:
            await migrate(database_url)
            size = max(1, min(POOL_SIZE, DATABASE_CONNECTIONS // settings.workers - 2))
            postgres = await stack.enter_async_context(Postgres.open(database_url, size=size))
            undisturbed = await stack.enter_async_context(Postgres.open(database_url, size=1))
        except SchemaError as error:
            raise StartError(f"DATABASE_URL: {error}") from error
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, OperationError) as error:
            raise StartError(f"DATABASE_URL: PostgreSQL cannot be used: {error or type(error).__name__}") from error
        redis = await stack.enter_async_context(open_redis(redis_url))
        try:
            await ping(redis)
        except OperationError as error:
            raise StartError(f"REDIS_URL: Redis cannot be reached: {error.__cause__}") from error
        yield Storage(database_url, postgres, undisturbed, redis)


@contextlib.asynccontextmanager
async def running(settings: Settings, listener: socket.socket, services: Services) -> AsyncIterator[Node]:
    """Serve on `listener` until the block ends. Raises StartError when a service cannot be reached."""
    async with contextlib.AsyncExitStack() as stack:
        storage = await stack.enter_async_context(_storage(settings, services))
        postgres, redis = storage.postgres, storage.redis
        movies = Movies(postgres)
        if settings.database_url is None:
            loaded = await load_demo(movies)
            if loaded:
                log.info("demo catalogue loaded", movies=loaded)
        http_client = await stack.enter_async_context(
            httpx.AsyncClient(limits=VENDOR_CONNECTIONS, follow_redirects=False, trust_env=True)
        )
        metrics = Metrics()
        tmdb = _tmdb(settings, redis, http_client, metrics)
        films = await stack.enter_async_context(_film_source(settings, tmdb, postgres, redis))
        hub = Hub(RunLogs(redis), metrics, roll_up_s=settings.roll_up_ms / 1000, deadline_s=settings.run_deadline_s)
        sessions = Sessions(redis)
        authenticator = Authenticator(
            sessions=sessions,
            exchange=_code_exchange(settings, http_client),
            appid=settings.wechat_appid or "local",
            secret=settings.signing_secret(),
            token_ttl_s=settings.token_ttl_s,
            guests_allowed=settings.guests_allowed,
        )
        rates = _rates(settings, redis)
        table = RunTable(postgres)
        ownership = Ownership(RunTable(storage.undisturbed), hub, Heart(storage.database_url))
        conversations = Conversations(postgres, redis)
        watchlist = Watchlist(postgres)
        answering = Answering(
            hub,
            table=table,
            ownership=ownership,
            conversations=conversations,
            answerer=_answerer(settings, http_client, postgres, films.resolver, hub),
            capture=WatchlistCapture(watchlist, movies, people_in_chinese()),
        )
        chats = Chats(
            hub, table=table, ownership=ownership, conversations=conversations, answering=answering, rates=rates
        )
        session_watch = SessionWatch(sessions)
        authenticator.when_session_ends(session_watch.end)
        seats = Seats(UserSockets(redis, limit=settings.sockets_per_user), ownership.node)
        decoder = Decoder(OPERATIONS)
        dispatcher = Dispatcher(
            OPERATIONS,
            (
                account_handlers(authenticator),
                chat_handlers(chats),
                movie_handlers(movies, FilmSearch(postgres), films.fetch),
                watchlist_handlers(watchlist, movies),
            ),
            metrics,
            rates,
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
            origins=frozenset(settings.cors_origins),
        )
        edge = HttpEdge(
            decoder=decoder,
            dispatcher=dispatcher,
            authenticator=authenticator,
            sessions=session_watch,
            heartbeat_s=settings.sse_heartbeat_s,
        )
        application = Starlette(
            routes=[
                WebSocketRoute("/wechat/ws", sockets),
                WebSocketRoute("/ws", sockets),
                *edge.routes(),
                *_operator_routes(postgres, redis, hub, metrics),
            ],
            middleware=_cors(settings),
            exception_handlers={HTTPException: on_http_exception, Exception: on_http_exception},
        )
        await stack.enter_async_context(hub.open())
        await stack.enter_async_context(ownership.open())
        await stack.enter_async_context(session_watch.open())
        await stack.enter_async_context(seats.open())
        await stack.enter_async_context(sockets.open())
        await stack.enter_async_context(_in_background(FilmIndex(postgres).renew(), name="keys of films"))
        if settings.tmdb_refresh_cron is not None:
            await stack.enter_async_context(
                _refresh(settings, settings.tmdb_refresh_cron, storage, tmdb, ownership.node).open()
            )
        server = await stack.enter_async_context(_served(application, listener))
        yield Node(listener.getsockname()[1], hub, ownership, sockets, server)


@contextlib.asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator[None]:
    async with Tasks().open() as tasks:
        tasks.spawn(work, name=name)
        yield


@contextlib.asynccontextmanager
async def _served(application: Starlette, listener: socket.socket) -> AsyncIterator[uvicorn.Server]:
    server = _Server(
        uvicorn.Config(
            application,
            http="httptools",
            ws=_Protocol,
            ws_max_size=MAX_MESSAGE_BYTES,
            # Deflate costs about 50 KiB a connection, and small frames gain nothing.
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
    try:
        await server.up.wait()
        yield server
    finally:
        server.should_exit = True
        await serving


def _rates(settings: Settings, redis: Redis) -> RateLimits:
    return RateLimits(
        redis,
        chats_per_min=settings.rate_limit_chats_per_min,
        logins_per_min=settings.rate_limit_logins_per_min,
        guest_chats_per_min=settings.rate_limit_guest_chats_per_min,
        sockets_per_min=settings.rate_limit_sockets_per_min,
        limit_loopback=settings.rate_limit_loopback,
    )


def _code_exchange(settings: Settings, client: httpx.AsyncClient) -> CodeExchange:
    if settings.wechat_appid is None or settings.wechat_app_secret is None:
        log.warning("WECHAT_APPID is not set: the local login accepts any code. For development only.")
        return LocalLogin()
    return WeChat(
        appid=settings.wechat_appid,
        secret=settings.wechat_app_secret.get_secret_value(),
        base_url=settings.wechat_api_base,
        client=client,
    )


@dataclass(frozen=True, slots=True)
class FilmSource:
    """What asks TMDB: for films by their ids, and for what a name means; None when nothing is to be fetched."""

    fetch: FilmFetch | None = None
    resolver: FilmResolver | None = None


@contextlib.asynccontextmanager
async def _film_source(settings: Settings, tmdb: Tmdb, postgres: Postgres, redis: Redis) -> AsyncIterator[FilmSource]:
    """What asks TMDB, and its tasks until the block ends."""
    if not settings.enrichment_enable:
        yield FilmSource()
        return
    async with Tasks().open() as tasks:
        tasks.spawn(_check_tmdb(tmdb), name="checking TMDB's credential")
        language = settings.tmdb_language
        fetch = FilmFetch(tmdb, Movies(postgres), FilmMarks(redis), tasks.spawn, language=language)
        people, shows = People(postgres), TvShows(postgres)
        yield FilmSource(fetch, FilmResolver(tmdb, fetch, people, shows, tasks.spawn, language=language))


async def _check_tmdb(tmdb: Tmdb) -> None:
    try:
        await tmdb.check()
    except TmdbRefusedError as error:
        log.error(
            "TMDB_API_TOKEN or TMDB_API_KEY: TMDB refuses it, and films that the catalogue lacks cannot be fetched",
            status=error.status,
        )
    except TmdbError as error:
        log.warning("TMDB_API_BASE: TMDB does not answer now; films are fetched when it does", outcome=error.outcome)
    else:
        log.info("films that the catalogue lacks are fetched from TMDB")


def _has_tmdb(settings: Settings) -> bool:
    return settings.tmdb_api_token is not None or settings.tmdb_api_key is not None


def _tmdb(settings: Settings, redis: Redis, client: httpx.AsyncClient, metrics: Metrics | None = None) -> Tmdb:
    token, api_key, per_s = settings.tmdb_api_token, settings.tmdb_api_key, settings.tmdb_requests_per_s

    def count(outcome: str) -> None:
        if metrics is not None:
            metrics.vendor_calls.labels("tmdb", outcome).inc()

    return Tmdb(
        base_url=settings.tmdb_api_base,
        token=token.get_secret_value() if token else None,
        api_key=api_key.get_secret_value() if api_key else None,
        client=client,
        budget=Budget(redis, "tmdb", per_s=per_s, burst=max(1, min(TMDB_BURST, int(per_s)))),
        count=count,
    )


def _refresh(settings: Settings, cron: str, storage: Storage, tmdb: Tmdb, node: str) -> Refresh:
    postgres = storage.postgres
    return Refresh(
        tmdb,
        Keeping(Movies(postgres), People(postgres), TvShows(postgres), Seedings(postgres), Refreshes(postgres)),
        # Half of what all nodes may ask, evenly: the other half is always there for who waits for a film.
        Budget(storage.redis, "tmdb-refresh", per_s=settings.tmdb_requests_per_s / 2, burst=1),
        node=node,
        cron=cron,
        wanted=Wanted(pages=settings.tmdb_refresh_pages, language=settings.tmdb_language, concurrency=CONCURRENCY),
    )


def _answerer(
    settings: Settings, client: httpx.AsyncClient, postgres: Postgres, resolver: FilmResolver | None, hub: Hub
) -> Answerer:
    servers = settings.model_servers()
    knowledge = FilmKnowledge(
        Movies(postgres),
        people_in_chinese(),
        people=People(postgres),
        resolver=resolver,
        extraction=_extraction(settings, servers, client),
        enrichments=EnrichmentLog(postgres),
        spawn=hub.spawn,
        catalogue_s=CATALOGUE_S if servers else None,
    )
    if not servers:
        log.info("no language model is configured: the catalogue assistant answers")
        return CatalogueAssistant(knowledge)
    return ModelAnswerer(LanguageModel(servers, client), settings.system_prompt or DEFAULT_SYSTEM_PROMPT, knowledge)


def _extraction(settings: Settings, servers: Sequence[ModelServer], client: httpx.AsyncClient) -> FilmExtraction | None:
    if not servers or not settings.enrichment_extraction:
        return None
    as_json = [
        replace(server, extra_body={**server.extra_body, "response_format": {"type": "json_object"}})
        for server in servers
    ]
    return FilmExtraction(LanguageModel(as_json, client, max_tokens=EXTRACTION_TOKENS))


def _cors(settings: Settings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "X-User-ID"],
        )
    ]


def _operator_routes(postgres: Postgres, redis: Redis, hub: Hub, metrics: Metrics) -> list[BaseRoute]:
    """What balancers, monitors and seed pages ask of a server rather than of an operation."""

    async def health(_http: HttpRequest) -> Response:
        return _json({"status": "ok"})

    async def wechat_health(_http: HttpRequest) -> Response:
        return _json({"code": 0, "message": "服务正常", "timestamp": datetime.now(UTC).isoformat()})

    async def ready(_http: HttpRequest) -> Response:
        answers = await asyncio.gather(_answers(postgres.ping()), _answers(ping(redis)))
        checks = dict(zip(("postgres", "redis"), answers, strict=True)) | {"accepting": not hub.draining}
        fine = all(checks.values())
        return _json({"status": "ready" if fine else "not ready", **checks}, 200 if fine else 503)

    async def show_metrics(_http: HttpRequest) -> Response:
        return Response(metrics.text(), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    return [
        Route("/health", health),
        Route("/wechat/health", wechat_health),
        Route("/ready", ready),
        Route("/metrics", show_metrics),
    ]


async def _answers(check: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await check
    except (OperationError, TimeoutError):
        return False
    return True


def _json(fields: object, status: int = 200) -> Response:
    return Response(to_json(fields), status, media_type="application/json")


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
        say_ready(node.port)
        await stop.wait()
        log.info("stopping", drain_timeout_s=settings.drain_timeout_s)
        draining = asyncio.create_task(node.drain(settings.drain_timeout_s), name="drain")
        impatient = asyncio.create_task(stop_now.wait(), name="second signal")
        await asyncio.wait((draining, impatient), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, impatient):
            task.cancel()


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections into its backlog. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError(f"HOST, PORT: cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def main(arguments: Sequence[str] = ()) -> int:
    """Serve until a signal. Gives the exit code: 0 when stopped, 1 when it could not start, 2 for wrong settings."""
    argparse.ArgumentParser(prog="run.py serve", description="Serve. Settings come from the environment.").parse_args(
        list(arguments)
    )
    assignment = take_assignment()
    try:
        settings = load_settings()
    except SettingsError as error:
        return _say(f"Wrong settings:\n{error}", 2)
    configure_logging(level=settings.log_level, json=settings.json_logs)
    try:
        if assignment is not None:
            _work(settings, assignment)
        elif settings.workers > 1:
            _supervise(settings)
        else:
            with listen(settings.host, settings.port) as listener, _services(settings) as services:
                uvloop.run(_serve(settings, listener, services, partial(_say_ready, settings.host)))
    except (StartError, EmbeddedError, NoWorkerError) as error:
        return _say(str(error), 1)
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
    with held, _services(settings) as services, metrics_folder(settings.data_dir) as metrics:
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


def migrate_main(arguments: Sequence[str] = ()) -> int:
    """Bring the database's schema up to date and stop."""
    argparse.ArgumentParser(prog="run.py migrate", description="Bring the schema up to date.").parse_args(
        list(arguments)
    )
    try:
        settings = load_settings()
        with _services(settings, redis=False) as services:
            assert services.database_url is not None  # noqa: S101 (a service that was not given was started)
            asyncio.run(migrate(services.database_url))
    except SettingsError as error:
        return _say(f"Wrong settings:\n{error}", 2)
    except (EmbeddedError, SchemaError, OSError, asyncpg.PostgresError) as error:
        return _say(str(error), 1)
    return _say("The schema is up to date.", 0)


def seed_main(arguments: Sequence[str] = ()) -> int:
    """Fill the catalogue from TMDB and stop."""
    options = seed_options(arguments)
    try:
        settings = load_settings()
    except SettingsError as error:
        return _say(f"Wrong settings:\n{error}", 2)
    if not _has_tmdb(settings):
        return _say("seed-movies asks TMDB with a credential: set TMDB_API_TOKEN or TMDB_API_KEY.", 2)
    # A line for each call would drown the progress.
    configure_logging(level="warning" if settings.log_level == "info" else settings.log_level, json=settings.json_logs)
    try:
        with _services(settings) as services:
            code = uvloop.run(_seed(settings, options, services))
            if services.attached_to is None and settings.database_url is None:
                asyncio.run(_outstay(services))
            return code
    except (StartError, EmbeddedError, OperationError, OSError, asyncpg.PostgresError) as error:
        return _say(str(error), 1)


async def _seed(settings: Settings, options: SeedOptions, services: Services) -> int:
    requests = Requests()
    async with httpx.AsyncClient(trust_env=True, event_hooks={"request": [requests.note]}) as client:
        wanted = options.wanted(settings.tmdb_language)
        if options.dry_run:
            return await _rehearse(settings, options, wanted, services, client)
        async with _storage(settings, services) as storage:
            return await seed(
                options,
                wanted,
                _tmdb(settings, storage.redis, client),
                movies=Movies(storage.postgres),
                seedings=Seedings(storage.postgres),
                requests=requests,
            )


async def _outstay(services: Services) -> None:
    """Keep our own PostgreSQL and Valkey running for a server that was started meanwhile and uses them."""
    assert services.database_url is not None  # noqa: S101 (a service that was not given was started)
    async with Postgres.open(services.database_url, size=1) as postgres:
        # PostgreSQL needs a moment to see that our own connections are closed.
        await asyncio.sleep(LEAVE_S if await postgres.others() else 0)
        if await postgres.others():
            _say("Another process uses the databases that this one started: they run until it stops, or Ctrl-C.", 1)
        while await postgres.others():  # noqa: ASYNC110 (it is another process that ends)
            await asyncio.sleep(LEAVE_S)


async def _rehearse(
    settings: Settings, options: SeedOptions, wanted: Wanted, services: Services, client: httpx.AsyncClient
) -> int:
    """Unlike `_storage` it does not migrate: that would be writing."""
    database_url, redis_url = services.database_url, services.redis_url
    assert database_url is not None  # noqa: S101 (a service that was not given was started)
    assert redis_url is not None  # noqa: S101
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(redis_url))
        seedings = None
        try:
            if await revision(database_url) == KNOWN_REVISIONS[-1]:
                seedings = Seedings(await stack.enter_async_context(Postgres.open(database_url, size=1)))
        except (SchemaError, OSError, asyncpg.PostgresError) as error:
            raise StartError(f"DATABASE_URL: PostgreSQL cannot be used: {error or type(error).__name__}") from error
        return await rehearse(options, wanted, _tmdb(settings, redis, client), seedings)


@contextlib.contextmanager
def _services(settings: Settings, *, redis: bool = True) -> Iterator[Services]:
    """PostgreSQL and Redis: those that the settings name, and our own for those that they do not."""
    own_postgres, own_redis = settings.database_url is None, redis and settings.redis_url is None
    if not own_postgres and not own_redis:
        yield Services(settings.database_url, settings.redis_url, None)
        return
    with embedded_services(settings.data_dir, postgres=own_postgres, valkey=own_redis) as own:
        if own.attached_to is not None:
            log.warning("using the PostgreSQL and Valkey of another process; they stop with it", pid=own.attached_to)
        yield Services(own.database_url or settings.database_url, own.redis_url or settings.redis_url, own.attached_to)


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":  # a worker; everybody else comes from run.py
    sys.exit(main())
