"""`run.py doctor`: looks at everything, says a line for each, and ends with 1 when something fails."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from storage.embedded import running_services
from wsserver.doctor.finding import Finding, fail
from wsserver.doctor.host import look_at_host
from wsserver.doctor.public import look_from_outside
from wsserver.doctor.services import look_at_services
from wsserver.doctor.vendors import look_at_vendors
from wsserver.settings import Settings, SettingsError, load_settings
from wsserver.telemetry import configure_logging


def main(arguments: Sequence[str] = ()) -> int:
    """Look and tell. Gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="run.py doctor",
        description="Check settings, PostgreSQL, Redis, vendors and this host. Starts, changes and spends nothing.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args(list(arguments))
    # What the vendors' clients log is said here in other words.
    configure_logging(level="critical", json=True)
    try:
        findings = asyncio.run(look(load_settings()))
    except SettingsError as error:
        do = "See .env.example for what it may be."
        findings = [fail("settings", line, do) for line in str(error).splitlines()]
    failed = any(finding.status == "fail" for finding in findings)
    _print(
        json.dumps({"ok": not failed, "findings": [asdict(each) for each in findings]}, ensure_ascii=False, indent=2)
        if options.json
        else lines(findings)
    )
    return 1 if failed else 0


async def look(settings: Settings) -> list[Finding]:
    """Everything that is found."""
    services = running_services(settings.data_dir)
    asked = await asyncio.gather(
        look_at_services(settings, services), look_at_vendors(settings, services), look_from_outside(settings)
    )
    return [*look_at_host(settings), *(finding for each in asked for finding in each)]


def lines(findings: Sequence[Finding]) -> str:
    """For people."""
    said = []
    for finding in findings:
        said.append(f"{finding.status:<5} {finding.what}: {finding.said}")
        if finding.do:
            said.append(f"      → {finding.do}")
    return "\n".join(said)


def _print(text: str) -> None:
    print(text, file=sys.stdout)  # noqa: T201
