"""HPACK: the static table (RFC 7541 Appendix A)."""

STATIC: tuple[tuple[bytes, bytes], ...]
