package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// execs runs /bin/true in a container COUNT times and prints the milliseconds of each: from asking the runtime for a URL, or a kubelet for
// the stream, until the stream has ended; and how many of them were a handshake of TLS. at: a runtime's socket and a container's id, or a kubelet's URL and NAMESPACE/POD/CONTAINER.
func execs(at, container, count string) {
	n, err := strconv.Atoi(count)
	check(err)
	where := func() string {
		return at + "/exec/" + container + "?command=/bin/true&output=1&error=1"
	}
	if !strings.HasPrefix(at, "https://") {
		conn, err := grpc.NewClient("unix://"+at, grpc.WithTransportCredentials(insecure.NewCredentials()))
		check(err)
		runtime := cri.NewRuntimeServiceClient(conn)
		where = func() string {
			made, err := runtime.Exec(context.Background(), &cri.ExecRequest{ContainerId: container, Cmd: []string{"/bin/true"}, Stdout: true, Stderr: true})
			check(err)
			return made.Url
		}
	}
	for range n {
		from := time.Now()
		handshake := stream(where())
		fmt.Printf("%.2f %.2f\n", milliseconds(time.Since(from)), milliseconds(handshake))
	}
}

func milliseconds(took time.Duration) float64 { return float64(took.Microseconds()) / 1000 }

// stream reads all that comes on a WebSocket, which must end with the word that all went well. It says how long the handshake of TLS took.
func stream(address string) (handshake time.Duration) {
	to, err := url.Parse(address)
	check(err)
	isTLS := to.Scheme == "https"
	to.Scheme = map[bool]string{false: "ws", true: "wss"}[isTLS]
	config, err := websocket.NewConfig(to.String(), "http://localhost/")
	check(err)
	config.Protocol = []string{"v4.channel.k8s.io"}
	conn, err := net.Dial("tcp", to.Host)
	check(err)
	if isTLS {
		from := time.Now()
		secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		check(secured.Handshake())
		conn, handshake = secured, time.Since(from)
	}
	socket, err := websocket.NewClient(config, conn)
	check(err)
	defer socket.Close()
	all, err := io.ReadAll(socket)
	check(err)
	if !strings.Contains(string(all), `"Success"`) {
		check(fmt.Errorf("exec ended with %q", all))
	}
	return handshake
}
