"""Side-by-side benchmarks: this gateway beside nginx, HAProxy and Envoy, one worker each, in one run. See README.md."""
