// Command kube-apiserver is Kubernetes' own API server at a fixed version, for tests: see mk/kube.mk and tests/lib/realserver.py.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
