// SPDX-License-Identifier: Apache-2.0
// seq COMMAND… -- COMMAND… : runs commands one after the other, as a shell would, but weighs nothing.
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
	for (int i = 1, j = 1; i <= argc; i++)
		if (i == argc || !strcmp(argv[i], "--")) {
			pid_t pid;
			int status;
			argv[i] = NULL;
			if (posix_spawnp(&pid, argv[j], NULL, NULL, argv + j, environ) != 0)
				return 127;
			waitpid(pid, &status, 0);
			if (status)
				return 1;
			j = i + 1;
		}
	return 0;
}
