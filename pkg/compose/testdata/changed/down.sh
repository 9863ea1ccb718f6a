#!/bin/sh
# Project changed: down.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/changed

# changed-half-1
rm -rf "$project"/changed-half-1

# changed-c-run-0a1b
ctr-run delete --force changed-c-run-0a1b >/dev/null
ctr-net detach "$project"/changed-c-run-0a1b
rm -rf "$project"/changed-c-run-0a1b

# changed-c-1
ctr-run delete --force changed-c-1 >/dev/null
ctr-net detach "$project"/changed-c-1
rm -rf "$project"/changed-c-1

# changed-c-2
ctr-net detach "$project"/changed-c-2
rm -rf "$project"/changed-c-2

# changed-b-1
ctr-run stop changed-b-1 >/dev/null
ctr-run delete --force changed-b-1 >/dev/null
ctr-net detach "$project"/changed-b-1
rm -rf "$project"/changed-b-1

# changed-b-2
ctr-run stop changed-b-2 >/dev/null
ctr-run delete --force changed-b-2 >/dev/null
ctr-net detach "$project"/changed-b-2
rm -rf "$project"/changed-b-2

# changed-a-1
ctr-run stop changed-a-1 >/dev/null
ctr-run delete --force changed-a-1 >/dev/null
ctr-net detach "$project"/changed-a-1
rm -rf "$project"/changed-a-1
