// Who speaks gRPC with a kubelet, with upstream's own types: a collector of traces, a client of pod-resources, a device plugin.
// usage: peers collect ADDRESS             prints each span that comes as a line of JSON
//
//	peers resources SOCKET NAMESPACE POD   what List, GetAllocatableResources and Get answer, as JSON
//	peers plugin FOLDER RESOURCE ID...     registers a plugin with these devices, and lives
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	devices "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	resources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

func main() {
	var err error
	switch os.Args[1] {
	case "collect":
		err = collect(os.Args[2])
	case "resources":
		err = ask(os.Args[2], os.Args[3], os.Args[4])
	case "plugin":
		err = serve(os.Args[2], os.Args[3], os.Args[4:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type traces struct {
	collector.UnimplementedTraceServiceServer
}

func (traces) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, of := range request.ResourceSpans {
		resource := map[string]string{}
		for _, one := range of.Resource.GetAttributes() {
			resource[one.Key] = one.Value.GetStringValue()
		}
		for _, scope := range of.ScopeSpans {
			for _, span := range scope.Spans {
				attributes := map[string]any{}
				for _, one := range span.Attributes {
					attributes[one.Key] = one.Value.String()
				}
				line, err := json.Marshal(map[string]any{
					"trace": fmt.Sprintf("%x", span.TraceId), "span": fmt.Sprintf("%x", span.SpanId), "parent": fmt.Sprintf("%x", span.ParentSpanId), "name": span.Name,
					"kind": span.Kind.String(), "attributes": attributes, "error": span.Status.GetMessage(), "start": span.StartTimeUnixNano, "end": span.EndTimeUnixNano,
					"resource": resource, "scope": scope.Scope.GetName(),
				})
				if err != nil {
					return nil, err
				}
				fmt.Println(string(line))
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func collect(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, traces{})
	return server.Serve(listener)
}

func ask(socket, namespace, pod string) error {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, answers := resources.NewPodResourcesListerClient(connection), map[string]any{}
	note := func(name string, answer any, err error) {
		if err != nil {
			answers[name] = map[string]any{"code": status.Code(err).String(), "message": status.Convert(err).Message()}
			return
		}
		// Older than protojson, its types know only their bytes.
		text, err := protojson.Marshal(answer.(proto.Message))
		if err != nil {
			text = []byte(fmt.Sprintf("%q", err))
		}
		answers[name] = json.RawMessage(text)
	}
	list, err := client.List(ctx, &resources.ListPodResourcesRequest{})
	note("list", list, err)
	allocatable, err := client.GetAllocatableResources(ctx, &resources.AllocatableResourcesRequest{})
	note("allocatable", allocatable, err)
	one, err := client.Get(ctx, &resources.GetPodResourcesRequest{PodName: pod, PodNamespace: namespace})
	note("get", one, err)
	none, err := client.Get(ctx, &resources.GetPodResourcesRequest{PodName: "nosuch", PodNamespace: namespace})
	note("get nosuch", none, err)
	return json.NewEncoder(os.Stdout).Encode(answers)
}

type plugin struct {
	devices.UnimplementedDevicePluginServer
	ids []string
}

func (plugin) GetDevicePluginOptions(context.Context, *devices.Empty) (*devices.DevicePluginOptions, error) {
	return &devices.DevicePluginOptions{}, nil
}

func (p plugin) ListAndWatch(_ *devices.Empty, stream devices.DevicePlugin_ListAndWatchServer) error {
	answer := &devices.ListAndWatchResponse{}
	for number, id := range p.ids {
		topology := &devices.TopologyInfo{Nodes: []*devices.NUMANode{{ID: int64(number % 2)}}}
		answer.Devices = append(answer.Devices, &devices.Device{ID: id, Health: devices.Healthy, Topology: topology})
	}
	if err := stream.Send(answer); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (plugin) Allocate(_ context.Context, request *devices.AllocateRequest) (*devices.AllocateResponse, error) {
	answer := &devices.AllocateResponse{}
	for range request.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, &devices.ContainerAllocateResponse{Envs: map[string]string{"DEVICE": "given"}})
	}
	return answer, nil
}

func serve(folder, resource string, ids []string) error {
	name := "peers.sock"
	listener, err := net.Listen("unix", filepath.Join(folder, name))
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	devices.RegisterDevicePluginServer(server, plugin{ids: ids})
	failed := make(chan error)
	go func() { failed <- server.Serve(listener) }()
	connection, err := grpc.NewClient("unix://"+filepath.Join(folder, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = devices.NewRegistrationClient(connection).Register(ctx, &devices.RegisterRequest{Version: devices.Version, Endpoint: name, ResourceName: resource})
	if err != nil {
		return err
	}
	return <-failed
}
