#!/bin/sh
# Project changed: up.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/changed

# changed-old-1: its service is not in the files
ctr-run stop changed-old-1 >/dev/null
ctr-run delete --force changed-old-1 >/dev/null
ctr-net detach "$project"/changed-old-1
rm -rf "$project"/changed-old-1

# changed-a-1: its configuration changed
ctr-run stop changed-a-1 >/dev/null
ctr-run delete --force changed-a-1 >/dev/null
ctr-net detach "$project"/changed-a-1
rm -rf "$project"/changed-a-1
[ -e "$project"/changed-a-1/config.json ] ||
ctr-fetch unpack --hostname changed-a-1 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 --annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=changed --annotation com.docker.compose.service=a \
	--annotation dev.ctr.compose.image=docker.io/library/busybox:latest docker.io/library/busybox:latest \
	"$project"/changed-a-1 sleep inf
ctr-net attach --hostname changed-a-1 --alias a --alias changed-a-1 "$project"/changed-a-1 changed_default
ctr-run state changed-a-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/changed-a-1 changed-a-1 >/dev/null

# changed-b-1: a service it depends on is started again
ctr-run stop changed-b-1 >/dev/null
ctr-run delete --force changed-b-1 >/dev/null
ctr-run state changed-b-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/changed-b-1 changed-b-1 >/dev/null

# changed-b-2: there are more than the files want
ctr-run stop changed-b-2 >/dev/null
ctr-run delete --force changed-b-2 >/dev/null
ctr-net detach "$project"/changed-b-2
rm -rf "$project"/changed-b-2

# changed-c-1: is not running
ctr-run delete --force changed-c-1 >/dev/null
ctr-run state changed-c-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/changed-c-1 changed-c-1 >/dev/null

# changed-c-2: is not running
ctr-net attach --hostname changed-c-2 --alias c --alias changed-c-2 "$project"/changed-c-2 changed_default
ctr-run state changed-c-2 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/changed-c-2 changed-c-2 >/dev/null
