"""`run.py contract` writes the documents into a folder, for generators of clients and for Postman.

They are not committed: they follow from the declarations in a moment, a server gives out its own, and two branches that
each add an operation would meet in them. Who keeps a copy, beside a client that was generated from it, has `--check`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from protocol.operations import OPERATIONS
from wsserver.contract.asyncapi import asyncapi
from wsserver.contract.llms import llms
from wsserver.contract.openapi import openapi
from wsserver.contract.postman import postman


def main(arguments: Sequence[str] = ()) -> int:
    """Write the documents, or compare them. Gives the exit code: 1 when they differ or cannot be written."""
    parser = argparse.ArgumentParser(prog="run.py contract", description="Write the documents of the API.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("contract"), help="default: contract/")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the folder's differ")
    options = parser.parse_args(list(arguments))
    folder: Path = options.folder
    documents = {folder / name: text for name, text in texts().items()}
    if options.check:
        stale = [path for path, text in documents.items() if not path.exists() or path.read_text("utf-8") != text]
        for path in stale:
            _say(f"{path} is not what the declarations say: run `python3 run.py contract {folder}`")
        return 1 if stale else 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in documents.items():
            path.write_text(text, "utf-8")
    except OSError as error:
        _say(f"{folder}: {error.strerror}")
        return 1
    print("\n".join(map(str, documents)))  # noqa: T201
    return 0


def texts() -> dict[str, str]:
    """The documents by the names of their files."""
    http = openapi(OPERATIONS)
    documents = {"openapi.json": http, "asyncapi.json": asyncapi(OPERATIONS), "postman.json": postman(http)}
    written = {name: json.dumps(document, ensure_ascii=False, indent=2) + "\n" for name, document in documents.items()}
    return written | {"llms.txt": llms(OPERATIONS)}


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
