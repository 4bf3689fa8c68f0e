# Benchmarks; perf/README.md says how to read and repeat them.
#   make bench CELLS=get40,get10k ROUNDS=5 SECONDS=3 GATEWAYS=nginx,isthmus BENCH="--no-latency"
# SECONDS is given to bash as a variable that counts by itself, so only one from the command line is believed.
ifneq ($(origin SECONDS),command line)
SECONDS := 3
endif

.PHONY: bench
bench: build ## side by side with nginx, HAProxy and Envoy; CELLS= ROUNDS= SECONDS= GATEWAYS=
	@$(BIN)/python -m perf bench --seconds $(SECONDS) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(CELLS),--cells $(CELLS)) \
		$(if $(GATEWAYS),--gateways $(GATEWAYS)) $(BENCH)

.PHONY: bench-quick
bench-quick: build ## the main cell alone, in half a minute
	@$(BIN)/python -m perf bench --cells get40 --rounds 5 --seconds 1 --no-latency

.PHONY: profile
profile: build ## where the worker's time goes, by symbol; CELL=get40 GATEWAY=isthmus
	@$(BIN)/python -m perf profile $(if $(CELL),--cell $(CELL)) $(if $(GATEWAY),--gateway $(GATEWAY)) $(PROFILE)

.PHONY: callgrind
callgrind: build ## instructions per request in user space; CELL=get40 GATEWAY=isthmus
	@$(BIN)/python -m perf callgrind $(if $(CELL),--cell $(CELL)) $(if $(GATEWAY),--gateway $(GATEWAY)) $(CALLGRIND)

.PHONY: bench-kube
bench-kube: $(VENV)/.tested build ## a cluster of 5,000 routes: cold start, changes, memory; BENCH=--urgent
	@$(BIN)/python -m perf kube $(BENCH)
