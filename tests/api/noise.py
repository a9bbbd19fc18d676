"""What a broken pod makes the agent write: no more with each restart, so that it does not fill the disk."""
import time

from controlplane import wait
from node import NAME, Node, sh

PERIOD_SECS, RESTARTS = 1, 12
# Of one restart, once the first few are told: a line now and then that so many were left out.
BYTES_MAX = 400

CONTAINERS = {"broken": sh("echo it breaks; exit 1"), "nowhere": {"image": "localhost/rubelet/nosuch:1"}}


class Noisy(Node):
    """A node where what ends is started again after a second."""
    def config(self): return super().config() | {"crashLoopBackOff": {"maxContainerRestartPeriod": f"{PERIOD_SECS}s"}, "featureGates": {"KubeletCrashLoopBackOffMax": True}}
    def started(self): return {f"{name}-{NAME}" for name in CONTAINERS} if self.restarts() else set()
    def register(self): self.register_node()

    def restarts(self):
        try: return sum(status["restartCount"] for pod in self.machine.pods() for status in pod["status"].get("containerStatuses", []))
        except (OSError, TypeError): return 0

    def log(self):
        with open(f"{self.machine.work}/log/kubelet.log", "rb") as f: return f.read()


def all_checks(kubelet, kind, plane, check):
    with Noisy(kind, kubelet, plane, CONTAINERS) as node:
        has_begun = wait(lambda: node.restarts() >= RESTARTS, 60); first, told = node.restarts(), len(node.log())
        has_gone_on = wait(lambda: node.restarts() >= first + RESTARTS, 60); more, text = node.restarts() - first, node.log()[told:]
        check(f"noise: a container that breaks is started {RESTARTS} times, and as often again", has_begun and has_gone_on, (first, more))
        check("noise: that it breaks is told", b"broken" in node.log()[:told] and b"nosuch" in node.log()[:told], node.log_end())
        check(f"noise: the log gets at most {BYTES_MAX} bytes of each later restart: {len(text) / max(more, 1):.0f}", more and len(text) <= more * BYTES_MAX, text.decode(errors="replace")[-2000:])
