// SPDX-License-Identifier: Apache-2.0
// launch ROUNDS WARMUP [--label L --prepare P --run C --after A]…: runs the commands in turn, A B C C B A …, and prints
// one line for each run: label, wall µs, CPU µs (user and system, with reaped children), peak KiB, status.
// It is C because a child starts as its launcher's copy: its peak memory would be at least the launcher's.
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

struct command {
	char *label, *prepare, *after;
	char *argv[64];
};

static long long micros(clockid_t c) {
	struct timespec t;
	clock_gettime(c, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void shell(const char *s) {
	if (s && *s && system(s) != 0) {
		fprintf(stderr, "launch: failed: %s\n", s);
		exit(1);
	}
}

int main(int argc, char **argv) {
	static struct command list[16];
	int n = 0;
	if (argc < 4)
		return 2;
	int rounds = atoi(argv[1]), warmup = atoi(argv[2]);
	for (int i = 3; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--label"))
			list[n++].label = argv[i + 1];
		else if (!strcmp(argv[i], "--prepare"))
			list[n - 1].prepare = argv[i + 1];
		else if (!strcmp(argv[i], "--after"))
			list[n - 1].after = argv[i + 1];
		else if (!strcmp(argv[i], "--run")) { // words separated by blanks
			int k = 0;
			for (char *w = strtok(argv[i + 1], " "); w && k < 63; w = strtok(NULL, " "))
				list[n - 1].argv[k++] = w;
		} else
			return 2;
	}
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	for (int r = -warmup; r < rounds; r++)
		for (int k = 0; k < n; k++) {
			int i = r & 1 ? n - 1 - k : k; // forth and back: nobody always follows the same one
			shell(list[i].prepare);
			pid_t pid;
			int status;
			struct rusage u;
			long long t = micros(CLOCK_MONOTONIC);
			if (posix_spawnp(&pid, list[i].argv[0], &fa, NULL, list[i].argv, environ) != 0) {
				perror(list[i].argv[0]);
				return 1;
			}
			wait4(pid, &status, 0, &u);
			t = micros(CLOCK_MONOTONIC) - t;
			shell(list[i].after);
			if (r >= 0)
				printf("%s %lld %lld %ld %d\n", list[i].label, t,
				       (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000LL + u.ru_utime.tv_usec + u.ru_stime.tv_usec,
				       u.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		}
	return 0;
}
