// SPDX-License-Identifier: Apache-2.0
// Reads a profile (see libseccomp_test.go) and writes the BPF program that libseccomp makes of it.
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int rc, const char *what) {
	if (rc < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(-rc));
		exit(1);
	}
}

int main(void) {
	char word[64], name[128];
	unsigned action, n;
	scmp_filter_ctx ctx = NULL;
	while (scanf("%63s", word) == 1) {
		if (!strcmp(word, "default")) {
			if (scanf("%u", &action) != 1 || !(ctx = seccomp_init(action)))
				return 1;
		} else if (!strcmp(word, "arch")) {
			if (scanf("%127s", name) != 1)
				return 1;
			int rc = seccomp_arch_add(ctx, seccomp_arch_resolve_name(name));
			if (rc != -17 /* EEXIST */)
				check(rc, name);
		} else {
			struct scmp_arg_cmp a[6];
			if (scanf("%u %127s %u", &action, name, &n) != 3 || n > 6)
				return 1;
			for (unsigned i = 0; i < n; i++) {
				unsigned index, op;
				unsigned long long x, y;
				if (scanf("%u %u %llu %llu", &index, &op, &x, &y) != 4)
					return 1;
				a[i] = (struct scmp_arg_cmp){index, op, x, y};
			}
			int nr = seccomp_syscall_resolve_name(name);
			if (nr != __NR_SCMP_ERROR)
				check(seccomp_rule_add_array(ctx, action, nr, n, a), name);
		}
	}
	check(seccomp_export_bpf(ctx, 1), "export");
	return 0;
}
