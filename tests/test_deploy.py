"""What deploy/ says works: the very nginx.conf in front of two real nodes, and files that agree with each other."""

import asyncio
import contextlib
import datetime
import os
import re
import secrets
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect

from storage.embedded import Services
from tests.clients import PATIENCE_S, events, socket_client
from tests.databases import fresh_database
from tests.faults.client import Client, Counts
from tests.faults.model import ScriptedModel, question, scripted_model
from tests.faults.nodes import Fleet, NodeProcess, fleet
from tests.faults.processes import stop_with_parent
from tests.parts import PARTS, RAN, program
from wsserver.settings import Settings
from wsserver.workers import STOP_MARGIN_S

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
NOBODY = 65_534
GUEST_CHATS = 3
"""What an address may ask in a minute here."""

CLIENTS = 12


@dataclass(frozen=True, slots=True)
class Site:
    """nginx and what is behind it."""

    url: str
    tls_port: int
    certificate: Path
    nodes: Fleet
    model: ScriptedModel
    log: Path


def nginx_program() -> str:
    """Where nginx is."""
    return program("nginx", "nginx", hint="there is no nginx here; on Debian and Ubuntu: apt-get install nginx-light")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def make_certificate(folder: Path) -> Path:
    """A certificate for localhost that nobody else signed, and its key."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "fullchain.pem"


def configure(folder: Path, port: int, tls_port: int, node_ports: list[int]) -> None:
    """The configuration of deploy/ with this test's folders and ports in the place of a container's."""
    shutil.copytree(DEPLOY / "nginx", folder)
    (folder / "servers" / "https.conf.example").rename(folder / "servers" / "https.conf")
    (folder / "run").mkdir()
    instead = {
        "/etc/nginx": str(folder),
        "/tmp/nginx": str(folder / "run"),
        "/dev/stdout": str(folder / "run" / "access.log"),
        "listen 8080": f"listen 127.0.0.1:{port}",
        "listen 8443": f"listen 127.0.0.1:{tls_port}",
        "node1:8000": f"127.0.0.1:{node_ports[0]}",
        "node2:8000": f"127.0.0.1:{node_ports[1]}",
    }
    replaced = dict.fromkeys(instead, 0)
    for path in (folder / "nginx.conf", folder / "locations.conf", *(folder / "servers").glob("*.conf")):
        text = path.read_text()
        for theirs, ours in instead.items():
            replaced[theirs] += text.count(theirs)
            text = text.replace(theirs, ours)
        path.write_text(text)
    assert all(replaced.values()), replaced


@contextlib.asynccontextmanager
async def running_nginx(program: str, folder: Path, port: int) -> AsyncIterator[None]:
    """nginx as no user in particular, as in a container; killed when the block ends."""
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    command = (program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;")
    with (folder / "errors").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stderr=errors, stdin=asyncio.subprocess.DEVNULL, preexec_fn=stop_with_parent, **user
        )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await _listens(port):
                assert process.returncode is None, (folder / "errors").read_text()
                await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture(scope="module")
async def site(services: Services, data_dir: Path) -> AsyncIterator[Site]:
    program = nginx_program()
    assert services.database_url is not None
    folder = data_dir / "deploy"
    async with (
        fresh_database(services.database_url) as database_url,
        scripted_model() as model,
        fleet(
            2,
            folder,
            database_url=database_url,
            redis_url=services.redis_url,
            model_url=model.url,
            rate_limit_loopback="true",
            rate_limit_guest_chats_per_min=str(GUEST_CHATS),
            rate_limit_logins_per_min="100000",
            rate_limit_sockets_per_min="100000",
            rate_limit_chats_per_min="100000",
        ) as nodes,
    ):
        port, tls_port = free_port(), free_port()
        configure(folder / "nginx", port, tls_port, [int(url.rsplit(":", 1)[1]) for url in nodes.urls])
        certificate = make_certificate(folder / "nginx" / "tls")
        async with running_nginx(program, folder / "nginx", port):
            PARTS["nginx"] = RAN
            log = folder / "nginx" / "run" / "access.log"
            yield Site(f"http://127.0.0.1:{port}", tls_port, certificate, nodes, model, log)


@pytest.mark.slow
async def test_a_socket_goes_through(site: Site) -> None:
    async with socket_client(site.url) as client:
        await client.login()
        assert (await client.call({"type": "ping"}))["type"] == "pong"
        frames = await client.stream({"type": "chat", "query": question("穿过", deltas=3, per_s=100)})
    assert frames[-1]["answer"] == "".join(f"穿过的第{number}段🎬；" for number in (1, 2, 3))


@pytest.mark.slow
async def test_a_socket_goes_through_with_tls(site: Site) -> None:
    trusted = ssl.create_default_context(cafile=str(site.certificate))
    url = f"wss://localhost:{site.tls_port}/wechat/ws"
    async with connect(url, ssl=trusted, host="127.0.0.1", server_hostname="localhost", proxy=None) as opened:
        assert '"connected"' in str(await opened.recv())


@pytest.mark.slow
async def test_events_leave_nginx_one_by_one(site: Site) -> None:
    asked = question("事件", deltas=12, per_s=6)
    body = {"message": asked, "user_id": f"u-{secrets.token_hex(8)}", "session_id": "s", "kb_prefix": ""}
    async with (
        httpx.AsyncClient(base_url=site.url, trust_env=False, timeout=PATIENCE_S) as http,
        http.stream("POST", "/api/v1/mp/chat/stream", json=body) as response,
    ):
        frames = events(response)
        async for frame in frames:
            if frame["type"] == "chunk":
                break
        # Gathered, the first would come when the model has said all.
        assert len((await site.model.times())[asked]) < 12
        rest = [frame async for frame in frames]
    assert rest[-1]["type"] == "complete"


@pytest.mark.slow
async def test_limits_count_a_clients_own_address_and_no_header_that_it_makes_up(site: Site) -> None:
    one, other = (f"127.77.{secrets.randbelow(250) + 1}.{number}" for number in (1, 2))

    async def ask(address: str, forwarded: str | None = None) -> int:
        transport = httpx.AsyncHTTPTransport(local_address=address)
        headers = {"X-User-ID": secrets.token_hex(8)} | ({"X-Forwarded-For": forwarded} if forwarded else {})
        asked = question(secrets.token_hex(4), deltas=1, per_s=100)
        async with httpx.AsyncClient(base_url=site.url, transport=transport, timeout=PATIENCE_S) as http:
            body = {"type": "chat", "query": asked}
            return (await http.post("/api/v1/messages", json=body, headers=headers)).status_code

    assert [await ask(one) for _ in range(GUEST_CHATS + 1)] == [*(GUEST_CHATS * [200]), 429]
    assert await ask(one, "203.0.113.9") == 429
    assert await ask(other) == 200


@pytest.mark.slow
async def test_metrics_are_not_everybodys(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url, trust_env=False) as http:
        assert (await http.get("/metrics")).status_code == 404
        assert (await http.get("/health")).json() == {"status": "ok"}


@pytest.mark.slow
async def test_a_node_that_is_not_ready_gets_no_new_sockets(site: Site) -> None:
    leaving, staying = site.nodes.nodes
    async with socket_client(leaving.url) as client, contextlib.AsyncExitStack() as opened:
        await client.login()
        # What it finishes before it stops.
        await client.send({"type": "chat", "query": question("走前", deltas=24, per_s=6), "stream": True})
        await client.receive_until("chunk")
        leaving.terminate()
        await client.receive_until("goodbye")
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"{leaving.url}/ready")).status_code == 503
            before = await open_sockets(http, staying)
            for _ in range(8):
                await opened.enter_async_context(socket_client(site.url))
            assert await open_sockets(http, leaving) == 0
            assert await open_sockets(http, staying) == before + 8
            assert (await http.get(f"{leaving.url}/ready")).status_code == 503
    assert await leaving.ended() == 0
    # It was asked, and passed it on.
    assert '"503, 101"' in site.log.read_text()
    site.nodes.proxies[0].target = None
    await site.nodes.replace(0)


async def open_sockets(http: httpx.AsyncClient, node: NodeProcess) -> float:
    text = (await http.get(f"{node.url}/metrics")).text
    found = re.search(r"^cinewire_connections (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


@pytest.mark.slow
async def test_a_rolling_restart_behind_nginx_loses_nothing(site: Site) -> None:
    counts = Counts()
    rolled = asyncio.Event()

    async def talk(number: int) -> int:
        asked = 0
        async with Client([site.url], counts).open() as client:
            while not rolled.is_set():
                asked += 1
                await client.ask(question(f"滚{number}-{asked}", deltas=20, per_s=10))
        return asked

    async with asyncio.timeout(55), asyncio.TaskGroup() as tasks:
        talking = [tasks.create_task(talk(number)) for number in range(CLIENTS)]
        while not counts.frames:
            await asyncio.sleep(0.02)
        await site.nodes.roll()
        rolled.set()
    asked = sum(task.result() for task in talking)
    assert counts.answers == asked
    assert counts.closes.keys() == {"1012"}
    assert counts.restarts == 0
    assert site.nodes.complaints() == []
    calls = {name: count for name, count in (await site.model.calls()).items() if name.startswith("滚")}
    assert len(calls) == asked
    assert set(calls.values()) == {1}


# ---- the files ----


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
    return loaded


def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "cinewire.yaml").read_text())
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in documents}


SETTINGS = {name.upper() for name in Settings.model_fields}
NOT_SETTINGS = {"FORWARDED_ALLOW_IPS", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
STOP_S = Settings.model_fields["drain_timeout_s"].default + STOP_MARGIN_S


def test_every_variable_that_nodes_are_given_is_a_setting() -> None:
    given = {
        "compose": set(compose()["services"]["node1"]["environment"]),
        "Dockerfile": set(re.findall(r"([A-Z_]+)=", re.findall(r"^ENV (.*)$", dockerfile(), re.MULTILINE)[0])),
        "kubernetes": {each["name"] for each in container()["env"]},
        "secret": set(yaml.safe_load((DEPLOY / "kubernetes" / "secret.example.yaml").read_text())["stringData"]),
    }
    for where, names in given.items():
        assert names, where
        assert names <= SETTINGS | NOT_SETTINGS, f"{where}: {names - SETTINGS - NOT_SETTINGS}"


def test_what_is_mounted_is_there_and_what_is_asked_is_served() -> None:
    for name, service in compose()["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose()["volumes"] or (DEPLOY / source).exists(), f"{name}: {source}"
    targets = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    nodes = {f"{name}:8000" for name in compose()["services"] if name.startswith("node")}
    assert set(targets["static_configs"][0]["targets"]) == nodes
    assert set(re.findall(r"^\s*server (\S+)", (DEPLOY / "nginx" / "nginx.conf").read_text(), re.MULTILINE)) == nodes
    assert targets["job_name"] == "cinewire"  # by which the alerts know a node
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert provisioned["datasources"][0]["url"] == "http://prometheus:9090"


def test_every_way_to_stop_a_node_waits_for_its_drain() -> None:
    pod = manifests()["Deployment/cinewire"]["spec"]["template"]["spec"]
    pause_s = int(container()["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] >= pause_s + STOP_S
    assert int(compose()["services"]["node1"]["stop_grace_period"].removesuffix("s")) >= STOP_S
    unit = (DEPLOY / "systemd" / "cinewire.service").read_text()
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) >= STOP_S
    assert "STOPSIGNAL SIGTERM" in dockerfile()


def test_kubernetes_asks_for_readiness_and_life_where_they_are_answered() -> None:
    probes = container()
    assert probes["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert probes["livenessProbe"]["httpGet"]["path"] == probes["startupProbe"]["httpGet"]["path"] == "/health"
    labels = manifests()["Deployment/cinewire"]["spec"]["template"]["metadata"]["labels"]
    assert manifests()["Service/cinewire"]["spec"]["selector"] == labels
    assert manifests()["PodDisruptionBudget/cinewire"]["spec"]["selector"]["matchLabels"] == labels


def test_the_image_has_what_it_copies_and_nothing_of_what_is_secret() -> None:
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile(), re.MULTILINE) for name in line.split()[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    assert re.search(r"^USER 10001", dockerfile(), re.MULTILINE)


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def container() -> dict[str, Any]:
    found: dict[str, Any] = manifests()["Deployment/cinewire"]["spec"]["template"]["spec"]["containers"][0]
    return found
