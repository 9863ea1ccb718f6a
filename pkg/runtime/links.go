// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links are followed on the way to one name, as the kernel does.
const maxLinks = 40

// links looks for mounts whose destination is a symbolic link to nothing, such as an /etc/resolv.conf that points
// into /run: what is missing has to be made where the link points, inside the root filesystem. The result only
// names what init will make: it opens each name inside the root all the same, whatever became of the links.
func (c *config) links() {
	var roots []int
	defer func() {
		for _, fd := range roots {
			syscall.Close(fd)
		}
	}()
	for i := range c.spec.Mounts {
		name := path.Clean("/" + c.spec.Mounts[i].Destination)[1:]
		first, _, _ := strings.Cut(name, "/")
		if name == "" || first == "proc" || first == "dev" || first == "sys" {
			continue // file systems of the container's own, as a rule
		}
		if roots == nil {
			for _, dir := range c.layers() {
				if fd, err := syscall.Open(dir, unix.O_PATH|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0); err == nil {
					roots = append(roots, fd)
				}
			}
		}
		if to := pointsTo(roots, name); to != name {
			if c.facts.Links == nil {
				c.facts.Links = map[string]string{}
			}
			c.facts.Links[name] = to
		}
	}
}

// layers are the directories that make up the root filesystem, the topmost first.
func (c *config) layers() []string {
	o := c.facts.Overlay
	switch {
	case o == nil:
		return []string{c.facts.Rootfs}
	case o.Upper == "":
		return o.Lower
	}
	return append([]string{o.Upper}, o.Lower...)
}

// pointsTo follows the symbolic links in a name below layers, also where they lead to nothing.
func pointsTo(layers []int, name string) string {
	var at []string
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(0, len(at)-1)]
			continue
		}
		target, ok := linkIn(layers, path.Join(append(at[:len(at):len(at)], part)...))
		if !ok {
			at = append(at, part)
			continue
		}
		if links++; links > maxLinks {
			return name
		}
		if strings.HasPrefix(target, "/") {
			at = nil
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	if len(at) == 0 {
		return name
	}
	return path.Join(at...)
}

// linkIn reads a symbolic link in the topmost layer that has the name. No link on the way to it is followed.
func linkIn(layers []int, name string) (target string, ok bool) {
	for _, layer := range layers {
		fd, err := unix.Openat2(layer, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			continue
		}
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", b)
		syscall.Close(fd)
		return string(b[:max(0, n)]), err == nil
	}
	return "", false
}
