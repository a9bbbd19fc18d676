package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
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
// the stream, until the stream has ended. at: a runtime's socket and a container's id, or a kubelet's URL and NAMESPACE/POD/CONTAINER.
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
		stream(where())
		fmt.Printf("%.2f\n", float64(time.Since(from).Microseconds())/1000)
	}
}

// stream reads all that comes on a WebSocket, which must end with the word that all went well.
func stream(address string) {
	to, err := url.Parse(address)
	check(err)
	to.Scheme = map[string]string{"http": "ws", "https": "wss"}[to.Scheme]
	config, err := websocket.NewConfig(to.String(), "http://localhost/")
	check(err)
	config.Protocol = []string{"v4.channel.k8s.io"}
	config.TlsConfig = &tls.Config{InsecureSkipVerify: true}
	socket, err := websocket.DialConfig(config)
	check(err)
	defer socket.Close()
	all, err := io.ReadAll(socket)
	check(err)
	if !strings.Contains(string(all), `"Success"`) {
		check(fmt.Errorf("exec ended with %q", all))
	}
}
