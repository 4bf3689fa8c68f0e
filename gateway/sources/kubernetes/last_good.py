"""The objects that were known last, in a file: what is served from when the gateway starts and no API server answers.

Private keys of Secrets are among them, as they are in the gateway's memory; so the file is for its owner alone (mode 0600), and one
that others may read is not believed. It is written whole beside its place and then renamed; a checksum tells one that is not whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.model.problem import Finding
from gateway.model.scalars import encode_hook
from gateway.sources.kubernetes.kinds import KINDS, Kind
from gateway.sources.kubernetes.meta import ObjectMeta
from gateway.sources.kubernetes.store import Decoded, Store, decode_bytes

MOST_BYTES = 256 << 20
FORMAT = "isthmus-objects-1"


class Unusable(Exception):
    """Why there is nothing to be had from a file, or nothing could be written."""


class _Head(msgspec.Struct, frozen=True):
    format: str
    written: float
    digest: str


class _Row(msgspec.Struct, frozen=True, array_like=True):
    """One object. Without `object` it was broken, and `metadata` says which."""

    kind: str
    object: msgspec.Raw
    findings: list[tuple[list[str | int], str, str, bool, bool]] = []
    metadata: ObjectMeta | None = None


_ROWS = msgspec.json.Decoder(_Row)
_HEADS = msgspec.json.Decoder(_Head)


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds."""

    objects: list[tuple[Kind, Decoded]]
    written: float
    """Seconds since the epoch."""


def write(path: Path, store: Store) -> int:
    """Bytes written. Raises Unusable; the file is then as it was."""
    content = b"\n".join(_rows(store))
    if len(content) > MOST_BYTES:
        raise Unusable(f"{len(content) >> 20} MiB of objects; {MOST_BYTES >> 20} are written at most")
    head = msgspec.json.encode(_Head(FORMAT, time.time(), hashlib.sha256(content).hexdigest()))
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        # Made by this call or not at all, so that its mode is ours and no link leads elsewhere.
        opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(opened, "wb") as file:
            file.write(head + b"\n" + content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise Unusable(error.strerror or str(error)) from None
    return len(content)


def read(path: Path) -> Found:
    """Raises Unusable for whatever is not a whole file of this format that nobody else can read."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(opened, "rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_mode & 0o077:
                raise Unusable(f"others may read it (mode {facts.st_mode & 0o777:o}); it has to be 600")
            if facts.st_size > MOST_BYTES + 4096:
                raise Unusable(f"{facts.st_size >> 20} MiB; {MOST_BYTES >> 20} are read at most")
            raw = file.read()
    except OSError as error:
        raise Unusable(error.strerror or str(error)) from None
    first, _, content = raw.partition(b"\n")
    try:
        head = _HEADS.decode(first)
        if head.format != FORMAT or hashlib.sha256(content).hexdigest() != head.digest:
            raise Unusable("not a whole file of this version")
        return Found([_object(line) for line in content.split(b"\n") if line], head.written)
    except (msgspec.MsgspecError, KeyError, ValueError):
        raise Unusable("not a file of this version") from None


def _rows(store: Store) -> Iterable[bytes]:
    nothing = msgspec.Raw(b"null")
    for kind in KINDS.values():
        for each in store.all(kind.type):
            raw = msgspec.Raw(msgspec.json.encode(each, enc_hook=encode_hook))
            yield msgspec.json.encode(_Row(kind.name, raw, _flat(store.flaws.get(each.ref, ()))))
    for ref, broken in store.broken.items():
        yield msgspec.json.encode(_Row(ref.kind, nothing, _flat(broken.findings), broken.metadata))


def _flat(findings: Iterable[Finding]) -> list[tuple[list[str | int], str, str, bool, bool]]:
    return [([*each.path], each.message, each.severity, each.drops, each.at_key) for each in findings]


def _object(line: bytes) -> tuple[Kind, Decoded]:
    row = _ROWS.decode(line)
    kind = KINDS[row.kind]
    findings = tuple(_finding(each) for each in row.findings)
    if row.metadata is not None:
        return kind, Decoded(row.metadata, None, findings)
    found = decode_bytes(kind, row.object)
    # Flaws were cut out before it was written; what is left of the object has none.
    return kind, Decoded(found.metadata, found.object, findings or found.findings)


def _finding(flat: tuple[Any, ...]) -> Finding:
    path, message, severity, drops, at_key = flat
    return Finding(tuple(path), message, severity, drops=drops, at_key=at_key)
