"""`python -m perf [bench|profile|callgrind|kube] ...`; `bench` when nothing is said."""

import sys

from perf import bench, kube, profiler

if __name__ == "__main__":
    verb, arguments = "bench", sys.argv[1:]
    if arguments and arguments[0] in ("bench", "profile", "callgrind", "kube"):
        verb, arguments = arguments[0], arguments[1:]
    if verb == "kube":
        sys.exit(kube.main(arguments))
    sys.exit(bench.main(arguments) if verb == "bench" else profiler.main(verb, arguments))
