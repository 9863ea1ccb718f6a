#!/bin/sh
# Project lost: down.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/lost

# lost-web-1
ctr-run stop lost-web-1 >/dev/null
ctr-run delete --force lost-web-1 >/dev/null
ctr-net detach "$project"/lost-web-1
rm -rf "$project"/lost-web-1

# network lost_default
ctr-net rm --force lost_default >/dev/null

# project lost
rmdir "$project"
