"""`python -m perf [bench|profile|callgrind] ...`; `bench` when nothing is said."""

import sys

from perf import bench, profiler

if __name__ == "__main__":
    verb, arguments = "bench", sys.argv[1:]
    if arguments and arguments[0] in ("bench", "profile", "callgrind"):
        verb, arguments = arguments[0], arguments[1:]
    sys.exit(bench.main(arguments) if verb == "bench" else profiler.main(verb, arguments))
