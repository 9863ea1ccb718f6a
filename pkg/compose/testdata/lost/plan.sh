#!/bin/sh
# Project lost: up.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/lost

# lost-web-1: its supervisor was killed
ctr-run stop lost-web-1 >/dev/null
ctr-run delete --force lost-web-1 >/dev/null
ctr-run state lost-web-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/lost-web-1 lost-web-1 >/dev/null
