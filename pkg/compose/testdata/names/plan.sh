#!/bin/sh
# Project names: up.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/names

# network names_default
ctr-net create --label com.docker.compose.network=default --label com.docker.compose.project=names \
	names_default >/dev/null

# image docker.io/library/busybox:latest
ctr-fetch docker.io/library/busybox:latest >/dev/null

# names-Web.Two_x-1: is not there
[ -e "$project"/names-Web.Two_x-1/config.json ] ||
ctr-fetch unpack --entrypoint '[]' --hostname names-Web.Two_x-1 \
	--annotation com.docker.compose.config-hash=HASH --annotation com.docker.compose.container-number=1 \
	--annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=names --annotation com.docker.compose.service=Web.Two_x \
	--annotation dev.ctr.compose.image=docker.io/library/busybox:latest docker.io/library/busybox:latest \
	"$project"/names-Web.Two_x-1
ctr-net attach --hostname names-Web.Two_x-1 --alias Web.Two_x --alias names-Web.Two_x-1 \
	"$project"/names-Web.Two_x-1 names_default
ctr-run state names-Web.Two_x-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/names-Web.Two_x-1 names-Web.Two_x-1 >/dev/null

# names-web-1: is not there
[ -e "$project"/names-web-1/config.json ] ||
ctr-fetch unpack --env A.B=-n --env EMPTY= --env 'Q=it'\''s' --hostname names-web-1 --annotation 'l=a
b' \
	--annotation com.docker.compose.config-hash=HASH --annotation com.docker.compose.container-number=1 \
	--annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=names --annotation com.docker.compose.service=web \
	--annotation dev.ctr.compose.image=docker.io/library/busybox:latest --patch - \
	docker.io/library/busybox:latest "$project"/names-web-1 sh -c \
	'echo '\''$HOME'\'' "`id`" \ ; # no
comment' <<'EOF'
{
  "linux": {
    "sysctl": {"net.core.somaxconn":"EOF"}
  }
}
EOF
mkdir -p '/src/a dir/$x'
ctr-vol attach "$project"/names-web-1 '/src/a dir/$x:/a dir'
ctr-net attach --hostname names-web-1 --alias web --alias names-web-1 "$project"/names-web-1 names_default
ctr-run state names-web-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/names-web-1 names-web-1 >/dev/null
