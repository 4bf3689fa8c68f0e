"""Known field names: NAMES[token] is the lower-case name; NAMES[0] is empty."""

NAMES: tuple[bytes, ...]
