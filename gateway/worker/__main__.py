"""Entry of a worker process; the supervisor starts this file and nobody else does."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The very package that the supervisor runs, wherever the current directory is.
    root = str(Path(__file__).resolve().parent.parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    from gateway.worker.main import main

    sys.exit(main())
