#!/bin/bash
# The suite asks systemd to stop and start the kubelet; here this stands in for it. Under the name `kubelet` it is what the suite starts, under
# `systemctl` and `sudo` what it calls. UNIT: a folder of its own; KUBELET: the program, which may have words of its own before the suite's.
set -u
alive() { [ -s "$UNIT/pid" ] && kill -0 "$(cat "$UNIT/pid")" 2>/dev/null; }
end() {
  alive || return 0
  local pid
  pid=$(cat "$UNIT/pid")
  kill -TERM "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep .05; done
}
case "$(basename "$0")" in
  sudo) exec "$@" ;;
  kubelet)
    trap 'echo stopped >"$UNIT/wish"; end; exit 0' TERM INT
    echo start >"$UNIT/wish"
    while :; do
      while [ "$(cat "$UNIT/wish")" != start ]; do sleep .1 & wait $!; done
      echo started >"$UNIT/wish"
      $KUBELET "$@" &
      echo $! >"$UNIT/pid"
      wait $!
    done
    ;;
  systemctl)
    case "$1" in
      list-units) [[ $* == *--state=running* ]] && ! alive || echo "kubelet-conformance.service loaded active running" ;;
      kill | stop) echo stopped >"$UNIT/wish"; end ;;
      restart | start)
        end
        echo start >"$UNIT/wish"
        while [ "$(cat "$UNIT/wish")" != started ] || ! alive; do sleep .05; done
        ;;
      reset-failed) ;;
      *) echo "systemctl $*: not known here" >&2; exit 1 ;;
    esac
    ;;
esac
