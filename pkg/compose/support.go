// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"slices"

	"github.com/compose-spec/compose-go/v2/tree"
)

// supportedAttributes are the attributes of a service that reach a tool. What the specification gains later is
// none of them, and is refused until somebody adds it here.
func supportedAttributes() []string {
	return []string{
		"annotations", "cap_add", "cap_drop", "cgroup", "command", "container_name", "cpu_period", "cpu_quota",
		"cpu_shares", "cpus", "cpuset", "depends_on", "dns", "domainname", "entrypoint",
		"env_file", "environment", "expose", "extends", "extra_hosts", "group_add", "healthcheck", "hostname", "image",
		"ipc", "label_file", "labels", "mac_address", "mem_limit", "mem_reservation", "mem_swappiness",
		"memswap_limit", "network_mode", "oom_kill_disable", "oom_score_adj", "pid", "pids_limit", "platform", "ports",
		"privileged", "profiles", "pull_policy", "read_only", "restart", "scale", "security_opt", "shm_size",
		"stdin_open", "stop_grace_period", "stop_signal", "sysctls", "tmpfs", "tty", "ulimits", "user", "uts",
		"working_dir",
	}
}

// supportedPaths are all attributes that have an effect, as compose-go's patterns.
func supportedPaths() []tree.Path {
	paths := []tree.Path{"name", "version", "include", "include.[].path", "include.[].project_directory", "include.[].env_file"}
	add := func(prefix string, names ...string) {
		for _, n := range names {
			paths = append(paths, tree.Path(prefix+n), tree.Path(prefix+n+".*"), tree.Path(prefix+n+".*.*"), tree.Path(prefix+n+".*.*.*"))
		}
	}
	add("services.*.", supportedAttributes()...)
	add("services.*.build.", "args", "context", "dockerfile", "dockerfile_inline", "labels", "network", "no_cache", "platforms", "pull", "tags", "target")
	add("services.*.deploy.", "replicas", "restart_policy.condition", "restart_policy.max_attempts")
	add("services.*.deploy.resources.", "limits.cpus", "limits.memory", "limits.pids", "reservations.memory")
	add("services.*.networks.*.", "aliases", "interface_name", "ipv4_address", "ipv6_address", "mac_address", "priority")
	add("services.*.volumes.[].", "type", "source", "target", "read_only", "consistency", "bind.propagation",
		"bind.create_host_path", "volume.nocopy", "tmpfs.size", "tmpfs.mode")
	add("networks.*.", "name", "driver", "external", "internal", "labels", "ipam.config.[].subnet", "ipam.config.[].gateway",
		"attachable")
	add("volumes.*.", "name", "driver", "driver_opts", "external", "labels")
	return paths
}

// harmless says whether an attribute may be left out with a warning: the container is what the file says, and
// as isolated as it says, without it.
func harmless(path []string) bool {
	if len(path) < 3 {
		return false
	}
	attr := func(names ...string) bool { return slices.Contains(names, path[2]) }
	switch path[0] {
	case "services":
		if len(path) > 3 && path[2] == "build" {
			return slices.Contains([]string{"cache_from", "cache_to", "isolation", "no_cache_filter", "provenance",
				"sbom", "shm_size", "ulimits"}, path[3])
		}
		return attr("attach", "init", "blkio_config", "cpu_count", "cpu_percent", "cpu_rt_period", "cpu_rt_runtime", "deploy", "develop",
			"isolation", "logging", "networks", "pull_refresh_after", "storage_opt", "ports")
	case "networks":
		return attr("driver_opts", "enable_ipv4", "ipam")
	}
	return false
}
