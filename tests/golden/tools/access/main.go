// What upstream's server answers at each path to those whom it does not let in: status, place, body.
// usage: access PATHS_FILE > TABLE. Imports k8s.io/kubernetes, so it needs a module of its own with the staging replacements.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/component-base/configz"
	"k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/server"
	"k8s.io/kubernetes/pkg/kubelet/server/stats"
)

type host struct{ server.HostInterface }

func (host) SyncLoopHealthCheck(*http.Request) error { return nil }

type analyzer struct{ stats.ResourceAnalyzer }

// caller is nobody ("none"), somebody who may nothing ("known"), or somebody nobody can judge ("error").
type caller struct {
	server.NodeRequestAttributesGetter
	dynamiccertificates.CAContentProvider
	state string
}

func (c caller) AuthenticateRequest(*http.Request) (*authenticator.Response, bool, error) {
	return &authenticator.Response{User: &user.DefaultInfo{Name: "u"}}, c.state != "none", nil
}

func (c caller) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	if c.state == "error" {
		return authorizer.DecisionNoOpinion, "", errors.New("unreachable")
	}
	return authorizer.DecisionNoOpinion, "", nil
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO"}

func main() {
	paths, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	configz.New("kubeletconfig")
	for _, debugging := range []bool{true, false} {
		for _, state := range []string{"none", "known", "error"} {
			who := caller{state: state, NodeRequestAttributesGetter: server.NewNodeAuthorizerAttributesGetter("node-a")}
			settings := &config.KubeletConfiguration{EnableDebuggingHandlers: debugging, EnableSystemLogHandler: true,
				EnableProfilingHandler: true, EnableDebugFlagsHandler: true}
			handler := server.NewServer(context.Background(), host{}, analyzer{}, nil, nil, who, settings)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				panic(err)
			}
			go http.Serve(listener, &handler)
			for _, path := range strings.Fields(string(paths)) {
				for _, method := range methods {
					status, location, body := ask(listener.Addr().String(), method, path)
					fmt.Printf("%v\t%s\t%s\t%s\t%s\t%s\t%q\n", debugging, state, method, path, status, location, body)
				}
			}
		}
	}
}

// ask writes the path as it is: a client of Go's would clean it.
func ask(address, method, path string) (status, location, body string) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "%s %s HTTP/1.1\r\nHost: node-a\r\nConnection: close\r\n\r\n", method, path)
	answer, _ := io.ReadAll(connection)
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n") {
		if place, found := strings.CutPrefix(line, "Location: "); found {
			location = place
		}
	}
	return strings.Fields(head)[1], location, body
}
