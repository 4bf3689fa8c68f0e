"""The command `isthmus`. Everything heavy is imported by the command that needs it."""

import sys


def main() -> None:
    """Entry point. Ends the process: 0 well, 1 problems, 2 wrong usage."""
    try:
        from gateway.cli.app import app

        app()
    except ImportError as error:
        if not (error.name or "").startswith("gateway._core"):
            raise
        what = f"cannot be loaded ({error})" if ".so" in str(error) else f"is missing ({error.name})"
        how = "build it with `make build` or `python setup.py build_ext --inplace`"
        print(f"isthmus: the compiled core {what}; {how}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of a pipe had enough (`isthmus routes | head`); nothing more may be written, not even at exit.
        sys.stderr.close()
        sys.exit(1)
