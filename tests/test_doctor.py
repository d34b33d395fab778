"""`run.py doctor` says what is well, and what is not with what to do: of real services and of broken ones."""

import json
import resource
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from storage.embedded import Services
from storage.schema import KNOWN_REVISIONS, migrate
from tests.databases import fresh_database
from tests.node import TestNode, settings_for_tests
from tests.standins.otlp import OtlpStandIn
from tests.standins.server import serve
from tests.standins.tmdb import TmdbStandIn
from tests.standins.wechat import WeChatStandIn
from tests.valkeys import Valkey, free_ports
from wsserver.doctor import command
from wsserver.doctor.finding import Finding
from wsserver.doctor.host import look_at_domain, look_at_files, look_at_settings
from wsserver.doctor.public import look_from_outside
from wsserver.doctor.services import look_at_services
from wsserver.doctor.vendors import look_at_vendors
from wsserver.settings import Settings

NOWHERE = "http://127.0.0.1:1"


def by_name(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def statuses(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.what: finding.status for finding in findings}


def settings(**chosen: object) -> Settings:
    return settings_for_tests(Path("/nonexistent"), **chosen)


@pytest.fixture
async def model_url() -> AsyncIterator[str]:
    """A model server that lists what it has to who has the key."""

    async def models(http: Request) -> Response:
        if http.headers.get("authorization") != "Bearer key":
            return JSONResponse({"error": {"message": "no"}}, 401)
        return JSONResponse({"object": "list", "data": [{"id": "qwen3:8b", "object": "model"}]})

    async with serve(Starlette(routes=[Route("/v1/models", models)])) as url:
        yield url


async def valkey_says(folder: Path, *options: str) -> dict[str, Finding]:
    """What is found of a Valkey with these options."""
    (port,) = free_ports(1)
    valkey = Valkey(folder, port, "--bind", "127.0.0.1", *options)
    try:
        await valkey.start()
        return by_name(await look_at_services(settings(redis_url=f"redis://127.0.0.1:{port}/0"), None))
    finally:
        await valkey.end()


# ---- services ----


async def test_our_own_services_are_well(services: Services, postgres: object) -> None:
    found = by_name(await look_at_services(settings(), services))
    assert {finding.status for finding in found.values()} == {"ok"}, found
    assert "version" in found["PostgreSQL"].said
    assert found["schema"].said == f"revision {KNOWN_REVISIONS[-1]}, the newest"
    assert "valkey" in found["Redis"].said
    assert found.keys() == {
        *("PostgreSQL", "schema", "PostgreSQL's clock"),
        *("Redis", "Redis' persistence", "Redis' memory", "Redis' clock"),
    }


async def test_services_that_do_not_answer_fail_and_no_password_is_repeated() -> None:
    away = settings(database_url="postgresql://u:hush@127.0.0.1:1/x", redis_url="redis://:hush@127.0.0.1:1/0")
    found = await look_at_services(away, None)
    assert statuses(found) == {"PostgreSQL": "fail", "Redis": "fail"}
    assert all(finding.do for finding in found)
    assert "hush" not in repr(found)


async def test_a_database_without_tables_and_one_from_the_future_are_told_apart(services: Services) -> None:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as database_url:
        found = by_name(await look_at_services(settings(database_url=database_url), None))
        assert (found["schema"].status, found["schema"].said) == ("warn", "none yet")
        await migrate(database_url)
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        await connection.close()
        found = by_name(await look_at_services(settings(database_url=database_url), None))
    assert found["schema"].status == "fail"
    assert "9999" in found["schema"].said


async def test_a_postgres_that_has_too_few_connections_for_a_node_is_said(services: Services) -> None:
    found = by_name(await look_at_services(settings(workers=64), services))
    assert found["PostgreSQL"].status == "warn"
    assert "max_connections" in found["PostgreSQL"].do


@pytest.mark.slow
async def test_a_redis_that_evicts_keeps_nothing_or_is_a_replica_is_said(data_dir: Path) -> None:
    folder = data_dir / "doctor"
    evicting = await valkey_says(folder / "1", "--save", "", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    assert (evicting["Redis' memory"].status, evicting["Redis' persistence"].status) == ("fail", "warn")
    assert "noeviction" in evicting["Redis' memory"].do
    assert "appendonly yes" in evicting["Redis' persistence"].do
    kept = await valkey_says(folder / "2", "--save", "3600 1", "--maxmemory-policy", "noeviction")
    assert (kept["Redis"].status, kept["Redis' memory"].status, kept["Redis' persistence"].status) == ("ok", "ok", "ok")
    replica = await valkey_says(folder / "3", "--replicaof", "127.0.0.1", "1", "--appendonly", "yes")
    assert replica["Redis"].status == "fail"
    assert "replica" in replica["Redis"].said


@pytest.mark.parametrize(("off_s", "status"), [(-0.2, "ok"), (3.0, "warn"), (-90.0, "fail")])
async def test_clocks_that_differ_are_said(
    services: Services, monkeypatch: pytest.MonkeyPatch, off_s: float, status: str
) -> None:
    now = time.time
    with monkeypatch.context() as patch:
        patch.setattr("storage.facts.time.time", lambda: now() + off_s)
        found = by_name(await look_at_services(settings(), services))
    assert [found[f"{name} clock"].status for name in ("PostgreSQL's", "Redis'")] == [status, status], found


async def test_the_embedded_services_are_not_started_to_be_looked_at(tmp_path: Path) -> None:
    found = await command.look(settings_for_tests(tmp_path / "data"))
    assert "not running" in by_name(found)["PostgreSQL"].said
    assert not (tmp_path / "data").exists()


async def test_the_embedded_services_of_a_running_server_are_looked_at(services: Services, data_dir: Path) -> None:
    found = by_name(await command.look(settings_for_tests(data_dir / "services")))
    assert found["Redis"].status == "ok"
    assert "valkey" in found["Redis"].said


# ---- vendors ----


async def test_vendors_that_take_our_credentials_are_well_and_nothing_is_spent(
    services: Services, model_url: str
) -> None:
    wechat, tmdb, receiver = WeChatStandIn(), TmdbStandIn(), OtlpStandIn()
    async with (
        serve(wechat.app) as wechat_url,
        serve(tmdb.app) as tmdb_url,
        serve(receiver.app) as receiver_url,
    ):
        found = await look_at_vendors(
            settings(
                otel_exporter_otlp_endpoint=receiver_url,
                llm_base_url=[f"{model_url}/v1"],
                llm_model=["qwen3:8b"],
                llm_api_key=["key"],
                wechat_appid=wechat.appid,
                wechat_app_secret=wechat.secret,
                wechat_api_base=wechat_url,
                wechat_msg_sec_check=True,
                tmdb_api_token=tmdb.token,
                tmdb_api_base=tmdb_url,
            ),
            services,
        )
    assert set(statuses(found).values()) == {"ok"}, found
    assert set(tmdb.calls) == {"/3/authentication"}
    assert len(wechat.calls) == 1
    assert wechat.checks == []
    assert receiver.spans == []


async def test_vendors_that_refuse_us_fail_with_what_to_do_and_without_the_secret(model_url: str) -> None:
    wechat, tmdb = WeChatStandIn(), TmdbStandIn()
    async with serve(wechat.app) as wechat_url, serve(tmdb.app) as tmdb_url:
        found = await look_at_vendors(
            settings(
                llm_base_url=[f"{model_url}/v1"],
                llm_model=["qwen3:8b"],
                llm_api_key=["hush"],
                wechat_appid=wechat.appid,
                wechat_app_secret="hush",
                wechat_api_base=wechat_url,
                wechat_msg_sec_check=True,
                tmdb_api_token="hush",
                tmdb_api_base=tmdb_url,
            ),
            None,
        )
    refused = [finding for finding in found if finding.what != "traces"]
    assert set(statuses(refused).values()) == {"fail"}, found
    assert all(finding.do for finding in refused)
    assert "hush" not in repr(found)


async def test_vendors_that_are_away_fail(services: Services) -> None:
    found = await look_at_vendors(
        settings(
            llm_base_url=[f"{NOWHERE}/v1"],
            llm_model=["m"],
            wechat_appid="wx1",
            wechat_app_secret="s",
            wechat_api_base=NOWHERE,
            otel_exporter_otlp_endpoint=NOWHERE,
        ),
        services,
    )
    assert statuses(found) == {
        "model at 127.0.0.1": "fail",
        "WeChat login": "fail",
        "TMDB": "ok",
        "WeChat content checks": "ok",
        "traces": "warn",
    }


async def test_a_model_that_the_server_does_not_list_is_said_with_those_that_it_does(model_url: str) -> None:
    asked = settings(llm_base_url=[f"{model_url}/v1", f"{model_url}/v2"], llm_model=["gpt"], llm_api_key=["key"])
    unknown, without_list = [each for each in await look_at_vendors(asked, None) if each.what.startswith("model")]
    assert (unknown.status, without_list.status) == ("warn", "warn")
    assert "qwen3:8b" in unknown.do
    assert "no list" in without_list.said


# ---- this host ----


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("https://cinema.example.com", "ok", "备案"),
        ("http://cinema.example.com", "fail", "only https:// and wss://"),
        ("https://203.0.113.7", "fail", "IP address"),
        ("https://[2001:db8::1]", "fail", "IP address"),
        ("https://localhost", "fail", "no public name"),
        ("https://cinema.local", "fail", "no public name"),
        ("https://cinema.example.com:8443", "warn", "port 8443"),
        ("https://cinema.example.com:443", "warn", "port 443"),
        (None, "warn", "not set"),
    ],
)
def test_wechats_rules_for_domains_are_known(url: str | None, status: str, said: str) -> None:
    (found,) = look_at_domain(settings(public_url=url, wechat_appid="wx1", wechat_app_secret="s"))
    assert found.status == status
    assert said in found.said
    assert (found.do == "") == (status == "ok")


