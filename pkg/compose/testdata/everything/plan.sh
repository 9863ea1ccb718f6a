#!/bin/sh
# Project everything: up.
set -eu
export CTR_ROOT=/var/lib/ctr CTR_RUN=/run/ctr
project=$CTR_ROOT/projects/everything

# network everything_front
ctr-net create --subnet 10.89.7.0/24 --gateway 10.89.7.1 --internal --label com.docker.compose.network=front \
	--label com.docker.compose.project=everything everything_front >/dev/null

# network own-name
ctr-net create --label com.docker.compose.network=back --label com.docker.compose.project=everything \
	--label tier=back own-name >/dev/null

# volume everything_data
ctr-vol create --label com.docker.compose.project=everything --label com.docker.compose.volume=data \
	everything_data >/dev/null

# volume the-one_fd1bd2f82adc
ctr-vol create --label com.docker.compose.project=everything --label com.docker.compose.service=one \
	--label com.docker.volume.anonymous= the-one_fd1bd2f82adc >/dev/null

# the-one: is not there
[ -e "$project"/the-one/config.json ] ||
ctr-fetch unpack --platform linux/amd64 --env A=1 --env 'B=two words' --env 'C=line
break' \
	--env 'D=from file' --entrypoint '["/bin/sh","-c"]' --user 1000:1000 --workdir /srv \
	--hostname one.example --annotation 'com.example.note=a b' --annotation com.example.team=core \
	--terminal --read-only --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 --annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=everything --annotation com.docker.compose.service=one \
	--annotation dev.ctr.compose.image=docker.io/library/busybox:latest \
	--annotation 'dev.ctr.compose.publish=["80","9000:9000/udp","9001:9001/udp","[::1]:8443:443"]' \
	--patch - docker.io/library/busybox:latest "$project"/the-one echo 'hello world' '$HOME' <<'EOF'
{
  "domainname": "example.com",
  "linux": {
    "resources": {"cpu":{"cpus":"0","period":100000,"quota":50000,"shares":512},"memory":{"limit":67108864,"reservation":33554432,"swap":134217728},"pids":{"limit":100}},
    "seccomp": "PROFILE",
    "sysctl": {"net.core.somaxconn":"1024"}
  },
  "mounts": [{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=33554432"]},{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]}],
  "process": {
    "capabilities": {"bounding":["CAP_SYS_PTRACE"],"effective":["CAP_SYS_PTRACE"],"permitted":["CAP_SYS_PTRACE"]},
    "noNewPrivileges": true,
    "oomScoreAdj": 500,
    "rlimits": [{"type":"RLIMIT_NOFILE","hard":40000,"soft":20000},{"type":"RLIMIT_NPROC","hard":65535,"soft":65535}],
    "user": {"additionalGids":[20]}
  }
}
EOF
mkdir -p /src/src
ctr-vol attach --tmpfs /run --tmpfs /tmp:size=64m --tmpfs /scratch:size=1048576,mode=1770 \
	--mount type=bind,src=/a:b,dst=/ab,ro,rslave "$project"/the-one everything_data:/data:ro \
	/src/src:/src the-one_fd1bd2f82adc:/anonymous shared-data:/shared:nocopy
ctr-net attach --hostname one.example --alias one --alias the-one --add-host db:10.0.0.1 \
	--add-host host:host-gateway --dns 192.0.2.1 --publish 80 --publish 9000:9000/udp \
	--publish 9001:9001/udp --publish '[::1]:8443:443' "$project"/the-one \
	everything_front:alias=www,ip=10.89.7.5,mac=02:42:ac:11:65:43 own-name
ctr-run state the-one >/dev/null 2>&1 ||
ctr-run supervise --detach --restart on-failure:3 --health-cmd '["CMD-SHELL","[ -e /ok ]"]' \
	--health-interval 1m30s --health-timeout 10s --health-retries 3 --health-start-period 40s \
	--health-start-interval 5s --stop-signal SIGQUIT --stop-timeout 2 --interactive \
	--bundle "$project"/the-one the-one >/dev/null

# everything-three-1: is not there
[ -e "$project"/everything-three-1/config.json ] ||
ctr-fetch unpack --hostname everything-three-1 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 --annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=everything --annotation com.docker.compose.service=three \
	--annotation dev.ctr.compose.image=docker.io/library/busybox:latest docker.io/library/busybox:latest \
	"$project"/everything-three-1
ctr-net attach --hostname everything-three-1 "$project"/everything-three-1 none
ctr-run state everything-three-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart no --bundle "$project"/everything-three-1 everything-three-1 >/dev/null

# everything-two-1: is not there
[ -e "$project"/everything-two-1/config.json ] ||
ctr-fetch unpack --hostname everything-two-1 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=1 --annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=everything --annotation com.docker.compose.service=two \
	--annotation dev.ctr.compose.image=docker.io/library/busybox:latest --patch - \
	docker.io/library/busybox:latest "$project"/everything-two-1 <<'EOF'
{
  "linux": {
    "maskedPaths": [],
    "namespaces": [{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"cgroup"}],
    "readonlyPaths": [],
    "resources": {"cpu":{"period":100000,"quota":150000},"devices":[{"allow":true,"access":"rwm"}],"memory":{"limit":1073741824,"reservation":536870912},"pids":{"limit":7}},
    "seccomp": null
  },
  "mounts": [{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev"]},{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime"]}],
  "process": {
    "capabilities": {"bounding":["CAP_AUDIT_CONTROL","CAP_AUDIT_READ","CAP_AUDIT_WRITE","CAP_BLOCK_SUSPEND","CAP_BPF","CAP_CHECKPOINT_RESTORE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_DAC_READ_SEARCH","CAP_FOWNER","CAP_FSETID","CAP_IPC_LOCK","CAP_IPC_OWNER","CAP_KILL","CAP_LEASE","CAP_LINUX_IMMUTABLE","CAP_MAC_ADMIN","CAP_MAC_OVERRIDE","CAP_MKNOD","CAP_NET_ADMIN","CAP_NET_BIND_SERVICE","CAP_NET_BROADCAST","CAP_NET_RAW","CAP_PERFMON","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYSLOG","CAP_SYS_ADMIN","CAP_SYS_BOOT","CAP_SYS_CHROOT","CAP_SYS_MODULE","CAP_SYS_NICE","CAP_SYS_PACCT","CAP_SYS_PTRACE","CAP_SYS_RAWIO","CAP_SYS_RESOURCE","CAP_SYS_TIME","CAP_SYS_TTY_CONFIG","CAP_WAKE_ALARM"],"effective":["CAP_AUDIT_CONTROL","CAP_AUDIT_READ","CAP_AUDIT_WRITE","CAP_BLOCK_SUSPEND","CAP_BPF","CAP_CHECKPOINT_RESTORE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_DAC_READ_SEARCH","CAP_FOWNER","CAP_FSETID","CAP_IPC_LOCK","CAP_IPC_OWNER","CAP_KILL","CAP_LEASE","CAP_LINUX_IMMUTABLE","CAP_MAC_ADMIN","CAP_MAC_OVERRIDE","CAP_MKNOD","CAP_NET_ADMIN","CAP_NET_BIND_SERVICE","CAP_NET_BROADCAST","CAP_NET_RAW","CAP_PERFMON","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYSLOG","CAP_SYS_ADMIN","CAP_SYS_BOOT","CAP_SYS_CHROOT","CAP_SYS_MODULE","CAP_SYS_NICE","CAP_SYS_PACCT","CAP_SYS_PTRACE","CAP_SYS_RAWIO","CAP_SYS_RESOURCE","CAP_SYS_TIME","CAP_SYS_TTY_CONFIG","CAP_WAKE_ALARM"],"permitted":["CAP_AUDIT_CONTROL","CAP_AUDIT_READ","CAP_AUDIT_WRITE","CAP_BLOCK_SUSPEND","CAP_BPF","CAP_CHECKPOINT_RESTORE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_DAC_READ_SEARCH","CAP_FOWNER","CAP_FSETID","CAP_IPC_LOCK","CAP_IPC_OWNER","CAP_KILL","CAP_LEASE","CAP_LINUX_IMMUTABLE","CAP_MAC_ADMIN","CAP_MAC_OVERRIDE","CAP_MKNOD","CAP_NET_ADMIN","CAP_NET_BIND_SERVICE","CAP_NET_BROADCAST","CAP_NET_RAW","CAP_PERFMON","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYSLOG","CAP_SYS_ADMIN","CAP_SYS_BOOT","CAP_SYS_CHROOT","CAP_SYS_MODULE","CAP_SYS_NICE","CAP_SYS_PACCT","CAP_SYS_PTRACE","CAP_SYS_RAWIO","CAP_SYS_RESOURCE","CAP_SYS_TIME","CAP_SYS_TTY_CONFIG","CAP_WAKE_ALARM"]}
  }
}
EOF
ctr-net attach --hostname everything-two-1 "$project"/everything-two-1 host
ctr-run state everything-two-1 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart on-failure:4 --no-healthcheck --bundle "$project"/everything-two-1 \
	everything-two-1 >/dev/null

# everything-two-2: is not there
[ -e "$project"/everything-two-2/config.json ] ||
ctr-fetch unpack --hostname everything-two-2 --annotation com.docker.compose.config-hash=HASH \
	--annotation com.docker.compose.container-number=2 --annotation com.docker.compose.oneoff=False \
	--annotation com.docker.compose.project.config_files=/src/compose.yaml \
	--annotation com.docker.compose.project.working_dir=/src \
	--annotation com.docker.compose.project=everything --annotation com.docker.compose.service=two \
	--annotation dev.ctr.compose.image=docker.io/library/busybox:latest --patch - \
	docker.io/library/busybox:latest "$project"/everything-two-2 <<'EOF'
{
  "linux": {
    "maskedPaths": [],
    "namespaces": [{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"cgroup"}],
    "readonlyPaths": [],
    "resources": {"cpu":{"period":100000,"quota":150000},"devices":[{"allow":true,"access":"rwm"}],"memory":{"limit":1073741824,"reservation":536870912},"pids":{"limit":7}},
    "seccomp": null
  },
  "mounts": [{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev"]},{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime"]}],
  "process": {
    "capabilities": {"bounding":["CAP_AUDIT_CONTROL","CAP_AUDIT_READ","CAP_AUDIT_WRITE","CAP_BLOCK_SUSPEND","CAP_BPF","CAP_CHECKPOINT_RESTORE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_DAC_READ_SEARCH","CAP_FOWNER","CAP_FSETID","CAP_IPC_LOCK","CAP_IPC_OWNER","CAP_KILL","CAP_LEASE","CAP_LINUX_IMMUTABLE","CAP_MAC_ADMIN","CAP_MAC_OVERRIDE","CAP_MKNOD","CAP_NET_ADMIN","CAP_NET_BIND_SERVICE","CAP_NET_BROADCAST","CAP_NET_RAW","CAP_PERFMON","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYSLOG","CAP_SYS_ADMIN","CAP_SYS_BOOT","CAP_SYS_CHROOT","CAP_SYS_MODULE","CAP_SYS_NICE","CAP_SYS_PACCT","CAP_SYS_PTRACE","CAP_SYS_RAWIO","CAP_SYS_RESOURCE","CAP_SYS_TIME","CAP_SYS_TTY_CONFIG","CAP_WAKE_ALARM"],"effective":["CAP_AUDIT_CONTROL","CAP_AUDIT_READ","CAP_AUDIT_WRITE","CAP_BLOCK_SUSPEND","CAP_BPF","CAP_CHECKPOINT_RESTORE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_DAC_READ_SEARCH","CAP_FOWNER","CAP_FSETID","CAP_IPC_LOCK","CAP_IPC_OWNER","CAP_KILL","CAP_LEASE","CAP_LINUX_IMMUTABLE","CAP_MAC_ADMIN","CAP_MAC_OVERRIDE","CAP_MKNOD","CAP_NET_ADMIN","CAP_NET_BIND_SERVICE","CAP_NET_BROADCAST","CAP_NET_RAW","CAP_PERFMON","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYSLOG","CAP_SYS_ADMIN","CAP_SYS_BOOT","CAP_SYS_CHROOT","CAP_SYS_MODULE","CAP_SYS_NICE","CAP_SYS_PACCT","CAP_SYS_PTRACE","CAP_SYS_RAWIO","CAP_SYS_RESOURCE","CAP_SYS_TIME","CAP_SYS_TTY_CONFIG","CAP_WAKE_ALARM"],"permitted":["CAP_AUDIT_CONTROL","CAP_AUDIT_READ","CAP_AUDIT_WRITE","CAP_BLOCK_SUSPEND","CAP_BPF","CAP_CHECKPOINT_RESTORE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_DAC_READ_SEARCH","CAP_FOWNER","CAP_FSETID","CAP_IPC_LOCK","CAP_IPC_OWNER","CAP_KILL","CAP_LEASE","CAP_LINUX_IMMUTABLE","CAP_MAC_ADMIN","CAP_MAC_OVERRIDE","CAP_MKNOD","CAP_NET_ADMIN","CAP_NET_BIND_SERVICE","CAP_NET_BROADCAST","CAP_NET_RAW","CAP_PERFMON","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYSLOG","CAP_SYS_ADMIN","CAP_SYS_BOOT","CAP_SYS_CHROOT","CAP_SYS_MODULE","CAP_SYS_NICE","CAP_SYS_PACCT","CAP_SYS_PTRACE","CAP_SYS_RAWIO","CAP_SYS_RESOURCE","CAP_SYS_TIME","CAP_SYS_TTY_CONFIG","CAP_WAKE_ALARM"]}
  }
}
EOF
ctr-net attach --hostname everything-two-2 "$project"/everything-two-2 host
ctr-run state everything-two-2 >/dev/null 2>&1 ||
ctr-run supervise --detach --restart on-failure:4 --no-healthcheck --bundle "$project"/everything-two-2 \
	everything-two-2 >/dev/null
