"""A control plane of Kubernetes in one folder: etcd and an API server on loopback, controllers and a scheduler if wanted, all stopped by their pids.

    with ControlPlane("/tmp/x", nodes=["node-a"]) as plane:   # everything in /tmp/x; admin.conf, node-a.conf and bootstrap.conf are kubeconfigs
        plane.request("GET", "/api/v1/nodes")
"""
import http.client, ctypes, json, os, random, shlex, signal, socket, ssl, subprocess, sys, time, urllib.error, urllib.request

sys.dont_write_bytecode = True
LIB = os.path.dirname(os.path.realpath(__file__))
ADMIN, BOOTSTRAP = "admin-token", "bootstrap-token"
SERVICES = "10.96.0.0/16"
PARTS = ("etcd", "apiserver", "controllers", "scheduler")
# What kubeadm lets nodes ask for, and has signed by itself.
BINDINGS = [("rubelet:node-bootstrapper", "system:node-bootstrapper", "system:bootstrappers"),
            ("rubelet:approve-clients", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", "system:bootstrappers"),
            ("rubelet:approve-renewals", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "system:nodes")]
KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority: "{work}/ca.crt"}}}}]
users: [{{name: u, user: {{token: {token}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""
AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, userGroups: ["system:nodes", "system:bootstrappers"], verbs: [create, update, patch, delete]}
- {level: Metadata, userGroups: ["system:nodes", "system:bootstrappers"]}
- {level: None}
"""


def programs():
    """Where the programs are, as {name: command}; builds and fetches what is missing. Fails with what is missing."""
    script = f'cd {shlex.quote(LIB)}/../.. && set -euo pipefail && for f in debian forky golden controlplane; do . "tests/lib/$f.sh"; done && controlplane_programs'
    done = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
    if done.returncode: raise RuntimeError("the programs of the control plane are not to be had")
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    return {name: [found[name]] if name in found else [found["controlplane"], name] for name in ("etcd", "etcd-forky", "kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
            if name in found or "controlplane" in found and name.startswith("kube") and name != "kubectl"}


def upstream_kubelet(programs):
    """Upstream's kubelet: of the control plane's program, else built for itself."""
    if "kubelet" in programs: return programs["kubelet"]
    done = subprocess.run(["bash", "-c", f'cd {shlex.quote(LIB)}/../.. && . tests/lib/debian.sh && . tests/lib/forky.sh && . tests/lib/golden.sh && reference_kubelet'], stdout=subprocess.PIPE, text=True)
    if done.returncode: raise RuntimeError("upstream's kubelet is not to be had")
    return [done.stdout.strip()]


def minor(programs):
    """The minor version of Kubernetes that the API server is of."""
    said = subprocess.run([*programs["kube-apiserver"], "--version"], capture_output=True, text=True).stdout
    return int(said.split(".")[1])


def free_ports(n):
    """Ports below those that the kernel gives to clients: a part must find its own free when it comes back."""
    found = []
    for port in random.sample(range(16000, 32000), 16000):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try: s.bind(("127.0.0.1", port))
            except OSError: continue
        found.append(port)
        if len(found) == n: return found
    raise RuntimeError("there are no free ports")


def started_at(pid):
    """When a process was started, so that its pid is not mistaken for another's; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f: fields = f.read().rsplit(")", 1)[1].split()
    except OSError: return None
    # Its first thread may be a zombie while others still hold its port.
    return None if fields[0] == "Z" and int(fields[17]) <= 1 else int(fields[19])


def wait(what, seconds, every=0.1):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := what()): return found
        time.sleep(every)
    return what()


class ControlPlane:
    """State is kept in `work`/state.json, so that another process can stop it."""
    def __init__(self, work, nodes=("node-a",), controllers=False, scheduler=False, etcd="etcd", audit=False, flags=None, dies_with_us=True):
        self.work, self.nodes, self.etcd, self.audit, self.flags, self.dies_with_us = os.path.abspath(work), list(nodes), etcd, audit, flags or {}, dies_with_us
        self.parts = ["etcd", "apiserver"] + ["controllers"] * controllers + ["scheduler"] * scheduler
        self.programs, self.ports, self.pids = None, None, {}

    @classmethod
    def of(cls, work):
        """The one that runs in a folder."""
        plane = cls(work)
        with open(f"{plane.work}/state.json") as f: plane.__dict__.update(json.load(f))
        return plane

    def __enter__(self): self.up(); return self
    def __exit__(self, *_): self.down()

    def save(self):
        with open(f"{self.work}/state.json.new", "w") as f: json.dump({k: v for k, v in self.__dict__.items() if k != "context"}, f, indent=1)
        os.rename(f"{self.work}/state.json.new", f"{self.work}/state.json")

    def up(self):
        os.makedirs(f"{self.work}/log", exist_ok=True); os.chmod(self.work, 0o755)
        if os.path.exists(f"{self.work}/state.json"): raise RuntimeError(f"{self.work} has a control plane already; `down` it first")
        self.programs = programs()
        if self.etcd not in self.programs: raise RuntimeError(f"there is no {self.etcd}")
        missing = [p for p in ("kube-apiserver", "kube-controller-manager", "kube-scheduler") if p not in self.programs and {"kube-apiserver": "apiserver", "kube-controller-manager": "controllers", "kube-scheduler": "scheduler"}[p] in self.parts]
        if missing: raise RuntimeError(f"there is no {', '.join(missing)}")
        self.ports = dict(zip(("etcd", "peer", "apiserver", "controllers", "scheduler"), free_ports(5)))
        self.write_files()
        try:
            for part in self.parts: self.start(part)
            if "controllers" in self.parts:
                for name, role, group in BINDINGS: self.bind(name, role, group)
                if not wait(lambda: self.request("GET", "/api/v1/namespaces/default/serviceaccounts/default", fails=True)[0] == 200, 60): raise RuntimeError(f"no default service account; see {self.work}/log/controllers.log")
        except BaseException: self.down(); raise

    def write(self, name, text, mode=0o600):
        with open(os.open(f"{self.work}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as f: f.write(text)

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.work, capture_output=True, text=True)
        if done.returncode: raise RuntimeError(f"openssl {' '.join(arguments)}: {done.stderr}")

    def certificate(self, name, subject, extensions="basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth", days=365):
        """`name`.crt and `name`.key, signed by the cluster's authority."""
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        self.write(f"{name}.ext", f"keyUsage=critical,digitalSignature\n{extensions}\n")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.crt")
        for end in ("csr", "ext"): os.unlink(f"{self.work}/{name}.{end}")

    def write_files(self):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=kubernetes",
                     "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")
        names = ["DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc", "DNS:kubernetes.default.svc.cluster.local", "IP:127.0.0.1", "IP:10.96.0.1"]
        self.certificate("apiserver", "/CN=kube-apiserver", f"extendedKeyUsage=serverAuth\nsubjectAltName={','.join(names)}")
        self.certificate("apiserver-kubelet-client", "/O=kubeadm:cluster-admins/O=system:masters/CN=kube-apiserver-kubelet-client")
        self.openssl("genrsa", "-out", "sa.key", "2048")
        tokens = [(ADMIN, "admin", "system:masters"), (BOOTSTRAP, "kubelet-bootstrap", "system:bootstrappers")] + [(f"token-of-{n}", f"system:node:{n}", "system:nodes") for n in self.nodes]
        self.write("tokens.csv", "".join(f'{token},{user},{user},"{group}"\n' for token, user, group in tokens))
        self.write("audit.yaml", AUDIT)
        for name, token in [("admin", ADMIN), ("bootstrap", BOOTSTRAP)] + [(n, f"token-of-{n}") for n in self.nodes]:
            self.write(f"{name}.conf", KUBECONFIG.format(port=self.ports["apiserver"], work=self.work, token=token))

    def command(self, part):
        w, p = self.work, self.ports
        etcd = f"http://127.0.0.1:{p['etcd']}"
        if part == "etcd":
            return self.programs[self.etcd] + ["--data-dir", f"{w}/etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", f"http://127.0.0.1:{p['peer']}", "--unsafe-no-fsync=true"]
        if part == "apiserver":
            return self.programs["kube-apiserver"] + [
                f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={p['apiserver']}", f"--tls-cert-file={w}/apiserver.crt", f"--tls-private-key-file={w}/apiserver.key", f"--cert-dir={w}/certs",
                f"--client-ca-file={w}/ca.crt", f"--token-auth-file={w}/tokens.csv", "--enable-bootstrap-token-auth=true", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
                f"--kubelet-client-certificate={w}/apiserver-kubelet-client.crt", f"--kubelet-client-key={w}/apiserver-kubelet-client.key", "--kubelet-preferred-address-types=InternalIP,Hostname",
                "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={w}/sa.key", f"--service-account-signing-key-file={w}/sa.key", f"--service-cluster-ip-range={SERVICES}", "--endpoint-reconciler-type=none",
                # Without controllers nobody makes service accounts.
                *([] if "controllers" in self.parts else ["--disable-admission-plugins=ServiceAccount"]),
                *([f"--audit-policy-file={w}/audit.yaml", f"--audit-log-path={w}/audit.jsonl", "--audit-log-mode=blocking"] if self.audit else [])]
        own = [f"--kubeconfig={w}/admin.conf", f"--authentication-kubeconfig={w}/admin.conf", f"--authorization-kubeconfig={w}/admin.conf", "--leader-elect=false", "--bind-address=127.0.0.1", f"--secure-port={p[part]}", f"--cert-dir={w}/certs"]
        if part == "controllers":
            return self.programs["kube-controller-manager"] + own + [f"--service-account-private-key-file={w}/sa.key", f"--root-ca-file={w}/ca.crt", f"--cluster-signing-cert-file={w}/ca.crt", f"--cluster-signing-key-file={w}/ca.key", "--use-service-account-credentials=false"]
        return self.programs["kube-scheduler"] + own

    def start(self, part):
        """Starts a part and waits until it is ready."""
        if self.is_running(part): return
        libc = ctypes.CDLL(None) if self.dies_with_us else None
        with open(f"{self.work}/log/{part}.log", "ab") as log:
            # PR_SET_PDEATHSIG: whatever becomes of us.
            process = subprocess.Popen(self.command(part) + self.flags.get(part, []), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.work,
                                       preexec_fn=(lambda: libc.prctl(1, signal.SIGKILL)) if libc else None)
        self.pids[part] = (process.pid, started_at(process.pid)); self.save()
        ready = {"etcd": self.etcd_is_ready, "apiserver": lambda: self.request("GET", "/readyz", fails=True)[0] == 200}.get(part, lambda: True)
        if not wait(lambda: process.poll() is not None or ready(), 60) or process.poll() is not None:
            with open(f"{self.work}/log/{part}.log") as log: end = "".join(log.readlines()[-5:])
            raise RuntimeError(f"{part} does not get ready; see {self.work}/log/{part}.log:\n{end}")

    def etcd_is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['etcd']}/health", timeout=2) as r: return b"true" in r.read()
        except OSError: return False

    def is_running(self, part):
        pid, at = self.pids.get(part, (0, None))
        return pid > 0 and at is not None and started_at(pid) == at

    def stop(self, part, how=signal.SIGTERM):
        """Stops a part; after 15 s the hard way."""
        if not self.is_running(part): self.pids.pop(part, None); return
        pid = self.pids[part][0]
        for signum in (how, signal.SIGKILL):
            try: os.kill(pid, signum)
            except ProcessLookupError: pass
            if wait(lambda: self.reaped(pid, part), 15, 0.05): break
        self.pids.pop(part, None)

    def reaped(self, pid, part):
        try: os.waitpid(pid, os.WNOHANG)
        except ChildProcessError: pass
        return not self.is_running(part)

    def down(self):
        """Stops everything; the API server before etcd, without which it does not end."""
        for part in reversed(PARTS): self.stop(part)
        if os.path.exists(f"{self.work}/state.json"): os.unlink(f"{self.work}/state.json")

    def request(self, method, path, body=None, token=ADMIN, fails=False, content_type="application/json"):
        """Status and answer (decoded); raises unless it succeeds or may fail. Status 0: no answer."""
        context = ssl.create_default_context(cafile=f"{self.work}/ca.crt")
        request = urllib.request.Request(f"https://127.0.0.1:{self.ports['apiserver']}{path}", method=method, data=None if body is None else json.dumps(body).encode(), headers={"Authorization": f"Bearer {token}", "Content-Type": content_type})
        # A server that is killed meanwhile leaves half an answer: it is none.
        try:
            try:
                with urllib.request.urlopen(request, timeout=30, context=context) as r: code, text = r.status, r.read().decode()
            except urllib.error.HTTPError as e: code, text = e.code, e.read().decode()
        except (OSError, http.client.HTTPException) as e: code, text = 0, str(e)
        if not 200 <= code < 300 and not fails: raise RuntimeError(f"{method} {path}: {code} {text[:500]}")
        try: return code, json.loads(text)
        except ValueError: return code, text

    def bind(self, name, role, group):
        binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                   "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]}
        code, text = self.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding, fails=True)
        if code not in (201, 409): raise RuntimeError(f"bind {group} to {role}: {code} {text}")

    def kubectl(self, *arguments, stdin=None):
        return subprocess.run(self.programs["kubectl"] + ["--kubeconfig", f"{self.work}/admin.conf", *arguments], input=stdin, capture_output=True, text=True)
