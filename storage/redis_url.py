"""What REDIS_URL may be: one server, a master that Sentinels watch, or a cluster. No connection is made here.

    redis://, rediss:// (TLS), unix://                      one server, as redis-py and redis-cli write it
    redis+sentinel://[user:password@]host:port[,host:port…]/service_name[/db]
    redis+cluster://[user:password@]host:port[,host:port…]
    rediss+sentinel://, rediss+cluster://                   the same over TLS

No error here repeats a part of the URL: what is written wrong may be the password.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import SSLConnection, parse_url

SENTINEL_PORT = 26_379
CLUSTER_PORT = 6_379

ESCAPES = "special characters in a name or password are written as %40 for @, %2F for / and so on"

_MANY = re.compile(
    r"(?P<tls>rediss?)\+(?P<kind>sentinel|cluster)://(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<hosts>[^@/?#]+)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(\d{1,5}))?")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class OneServer:
    """`options` are redis-py's names for what a connection needs, here and below."""

    options: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """A master known by its service's name. The Sentinels have names and passwords of their own, or none."""

    hosts: Sequence[tuple[str, int]]
    service: str
    options: Mapping[str, Any] = field(repr=False)
    sentinel_options: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Some nodes of a cluster; the others are found through them."""

    hosts: Sequence[tuple[str, int]]
    options: Mapping[str, Any] = field(repr=False)


RedisAddress = OneServer | Sentinels | Cluster


def parse_redis_url(url: str) -> RedisAddress:
    """Where Redis is. Raises ValueError in words for who wrote the URL."""
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix"):
        return _one_server(url)
    form = {"sentinel": "/service_name[/db]", "cluster": ""}.get(scheme.rpartition("+")[2])
    if form is None or scheme.partition("+")[0] not in ("redis", "rediss"):
        raise ValueError("must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    match = _MANY.fullmatch(url)
    if match is None:
        raise ValueError(f"must be {scheme}://[user:password@]host:port[,host:port…]{form}; {ESCAPES}")
    return _sentinels(match) if match["kind"] == "sentinel" else _cluster(match)


def _one_server(url: str) -> OneServer:
    try:
        options = parse_url(url)
        is_whole = urlsplit(url).scheme != "unix" or "path" in options
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError(f"must be redis://[user:password@]host:port[/db] or unix:///path/to/socket; {ESCAPES}")
    return OneServer({**options})


def _sentinels(match: re.Match[str]) -> Sentinels:
    service, _, db = (match["path"] or "/")[1:].partition("/")
    if not service:
        raise ValueError("the name of the service is missing: redis+sentinel://host:port/service_name[/db]")
    if not re.fullmatch(r"\d{0,5}", db):
        raise ValueError("the number of the database, after the service's name, is no number")
    query = _query(match, _SENTINEL_OPTIONS)
    tls = _tls(match, query)
    named = {name.removeprefix("sentinel_"): query[name] for name in _SENTINEL_OPTIONS if name in query}
    options = _login(match) | tls | {"db": int(db or 0)}
    return Sentinels(_hosts(match, SENTINEL_PORT), unquote(service), options, named | tls)


def _cluster(match: re.Match[str]) -> Cluster:
    if match["path"] not in (None, "/", "/0"):
        raise ValueError("a cluster has no numbered databases: redis+cluster://host:port[,host:port…]")
    return Cluster(_hosts(match, CLUSTER_PORT), _login(match) | _tls(match, _query(match, ())))


def _login(match: re.Match[str]) -> dict[str, Any]:
    login = {"username": match["user"], "password": match["password"]}
    return {name: unquote(value) for name, value in login.items() if value}


def _query(match: re.Match[str], known: Sequence[str]) -> dict[str, str]:
    options = dict(parse_qsl(match["query"] or ""))
    allowed = (*known, *_TLS_OPTIONS)
    if not options.keys() <= set(allowed):
        raise ValueError(f"has an option after the question mark that is none of {', '.join(allowed)}")
    return options


def _tls(match: re.Match[str], query: Mapping[str, str]) -> dict[str, Any]:
    if match["tls"] == "redis":
        return {}
    # redis-py reads the values: some are no strings.
    given = "&".join(f"{name}={query[name]}" for name in _TLS_OPTIONS if name in query)
    options: dict[str, Any] = {**parse_url(f"rediss://host?{given}")}
    assert options.pop("connection_class") is SSLConnection  # noqa: S101 (the scheme says so)
    del options["host"]
    return options | {"ssl": True}


def _hosts(match: re.Match[str], default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for part in match["hosts"].split(","):
        found = _HOST.fullmatch(part.strip())
        port = int(found[2] or default_port) if found else 0
        if found is None or not 0 < port < 65_536:
            raise ValueError("each server is written host:port, several are separated by commas")
        hosts.append((found[1].strip("[]"), port))
    return hosts
