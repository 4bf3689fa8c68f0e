"""`python -m perf [bench|profile|callgrind] ...`; `bench` when nothing is said."""

import sys

from perf import bench

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["bench"]:
        arguments = arguments[1:]
    sys.exit(bench.main(arguments))
