"""kubectl top, by metrics-server behind the API server: it scrapes the node with a token that the API server knows."""
import re, subprocess

import controlplane
from clients import Kubectl
from controlplane import free_ports, wait
from node import NAME

GROUP, SCRAPE_SECS = "metrics.k8s.io", 10
HEADERS = ["--requestheader-allowed-names=front-proxy", "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-"]


class ControlPlane(controlplane.ControlPlane):
    """One that passes on what it is asked of other API servers, and says for whom."""
    def __init__(self, work, **more):
        files = [f"--requestheader-client-ca-file={work}/ca.crt", f"--proxy-client-cert-file={work}/front-proxy.crt", f"--proxy-client-key-file={work}/front-proxy.key"]
        super().__init__(work, flags={"apiserver": HEADERS + files}, **more)

    def write_files(self): super().write_files(); self.certificate("front-proxy", "/CN=front-proxy")


class Scraper:
    def __init__(self, plane, binary):
        (port,) = free_ports(1); conf = f"{plane.work}/admin.conf"; self.log = open(f"{plane.work}/log/scraper.log", "ab")
        self.process = subprocess.Popen([binary, "--kubeconfig", conf, "--authentication-kubeconfig", conf, "--authorization-kubeconfig", conf, "--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={plane.work}/certs-scraper",
                                         "--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP", f"--metric-resolution={SCRAPE_SECS}s", "--kubelet-request-timeout=5s"], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        # Where the API server finds it: a name, not a cluster's address.
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "scraper"}, "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}}
        api = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"v1beta1.{GROUP}"},
               "spec": {"group": GROUP, "version": "v1beta1", "insecureSkipTLSVerify": True, "groupPriorityMinimum": 100, "versionPriority": 100, "service": {"namespace": "default", "name": "scraper", "port": port}}}
        self.plane = plane; self.paths = {"/api/v1/namespaces/default/services": service, "/apis/apiregistration.k8s.io/v1/apiservices": api}
        for path, item in self.paths.items(): plane.request("POST", path, item)

    def __enter__(self): return self
    def __exit__(self, *_):
        for path, item in self.paths.items(): self.plane.request("DELETE", f"{path}/{item['metadata']['name']}", fails=True)
        self.process.kill(); self.process.wait(); self.log.close()


def all_checks(plane, binary, check):
    kubectl = Kubectl(plane, "websocket")
    with Scraper(plane, binary):
        # A rate needs two looks.
        nodes = wait(lambda: (found := kubectl("top", "nodes", "--no-headers")) and found[0] == 0 and found, 90, 2) or kubectl("top", "nodes")
        check("top: the node", nodes[0] == 0 and re.match(rb"%s +\d+m? .*\d+Mi" % NAME.encode(), nodes[1]), nodes)
        pods = wait(lambda: (found := kubectl("top", "pods", "--no-headers", "--containers")) and found[0] == 0 and found[1].count(b"\n") >= 5 and found, 60, 2) or kubectl("top", "pods", "--containers")
        check("top: its containers", pods[0] == 0 and re.search(rb"(?m)^shell-%s +shell +\d+m +\d+Mi" % NAME.encode(), pods[1]), pods)
