"""What this version decodes and checks but does not serve yet. One place, so that a later version only shrinks this file.

Every function answers None (served) or a sentence for a Problem of severity warning.
"""

_RULE_FILTERS = frozenset(
    {"RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS"}
)
_BACKEND_FILTERS = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"})


def filter_gap(filter_type: str, *, at_backend: bool = False) -> str | None:
    """A filter with a gap makes its rule (or its backend's share) answer 500: Gateway API forbids skipping it."""
    if filter_type in (_BACKEND_FILTERS if at_backend else _RULE_FILTERS):
        return None
    if at_backend:
        return f"not served by this version: a filter of type {filter_type} on a backend; its share is answered 500"
    return f"not served by this version: a filter of type {filter_type}; requests of this rule are answered 500"
