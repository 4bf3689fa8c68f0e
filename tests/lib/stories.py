"""The HPACK stories of tests/corpora: what encoders of many projects made of real heads."""

import json
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).resolve().parents[1] / "corpora" / "hpack.tar.xz"
FOLDERS = [
    "go-hpack",
    "haskell-http2-linear-huffman",
    "nghttp2",
    "nghttp2-16384-4096",
    "nghttp2-change-table-size",
    "node-http2-hpack",
    "python-hpack",
    "swift-nio-hpack-huffman",
]
Pairs = list[tuple[bytes, bytes]]


@cache
def archive() -> dict[str, bytes]:
    """Every story by its path."""
    with tarfile.open(ARCHIVE) as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar if member.name.endswith(".json"))
        return {name: file.read() for name, file in files if file}


def stories(folder: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name, story in sorted(archive().items()):
        if name.split("/")[-2] == folder:
            yield name, json.loads(story)["cases"]


def pairs_of(case: dict[str, Any]) -> Pairs:
    return [(name.encode(), value.encode()) for field in case["headers"] for name, value in field.items()]


def kind_of(pairs: Pairs) -> str:
    return "response" if b":status" in dict(pairs) else "request"
