"""Signers of pods' certificates, played by a thread: each answers requests of its name in its own way."""
import base64, datetime, os, subprocess, threading

CONFIG = """[ca]
default_ca = own
[own]
dir = {dir}
database = {dir}/index.txt
new_certs_dir = {dir}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = none
x509_extensions = leaf
certificate = {dir}/ca.crt
private_key = {dir}/ca.key
[any]
commonName = optional
[leaf]
basicConstraints = critical,CA:FALSE
subjectAltName = URI:spiffe://test/pod
"""
ISSUES, DENIES, FAILS = "example.com/issues", "example.com/denies", "example.com/fails"


class Signers:
    """Answers in one namespace until it is left. `age`: how long ago certificates began to be valid."""

    def __init__(self, c, namespace, age=datetime.timedelta()):
        group = "/apis/certificates.k8s.io"
        self.version = next(v for v in ("v1", "v1beta1") if any(r["name"] == "podcertificaterequests" for r in (c.get(f"{group}/{v}") or {"resources": []})["resources"]))
        self.c, self.path, self.age, self.dir, self.issued, self.problems = c, f"{group}/{self.version}/namespaces/{namespace}/podcertificaterequests", age, f"{c.plane.work}/signer-{namespace}", {}, []
        os.makedirs(self.dir); open(f"{self.dir}/index.txt", "w").close(); open(f"{self.dir}/conf", "w").write(CONFIG.format(dir=self.dir))
        c.plane.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{self.dir}/ca.key", "-out", f"{self.dir}/ca.crt", "-days", "30", "-subj", "/CN=signer", "-addext", "basicConstraints=critical,CA:TRUE")

    def __enter__(self):
        self.ended = threading.Event(); self.thread = threading.Thread(target=self.run, daemon=True); self.thread.start()
        return self

    def __exit__(self, *_): self.ended.set(); self.thread.join()

    def requests(self): return (self.c.get(self.path) or {"items": []})["items"]

    def run(self):
        while not self.ended.wait(.3):
            for request in self.requests():
                if request.get("status", {}).get("conditions"): continue
                try: self.answer(request)
                except Exception as problem: self.problems.append(str(problem))

    def answer(self, request):
        name, signer = request["metadata"]["name"], request["spec"]["signerName"]
        condition = {ISSUES: ("Issued", "Fine", "signed"), DENIES: ("Denied", "UnsupportedKeyType", "only \"stone\""), FAILS: ("Failed", "Broken", "no ink")}.get(signer)
        if not condition: return
        type_, reason, message = condition; now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        shown = lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"); status = {"conditions": [{"type": type_, "status": "True", "reason": reason, "message": message, "lastTransitionTime": shown(now)}]}
        if type_ == "Issued":
            began, ends = now - self.age, now - self.age + datetime.timedelta(hours=2); chain = self.sign(name, base64.b64decode(request["spec"]["stubPKCS10Request"]), began, ends)
            status.update(certificateChain="", notBefore=shown(began), beginRefreshAt=shown(began + datetime.timedelta(minutes=10)), notAfter=shown(ends)); status["certificateChain"] = chain
            self.issued[name] = chain
        code, answer = self.c.request("PATCH", f"{self.path}/{name}/status", {"status": status}, content_type="application/merge-patch+json", fails=True)
        if code != 200: self.problems.append(f"{name}: {code} {answer}")

    def sign(self, name, request, began, ends):
        """The certificate, and the authority's beside it."""
        file = f"{self.dir}/{name}"; open(f"{file}.der", "wb").write(request); day = lambda at: at.strftime("%y%m%d%H%M%SZ")
        self.c.plane.openssl("req", "-inform", "DER", "-in", f"{file}.der", "-verify", "-out", f"{file}.csr")
        self.c.plane.openssl("ca", "-batch", "-config", f"{self.dir}/conf", "-subj", "/CN=pod", "-in", f"{file}.csr", "-startdate", day(began), "-enddate", day(ends), "-notext", "-out", f"{file}.crt")
        return open(f"{file}.crt").read() + open(f"{self.dir}/ca.crt").read()


def public(pem, *words):
    """The public key of a certificate or key."""
    done = subprocess.run(["openssl", *words], input=pem, capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f"openssl {' '.join(words)}: {done.stderr}")
    return done.stdout


def of_key(pem): return public(pem, "pkey", "-pubout")
def of_certificate(pem): return public(pem, "x509", "-noout", "-pubkey")
