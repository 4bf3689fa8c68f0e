# Tests against Kubernetes' own API server: built with go from its module (tools/kube-apiserver), over etcd.
# The first build takes some minutes and fills go's cache; after that it is one when go.mod changes.
KUBE := build/kube
KUBE_MODULE := tools/kube-apiserver
GO := $(shell PATH="$$PATH:/usr/local/go/bin" command -v go)
KUBE_VERSION := $(shell sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)$$/\1/p' $(KUBE_MODULE)/go.mod)
KUBE_NUMBERS := $(subst ., ,$(KUBE_VERSION:v%=%))
# What its own build says of itself; without it every feature gate would be of version 0.
KUBE_NAMES := -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION) \
	-X k8s.io/component-base/version.gitMajor=$(word 1,$(KUBE_NUMBERS)) -X k8s.io/component-base/version.gitMinor=$(word 2,$(KUBE_NUMBERS))
# An EndpointSlice may not name a loopback address, so the tests have a network of their own, in which 10.0.0.1 is this machine.
KUBE_NETWORK := unshare --map-root-user --net sh -c 'ip link set lo up && ip address add 10.0.0.1/32 dev lo && exec "$$@"' -

$(KUBE)/kube-apiserver: $(addprefix $(KUBE_MODULE)/,go.mod go.sum main.go)
	@test -n "$(GO)" || { echo "kube-apiserver is built with go, which is not here" >&2; exit 1; }
	@mkdir -p $(KUBE)
	cd $(KUBE_MODULE) && CGO_ENABLED=0 nice "$(GO)" build -p $(GW_JOBS) -trimpath -ldflags "-s -w $(KUBE_NAMES)" -o $(CURDIR)/$@ .
	@touch $@

.PHONY: kube-assets
kube-assets: $(KUBE)/kube-apiserver ## kube-apiserver in build/kube, built with go, for test-kube; etcd must be installed
	@command -v etcd > /dev/null || { echo "etcd is not installed; Debian has it as etcd-server" >&2; exit 1; }

.PHONY: test-kube
test-kube: $(VENV)/.tested build kube-assets ## the tests that run on Kubernetes' own API server, on it; ARGS= for pytest
	@$(KUBE_NETWORK) true 2> /dev/null || echo "no network of one's own here (unshare, ip): the end-to-end tests are left out" >&2
	@if $(KUBE_NETWORK) true 2> /dev/null; then set -- $(KUBE_NETWORK); else set --; fi; \
		KUBE_ASSETS=$(CURDIR)/$(KUBE) "$$@" $(BIN)/python -m pytest -m kube $(ARGS) tests/k8s tests/sources/kubernetes tests/e2e/test_kubernetes.py