@pytest.mark.parametrize(
    ("limit", "status"), [(65_536, "ok"), (resource.RLIM_INFINITY, "ok"), (1_024, "warn"), (256, "fail")]
)
def test_too_few_open_files_are_said(monkeypatch: pytest.MonkeyPatch, limit: int, status: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    assert look_at_files().status == status


def test_settings_that_are_valid_and_unwise_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    secret = {"wechat_appid": "wx1", "wechat_app_secret": "s", "jwt_secret": "x" * 32}
    wise = settings(app_env="production", database_url="postgresql://a/b", redis_url="redis://a", **secret)
    assert statuses(look_at_settings(wise)) == {"settings": "ok"}
    unwise = settings(app_env="production", allow_guests=True, log_level="debug", host="0.0.0.0", **secret)
    said = " ".join(finding.said for finding in look_at_settings(unwise) if finding.status == "warn")
    for part in ("ALLOW_GUESTS", "LOG_LEVEL=debug", "embedded", "FORWARDED_ALLOW_IPS"):
        assert part in said
    alone = look_at_settings(settings(database_url="postgresql://a/b"))
    assert any("JWT_SECRET" in finding.said for finding in alone)


async def test_the_public_address_is_used_as_a_client_would(node: TestNode) -> None:
    assert set(statuses(await look_from_outside(settings(public_url=node.url))).values()) == {"ok"}
    assert set(statuses(await look_from_outside(settings(public_url=NOWHERE))).values()) == {"warn"}

    async def anything(_http: Request) -> Response:
        return Response("hello")

    async with serve(Starlette(routes=[Route("/{path:path}", anything)])) as url:
        found = by_name(await look_from_outside(settings(public_url=url)))
    assert "is not ours" in found["HTTP from outside"].said
    assert "Upgrade" in found["WebSocket from outside"].do


# ---- the command ----


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "configure_logging", lambda **_: None)  # the other tests' logs


@pytest.mark.usefixtures("_elsewhere")
def test_it_ends_with_0_when_nothing_fails_and_says_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok    ", "warn  ", "fail  ", "      → ")) for line in said)
    assert any("open files: " in line for line in said)


@pytest.mark.usefixtures("_elsewhere")
def test_it_ends_with_1_when_something_fails_and_json_says_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/x")
    assert command.main(["--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert {"status", "what", "said", "do"} == set().union(*said["findings"])
    assert [each["what"] for each in said["findings"] if each["status"] == "fail"] == ["PostgreSQL"]


@pytest.mark.usefixtures("_elsewhere")
def test_wrong_settings_are_findings_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "eighty")
    monkeypatch.setenv("JWT_SECRET", "hush")
    assert command.main([]) == 1
    said = capsys.readouterr().out
    assert "fail  settings: PORT: " in said
    assert "fail  settings: JWT_SECRET: " in said
    assert "hush" not in said
