#!/bin/sh
# usage: alone.sh COMMAND...: runs it in a mount and a network namespace of its own, with nothing but a loopback.
exec unshare -m -n sh -c 'ip link set lo up; exec "$@"' sh "$@"
