// Command grpcfront stands before a gRPC server on a Unix socket, at that socket's path. Upstream's kubelet sends a socket's path as the
// authority of its calls, which Go's servers take and others do not; real drivers are Go's.
//
// usage: grpcfront SOCKET...
package main

import (
	"context"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
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
	// A kubelet takes no notice of what is hidden.
	behind := filepath.Join(filepath.Dir(socket), "."+filepath.Base(socket))
	if err := os.Rename(socket, behind); err != nil {
		return err
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
		ctx := metadata.NewOutgoingContext(context.WithoutCancel(stream.Context()), md.Copy())
		if deadline, ok := stream.Context().Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
		if err := client.Invoke(ctx, method, &request, &answer); err != nil {
			return status.Convert(err).Err()
		}
		if err := stream.SendMsg(&answer); err != nil && err != io.EOF {
			return err
		}
		return nil
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
