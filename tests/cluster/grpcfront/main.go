// Command grpcfront stands before a gRPC server on a Unix socket, at that socket's path. Upstream's kubelet sends a socket's path as the
// authority of its calls, which Go's servers take and others do not; real drivers are Go's.
//
// usage: grpcfront [BEHIND=]SOCKET...: without BEHIND, whoever listens at SOCKET is moved aside
package main

import (
	"context"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// raw passes messages on as they are.
type raw struct{}

func (raw) Name() string                  { return "proto" }
func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func front(socket string) error {
	behind, at, found := strings.Cut(socket, "=")
	if found {
		socket = at
		if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
			return err
		}
	} else {
		// A kubelet takes no notice of what is hidden.
		behind = filepath.Join(filepath.Dir(socket), "."+filepath.Base(socket))
		if err := os.Rename(socket, behind); err != nil {
			return err
		}
	}
	client, err := grpc.NewClient("unix://"+behind, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		return err
	}
	pass := func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		var request, answer []byte
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		md, _ := metadata.FromIncomingContext(stream.Context())
		ctx, end := context.WithCancel(metadata.NewOutgoingContext(context.WithoutCancel(stream.Context()), md.Copy()))
		defer end()
		go func() {
			<-stream.Context().Done()
			end()
		}()
		if deadline, ok := stream.Context().Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
		// One answer or several.
		asked, err := client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
		if err != nil {
			return status.Convert(err).Err()
		}
		if err := asked.SendMsg(&request); err != nil && err != io.EOF {
			return status.Convert(err).Err()
		}
		if err := asked.CloseSend(); err != nil {
			return status.Convert(err).Err()
		}
		for {
			if err := asked.RecvMsg(&answer); err == io.EOF {
				return nil
			} else if err != nil {
				return status.Convert(err).Err()
			}
			if err := stream.SendMsg(&answer); err != nil {
				return err
			}
		}
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		log.Fatal(grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(pass)).Serve(listener))
	}()
	return nil
}

func main() {
	for _, socket := range os.Args[1:] {
		if err := front(socket); err != nil {
			log.Fatal(err)
		}
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
}
