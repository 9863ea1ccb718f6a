#!/bin/sh
# Project builds: up.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/builds

# network builds_default
ctr-net create --label com.docker.compose.network=default --label com.docker.compose.project=builds \
	builds_default >/dev/null

# image docker.io/library/builds-app:latest
ctr-build --tag docker.io/library/builds-app:latest --tag registry.example/app:1 \
	--file /src/app/docker/Dockerfile --target final --build-arg 'VERSION=1.2 beta' /src/app >/dev/null

# builds-app-1: is not there
[ -e "$project"/builds-app-1/config.json ] ||
ctr-fetch unpack --hostname builds-app-1 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 --annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=builds --annotation com.docker.compose.service=app \
	--annotation dev.ctr.compose.image=docker.io/library/builds-app:latest \
	docker.io/library/builds-app:latest "$project"/builds-app-1
ctr-net attach --hostname builds-app-1 --alias app --alias builds-app-1 "$project"/builds-app-1 \
	builds_default
ctr-run state builds-app-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/builds-app-1 builds-app-1 >/dev/null

# image registry.example/tool:latest
ctr-build --tag registry.example/tool:latest --file - /src >/dev/null <<'EOF'
FROM scratch
COPY tool /
EOF

# builds-tool-1: is not there
[ -e "$project"/builds-tool-1/config.json ] ||
ctr-fetch unpack --hostname builds-tool-1 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 --annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=builds --annotation com.docker.compose.service=tool \
	--annotation dev.ctr.compose.image=registry.example/tool:latest registry.example/tool:latest \
	"$project"/builds-tool-1
ctr-net attach --hostname builds-tool-1 --alias tool --alias builds-tool-1 "$project"/builds-tool-1 \
	builds_default
ctr-run state builds-tool-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/builds-tool-1 builds-tool-1 >/dev/null

# builds-twin-1: is not there
[ -e "$project"/builds-twin-1/config.json ] ||
ctr-fetch unpack --hostname builds-twin-1 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 --annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=builds --annotation com.docker.compose.service=twin \
	--annotation dev.ctr.compose.image=registry.example/tool:latest registry.example/tool:latest \
	"$project"/builds-twin-1
ctr-net attach --hostname builds-twin-1 --alias twin --alias builds-twin-1 "$project"/builds-twin-1 \
	builds_default
ctr-run state builds-twin-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/builds-twin-1 builds-twin-1 >/dev/null
