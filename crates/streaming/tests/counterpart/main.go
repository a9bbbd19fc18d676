// Command counterpart is the other side of this crate's tests: the clients of Kubernetes, and the server that Go runtimes use.
//
//	counterpart exec [-websocket] [-stdin TEXT] [-tty] [-no-stderr] URL    runs client-go's executor, prints one JSON object
//	counterpart forward [-websocket] URL PORT            forwards a local port, prints it, ends with stdin
//	counterpart serve                                    serves this machine's commands; reads requests, prints URLs
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	server "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

func main() {
	verbs := map[string]func([]string) error{"exec": runExec, "forward": runForward, "serve": runServe}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: counterpart exec|forward|serve ...")
		os.Exit(2)
	}
	if err := verbs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type outcome struct {
	Stdout, Stderr, Error string
	Code                  int
}

// oneSize tells one size of a terminal.
type oneSize struct{ told bool }

func (s *oneSize) Next() *remotecommand.TerminalSize {
	if s.told {
		return nil
	}
	s.told = true
	return &remotecommand.TerminalSize{Width: 123, Height: 45}
}

func runExec(args []string) error {
	flags := flag.NewFlagSet("exec", flag.ExitOnError)
	websocket := flags.Bool("websocket", false, "")
	stdin := flags.String("stdin", "", "")
	repeat := flags.Int("repeat", 1, "how often the text of -stdin is sent")
	tty := flags.Bool("tty", false, "")
	noStderr := flags.Bool("no-stderr", false, "")
	flags.Parse(args)
	target, err := url.Parse(flags.Arg(0))
	if err != nil {
		return err
	}
	config := &rest.Config{Host: target.Scheme + "://" + target.Host}
	executor, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, target)
	if *websocket {
		executor, err = remotecommand.NewWebSocketExecutor(config, http.MethodGet, target.String())
	}
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	options := remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr, Tty: *tty}
	if *tty || *noStderr {
		options.Stderr = nil
	}
	if *tty {
		options.TerminalSizeQueue = &oneSize{}
	}
	if *stdin != "" {
		options.Stdin = strings.NewReader(strings.Repeat(*stdin, *repeat))
	}
	result := outcome{}
	if err := executor.StreamWithContext(context.Background(), options); err != nil {
		result.Error = err.Error()
		var exit utilexec.CodeExitError
		if errors.As(err, &exit) {
			result.Code = exit.Code
		}
	}
	result.Stdout, result.Stderr = stdout.String(), stderr.String()
	return json.NewEncoder(os.Stdout).Encode(result)
}

func runForward(args []string) error {
	flags := flag.NewFlagSet("forward", flag.ExitOnError)
	websocket := flags.Bool("websocket", false, "")
	flags.Parse(args)
	target, err := url.Parse(flags.Arg(0))
	if err != nil {
		return err
	}
	config := &rest.Config{Host: target.Scheme + "://" + target.Host}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	if *websocket {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(target, config); err != nil {
			return err
		}
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{":" + flags.Arg(1)}, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	go func() {
		<-ready
		if ports, err := forwarder.GetPorts(); err == nil {
			fmt.Println(ports[0].Local)
		}
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	return forwarder.ForwardPorts()
}

// machine is a runtime whose containers are this machine.
type machine struct{}

func (machine) Exec(ctx context.Context, id string, cmd []string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan server.TerminalSize) error {
	if tty {
		size := <-resize
		fmt.Fprintf(out, "%dx%d\n", size.Width, size.Height)
	}
	command := exec.Command(cmd[0], cmd[1:]...)
	command.Stdin, command.Stdout = in, out
	if err != nil {
		command.Stderr = err
	}
	failure := command.Run()
	var exit *exec.ExitError
	if errors.As(failure, &exit) {
		text := fmt.Errorf("error executing command %v, exit code %d", cmd, exit.ExitCode())
		return codeExit{text, exit.ExitCode()}
	}
	return failure
}

// codeExit is what the server takes for the exit of a command.
type codeExit struct {
	error
	code int
}

func (c codeExit) Exited() bool    { return true }
func (c codeExit) ExitStatus() int { return c.code }
func (c codeExit) String() string  { return c.Error() }

func (machine) Attach(ctx context.Context, id string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan server.TerminalSize) error {
	_, failure := io.Copy(out, in)
	return failure
}

func (machine) PortForward(ctx context.Context, sandbox string, port int32, stream io.ReadWriteCloser) error {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return errors.New("connection refused")
	}
	defer connection.Close()
	go func() {
		io.Copy(connection, stream)
		connection.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, connection)
	return err
}

// ask is a request; each is a line of JSON, and gets a line with its URL.
type ask struct {
	Exec               []string
	Stdin, Stderr, Tty bool
	Forward            bool
}

func runServe([]string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	config := streaming.DefaultConfig
	config.Addr = listener.Addr().String()
	served, err := streaming.NewServer(config, machine{})
	if err != nil {
		return err
	}
	go http.Serve(listener, served)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked ask
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		address, err := urlFor(served, asked)
		if err != nil {
			return err
		}
		fmt.Println(address)
	}
	return lines.Err()
}

func urlFor(served streaming.Server, asked ask) (string, error) {
	if asked.Forward {
		answer, err := served.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "s"})
		return answer.GetUrl(), err
	}
	answer, err := served.GetExec(&runtimeapi.ExecRequest{
		ContainerId: "c", Cmd: asked.Exec, Stdin: asked.Stdin, Stdout: true, Stderr: asked.Stderr, Tty: asked.Tty,
	})
	return answer.GetUrl(), err
}
