// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// openAt opens dir/name; every open of the package goes through here.
func openAt(dir, name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(dir+"/"+name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// writeFile writes value with one write, as the kernel's files want it.
func writeFile(dir, name, value string) error {
	fd, err := openAt(dir, name, unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("open %s/%s: %w", dir, name, err)
	}
	defer unix.Close(fd)
	return writeFD(fd, dir, name, value)
}

func writeFD(fd int, dir, name, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("write %q to %s/%s: %w", value, dir, name, err)
		}
	}
}

// readFile reads all of a file; most are shorter than the first buffer.
func readFile(dir, name string) ([]byte, error) {
	fd, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open %s/%s: %w", dir, name, err)
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 2048)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s/%s: %w", dir, name, err)
		}
		if n == 0 {
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = append(b, make([]byte, len(b))...)[:len(b)]
		}
	}
}
