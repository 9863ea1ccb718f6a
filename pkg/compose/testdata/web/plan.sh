#!/bin/sh
# Project web: up.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/web

# network web_default
ctr-net create --label com.docker.compose.network=default --label com.docker.compose.project=web web_default >/dev/null

# volume web_data
ctr-vol create --label com.docker.compose.project=web --label com.docker.compose.volume=data web_data >/dev/null

# image docker.io/library/postgres:16
ctr-fetch docker.io/library/postgres:16 >/dev/null

# web-db-1: is not there
[ -e "$project"/web-db-1/config.json ] ||
ctr-fetch unpack --env 'POSTGRES_PASSWORD=it'\''s secret' --hostname web-db-1 \
	--annotation com.docker.compose.config-hash=HASH --annotation com.docker.compose.container-number=1 \
	--annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src --annotation com.docker.compose.project=web \
	--annotation com.docker.compose.service=db \
	--annotation dev.ctr.compose.image=docker.io/library/postgres:16 docker.io/library/postgres:16 \
	"$project"/web-db-1
ctr-vol attach "$project"/web-db-1 web_data:/var/lib/postgresql/data
ctr-net attach --hostname web-db-1 --alias db --alias web-db-1 "$project"/web-db-1 web_default
ctr-run state web-db-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart unless-stopped --health-cmd '["CMD","pg_isready","-U","postgres"]' \
	--health-interval 2s --health-retries 5 --bundle "$project"/web-db-1 web-db-1 >/dev/null

# image example.com/app:1
ctr-fetch example.com/app:1 >/dev/null

# web-migrate-1: is not there
[ -e "$project"/web-migrate-1/config.json ] ||
ctr-fetch unpack --hostname web-migrate-1 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 \
	--annotation com.docker.compose.depends_on=db:service_healthy:false \
	--annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src --annotation com.docker.compose.project=web \
	--annotation com.docker.compose.service=migrate --annotation dev.ctr.compose.image=example.com/app:1 \
	example.com/app:1 "$project"/web-migrate-1 ./migrate --to 'latest version'
ctr-net attach --hostname web-migrate-1 --alias migrate --alias web-migrate-1 "$project"/web-migrate-1 \
	web_default

# web-db-1
ctr-run wait --condition healthy web-db-1 >/dev/null

# web-migrate-1
ctr-run state web-migrate-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/web-migrate-1 web-migrate-1 >/dev/null

# web-web-1: is not there
[ -e "$project"/web-web-1/config.json ] ||
ctr-fetch unpack --hostname web-web-1 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 \
	--annotation com.docker.compose.depends_on=db:service_healthy:false,migrate:service_completed_successfully:false \
	--annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src --annotation com.docker.compose.project=web \
	--annotation com.docker.compose.service=web --annotation dev.ctr.compose.image=example.com/app:1 \
	--annotation 'dev.ctr.compose.publish=["8080:80","127.0.0.1:8443:443"]' example.com/app:1 \
	"$project"/web-web-1
ctr-net attach --hostname web-web-1 --alias web --alias web-web-1 --publish 8080:80 \
	--publish 127.0.0.1:8443:443 "$project"/web-web-1 web_default

# web-migrate-1
got=$(ctr-run wait web-migrate-1)
[ "$got" = 0 ] || { echo web-migrate-1" exited with status $got" >&2; exit 1; }

# web-web-1
ctr-run state web-web-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/web-web-1 web-web-1 >/dev/null
