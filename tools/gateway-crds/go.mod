// No program: names the release of Gateway API whose CRDs the tests read out of its module (tests/lib/manifests.py).
module isthmus/tools/gateway-crds

go 1.24.0

require sigs.k8s.io/gateway-api v1.6.1
