#!/usr/bin/env bash
# The images that the golden manifests name, as one OCI archive, from Debian's programs and one Go module.
# usage: images.sh OUT.tar      needs go, gcc, umoci, jq, busybox-static, nginx (see golden_tools in tests/lib/golden.sh). Cold 3 minutes (the Go build), then 10 s.
set -eu
out=$(realpath -m "$1"); cd "$(dirname "$0")"; w=$(mktemp -d); trap 'rm -rf "$w"' EXIT; L=$w/oci; e=registry.k8s.io/e2e-test-images
r=$w/base; mkdir -p $r/{bin,sbin,etc,tmp,root,usr/bin,usr/sbin,var/log,proc,sys,dev}; chmod 1777 $r/tmp
cp /bin/busybox $r/bin/; busybox --list | grep -vx busybox | while read a; do ln -s busybox $r/bin/$a; done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >$r/etc/passwd; printf 'root:x:0:\nnogroup:x:65534:\n' >$r/etc/group
n=$w/nginx; mkdir -p $n/etc/nginx $n/usr/sbin $n/usr/share/nginx/html $n/var/log/nginx $n/var/lib/nginx $n/run; cp "$(command -v nginx)" $n/usr/sbin/
ldd $n/usr/sbin/nginx | grep -oE '/[^ )]+' | while read l; do mkdir -p "$n$(dirname $l)"; cp -Ln "$l" "$n$l"; done
echo '<title>Welcome to nginx!</title>' >$n/usr/share/nginx/html/index.html
printf 'user root;\nerror_log stderr;\npid /run/nginx.pid;\nevents {}\nhttp { access_log /var/log/nginx/access.log; server { listen 80; root /usr/share/nginx/html; } }\n' >$n/etc/nginx/nginx.conf
mkdir $w/agn $w/pz; CGO_ENABLED=0 go build -ldflags "-s -w" -o $w/agn/agnhost k8s.io/kubernetes/test/images/agnhost
printf '#include <signal.h>\n#include <sys/wait.h>\n#include <unistd.h>\nstatic void bye(int s){(void)s;_exit(0);}\nstatic void reap(int s){(void)s;while(waitpid(-1,0,WNOHANG)>0);}\nint main(void){signal(SIGINT,bye);signal(SIGTERM,bye);signal(SIGCHLD,reap);for(;;)pause();}\n' >$w/p.c; gcc -Os -static -s -o $w/pz/pause $w/p.c
umoci init --layout $L; umoci new --image $L:empty; as() { umoci config --image $L:$1 --tag $2 --config.label variant=$2 "${@:3}"; }; add() { umoci insert --image $L:$1 "$2" / >/dev/null; }
as empty pause --config.entrypoint /pause; add pause $w/pz
as empty busybox --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --config.cmd sh; add busybox $r
as busybox agn --config.entrypoint /agnhost --config.cmd pause; add agn $w/agn
as busybox nginx --config.entrypoint nginx --config.entrypoint -g --config.entrypoint 'daemon off;'; umoci config --image $L:nginx --clear=config.cmd; add nginx $n
jq --arg e $e 'def n: {agn:"\($e)/agnhost:2.63.0",busybox:"\($e)/busybox:1.37.0-1",pause:"registry.k8s.io/pause:3.10.2",nginx:"\($e)/nginx:1.15-4"}; "org.opencontainers.image.ref.name" as $k
 | .manifests |= [.[] | .annotations[$k] as $t | select(n[$t]) | .annotations[$k]=n[$t]]' $L/index.json >$w/i && mv $w/i $L/index.json
mkdir -p "$(dirname "$out")"; tar -C $L -cf "$out" .; jq -r '.manifests[].annotations[]' $L/index.json
