//go:build tools

// Package critest pins the CRI validation suite and its command line client, which build.sh builds.
package critest

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/cmd/critest"
)
