from collections.abc import Sequence

PART_KINDS: dict[str, int]
"""Numbers of the parts that a key may be made of, by what the configuration calls them (before the colon, where a name follows)."""

def key_of(limit_id: int, parts: Sequence[tuple[int, bytes | None]]) -> tuple[int, int]:
    """(low, high) half of the hash of a key with these parts (limit_key.Part, value); None is a part that is not there. A client's
    address is given as text, and what is no address counts as it is."""

def siphash(data: bytes, k0: int, k1: int) -> bytes:
    """SipHash-2-4 with 128 bits. For tests."""

def subject_of(certificate: bytes) -> bytes | None:
    """First URI, else DNS name, of an element of X-Forwarded-Client-Cert. For tests."""
