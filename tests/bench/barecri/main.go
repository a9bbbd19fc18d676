// Command barecri asks a container runtime for pods directly, with nothing in between: what a kubelet's start-up times are compared with.
// usage: barecri SOCKET OUT_DIR host|cni IMAGE COUNT AT_ONCE
// Prints one line for each pod: milliseconds from before the first call to the first instruction of the workload, then
// milliseconds from killing it to the first instruction of its successor (0 with more than one at once).
// or: barecri exec SOCKET|URL CONTAINER COUNT, see exec.go.
// The workload writes the monotonic clock, in nanoseconds, as a line of OUT_DIR/NAME/at.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "barecri:", err)
		os.Exit(1)
	}
}

// monotonic is the clock that the workload reads.
func monotonic() int64 {
	var t syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

// stamp waits for the n-th line of a pod's file.
func stamp(dir string, n int) int64 {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, _ := os.ReadFile(filepath.Join(dir, "at"))
		if lines := strings.Split(string(text), "\n"); len(lines) > n {
			at, err := strconv.ParseInt(lines[n-1], 10, 64)
			check(err)
			return at
		}
	}
	check(fmt.Errorf("no stamp %d in %s", n, dir))
	return 0
}

// workload finds the process that has dir mounted.
func workload(dir string) int {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		name, _ := os.ReadFile(p + "/comm")
		mounts, _ := os.ReadFile(p + "/mountinfo")
		if strings.TrimSpace(string(name)) == "first" && strings.Contains(string(mounts), filepath.Base(dir)+" /stamp") {
			pid, _ := strconv.Atoi(filepath.Base(p))
			return pid
		}
	}
	check(fmt.Errorf("no workload of %s", dir))
	return 0
}

type pod struct {
	runtime   cri.RuntimeServiceClient
	sandbox   *cri.PodSandboxConfig
	id, image string
	dir       string
}

func (p *pod) container(attempt uint32) string {
	ctx := context.Background()
	made, err := p.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.id, SandboxConfig: p.sandbox, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "first", Attempt: attempt}, Image: &cri.ImageSpec{Image: p.image}, LogPath: fmt.Sprintf("first_%d.log", attempt),
		Mounts: []*cri.Mount{{ContainerPath: "/stamp", HostPath: p.dir}},
		Linux: &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 1000},
			SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: p.sandbox.Linux.SecurityContext.NamespaceOptions}}}})
	check(err)
	_, err = p.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId})
	check(err)
	return made.ContainerId
}

func run(runtime cri.RuntimeServiceClient, out, name, network, image string) (*pod, string, float64) {
	dir := filepath.Join(out, name)
	check(os.MkdirAll(dir, 0o755))
	mode := cri.NamespaceMode_POD
	if network == "host" {
		mode = cri.NamespaceMode_NODE
	}
	options := &cri.NamespaceOption{Network: mode, Pid: cri.NamespaceMode_CONTAINER, Ipc: cri.NamespaceMode_POD}
	p := &pod{runtime: runtime, image: image, dir: dir, sandbox: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "bare"}, LogDirectory: filepath.Join(out, "log", name),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: options}}}}
	if network != "host" {
		p.sandbox.Hostname = name
	}
	check(os.MkdirAll(p.sandbox.LogDirectory, 0o755))
	from := monotonic()
	made, err := runtime.RunPodSandbox(context.Background(), &cri.RunPodSandboxRequest{Config: p.sandbox})
	check(err)
	p.id = made.PodSandboxId
	container := p.container(0)
	return p, container, float64(stamp(dir, 1)-from) / 1e6
}

// again kills the workload, waits until the runtime says so, and starts its successor.
func (p *pod) again(container string) float64 {
	pid := workload(p.dir)
	from := monotonic()
	check(syscall.Kill(pid, syscall.SIGKILL))
	for {
		answer, err := p.runtime.ContainerStatus(context.Background(), &cri.ContainerStatusRequest{ContainerId: container})
		check(err)
		if answer.Status.State == cri.ContainerState_CONTAINER_EXITED {
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.container(1)
	return float64(stamp(p.dir, 2)-from) / 1e6
}

func (p *pod) remove() {
	ctx := context.Background()
	_, err := p.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id})
	check(err)
	_, err = p.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	check(err)
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == "exec" {
		execs(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	if len(os.Args) != 7 {
		check(fmt.Errorf("usage: barecri SOCKET OUT_DIR host|cni IMAGE COUNT AT_ONCE"))
	}
	out, network, image := os.Args[2], os.Args[3], os.Args[4]
	count, err := strconv.Atoi(os.Args[5])
	check(err)
	atOnce, err := strconv.Atoi(os.Args[6])
	check(err)
	conn, err := grpc.NewClient("unix://"+os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	runtime := cri.NewRuntimeServiceClient(conn)
	if atOnce == 1 {
		for i := range count {
			p, container, start := run(runtime, out, fmt.Sprintf("bare-%d-%d", os.Getpid(), i), network, image)
			fmt.Printf("%.1f %.1f\n", start, p.again(container))
			p.remove()
		}
		return
	}
	var group sync.WaitGroup
	pods, slots, from := make([]*pod, count), make(chan struct{}, atOnce), monotonic()
	last := make([]int64, count)
	for i := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			slots <- struct{}{}
			pods[i], _, _ = run(runtime, out, fmt.Sprintf("bare-%d-%d", os.Getpid(), i), network, image)
			last[i] = stamp(pods[i].dir, 1)
			<-slots
		}()
	}
	group.Wait()
	for i, p := range pods {
		fmt.Printf("%.1f 0\n", float64(last[i]-from)/1e6)
		p.remove()
	}
}
