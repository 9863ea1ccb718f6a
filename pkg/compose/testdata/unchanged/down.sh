#!/bin/sh
# Project unchanged: down.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/unchanged

# unchanged-c-1
ctr-run stop unchanged-c-1 >/dev/null
ctr-run delete --force unchanged-c-1 >/dev/null
ctr-net detach "$project"/unchanged-c-1
rm -rf "$project"/unchanged-c-1

# unchanged-c-2
ctr-run stop unchanged-c-2 >/dev/null
ctr-run delete --force unchanged-c-2 >/dev/null
ctr-net detach "$project"/unchanged-c-2
rm -rf "$project"/unchanged-c-2

# unchanged-b-1
ctr-run stop unchanged-b-1 >/dev/null
ctr-run delete --force unchanged-b-1 >/dev/null
ctr-net detach "$project"/unchanged-b-1
rm -rf "$project"/unchanged-b-1

# unchanged-a-1
ctr-run stop unchanged-a-1 >/dev/null
ctr-run delete --force unchanged-a-1 >/dev/null
ctr-net detach "$project"/unchanged-a-1
rm -rf "$project"/unchanged-a-1

# network unchanged_default
ctr-net rm --force unchanged_default >/dev/null

# project unchanged
rmdir "$project"
