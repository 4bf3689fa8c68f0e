"""The abstract classes of the path: what is not overridden does nothing; a fresh object has no descriptor and waits for nothing."""

from gateway._core.pathtest import call_abstract


def test_what_is_not_overridden_does_nothing() -> None:
    assert call_abstract() == (-1, -1, False, False, None, None, 0)
