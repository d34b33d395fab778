"""What can be said without asking anybody: settings that do not fit together, files, and WeChat's rules for domains."""

import ipaddress
import os
import resource
from collections.abc import Sequence
from urllib.parse import urlsplit

from wsserver.doctor.finding import Finding, fail, ok, warn
from wsserver.settings import Settings

FEW_FILES, ENOUGH_FILES = 512, 8_192
"""Each socket is one. Below the first a node cannot even hold its own connections; 8,192 are what one core serves."""

FILING = (
    "It must have an ICP filing (备案) and stand on the account's list (mp.weixin.qq.com, 开发管理, 服务器域名) for"
    " request as https:// and for socket as wss://; sub-domains are listed one by one"
)


def look_at_host(settings: Settings) -> Sequence[Finding]:
    """Everything of this file."""
    return [*look_at_settings(settings), look_at_files(), *look_at_domain(settings)]


def look_at_settings(settings: Settings) -> list[Finding]:
    """Settings that are valid, and still not what one wants in production."""
    what = "settings"
    if settings.app_env == "development":
        do = "Set APP_ENV=production, WECHAT_APPID, WECHAT_APP_SECRET and JWT_SECRET where strangers can connect."
        found = [warn(what, "development: any code logs in, and guests may chat", do)]
    else:
        found = [ok(what, "production")]
        if settings.guests_allowed:
            found.append(warn(what, "ALLOW_GUESTS: anybody may chat under any name", "Unset it unless you mean it."))
        if settings.log_level == "debug":
            found.append(warn(what, "LOG_LEVEL=debug: a line for each ping", "Set LOG_LEVEL=info."))
        if settings.database_url is None or settings.redis_url is None:
            do = "Set DATABASE_URL and REDIS_URL: only then can a second node serve the same users."
            found.append(warn(what, "the embedded PostgreSQL or Valkey is used", do))
    if settings.jwt_secret is None and settings.database_url is not None:
        do = "Set JWT_SECRET, the same on every node: openssl rand -hex 32"
        found.append(warn(what, "JWT_SECRET is each node's own: one node's tokens are refused by the others", do))
    if settings.host not in ("127.0.0.1", "::1", "localhost") and "FORWARDED_ALLOW_IPS" not in os.environ:
        do = "Behind a proxy on another machine set FORWARDED_ALLOW_IPS to its address; without a proxy ignore this."
        found.append(warn(what, "FORWARDED_ALLOW_IPS is not set: all clients of a proxy count as one address", do))
    return found


def look_at_files() -> Finding:
    """How many sockets this process may open. The limit of who types this need not be the service's."""
    what = "open files"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        return ok(what, f"{soft if soft >= 0 else 'unlimited'} (of this shell)")
    do = "ulimit -n 65536, LimitNOFILE= in a systemd unit, ulimits.nofile in a compose file; each socket is one."
    said = f"{soft} (of this shell; at most {hard if hard >= 0 else 'unlimited'})"
    return fail(what, said, do) if soft < FEW_FILES else warn(what, said, do)


def look_at_domain(settings: Settings) -> list[Finding]:
    """Whether WeChat would let a mini program talk to PUBLIC_URL."""
    what = "public address"
    if settings.public_url is None:
        if settings.wechat_appid is None:
            return [ok(what, "PUBLIC_URL is not set; without WECHAT_APPID no mini program needs it")]
        return [warn(what, "PUBLIC_URL is not set", "Set it to what mini programs connect to, and it is checked.")]
    parts = urlsplit(settings.public_url)
    host = parts.hostname or ""
    wrong = []
    if parts.scheme != "https":
        wrong.append(
            f"{parts.scheme}:// is refused by WeChat: only https:// and wss:// with a certificate that is valid"
        )
    if _is_address(host):
        wrong.append(f"{host} is an IP address: WeChat takes names only")
    elif "." not in host or host.endswith((".local", ".localhost", ".internal")):
        wrong.append(f"{host} is no public name")
    if wrong:
        return [fail(what, f"PUBLIC_URL: {each}", "Use a name with a filing, on port 443.") for each in wrong]
    if parts.port is not None:
        do = "Serve on 443 and leave the port away; or list exactly this port at WeChat, where no other will work then."
        return [warn(what, f"PUBLIC_URL names port {parts.port}", do)]
    return [ok(what, f"https://{host} and wss://{host}. Not to be seen from here: {FILING}")]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
