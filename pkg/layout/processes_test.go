// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/layout/layouttest"
)

// The test binary is its own second process.
func TestMain(m *testing.M) {
	switch os.Getenv("LAYOUT_TEST") {
	case "names":
		exit(addNames(os.Getenv("LAYOUT_DIR"), os.Getenv("LAYOUT_WHO")))
	case "write":
		exit(writeForever(os.Getenv("LAYOUT_DIR"), os.Getenv("LAYOUT_WHO")))
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(t *testing.T, what, dir, who string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LAYOUT_TEST="+what, "LAYOUT_DIR="+dir, "LAYOUT_WHO="+who)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// empty is the smallest image there can be.
func empty(ctx context.Context, w *layout.Writer, who string) (ocispec.Descriptor, error) {
	config, err := w.PutJSON(ctx, ocispec.MediaTypeImageConfig, map[string]any{"os": "linux", "architecture": "amd64", "author": who,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{}}})
	if err != nil {
		return config, err
	}
	return w.PutJSON(ctx, ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
		"config": config, "layers": []string{}})
}

const namesEach = 500

func addNames(dir, who string) error {
	l, err := layout.Create(dir)
	if err != nil {
		return err
	}
	w, err := l.Begin()
	if err != nil {
		return err
	}
	defer w.Close()
	for i := range namesEach {
		d, err := empty(context.Background(), w, who)
		if err != nil {
			return err
		}
		if err := w.Tag(fmt.Sprintf("example.com/%s:%d", who, i), d); err != nil {
			return err
		}
	}
	return nil
}

// Every library that we looked at loses names here (spec/layout.md, Locking).
func TestTwoProcessesAddNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	a, b := child(t, "names", dir, "a"), child(t, "names", dir, "b")
	if err := errors.Join(a.Wait(), b.Wait()); err != nil {
		t.Fatal(err)
	}
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := l.Entries()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(entries), 2*namesEach; got != want {
		t.Errorf("%d names, want %d", got, want)
	}
	layouttest.Good(t, l)
}

// writeForever does all that writers do, until somebody kills it.
func writeForever(dir, who string) error {
	ctx := context.Background()
	l, err := layout.Create(dir)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		w, err := l.Begin()
		if err != nil {
			return err
		}
		unique := fmt.Sprintf("%s-%d-%d", who, os.Getpid(), i)
		blob := bytes.Repeat([]byte(unique), 3000)
		layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
		p, err := w.Partial(ctx, layer)
		if err != nil {
			return err
		}
		for part := blob; len(part) > 0 && p != nil; part = part[min(len(part), 4096):] {
			if _, err := p.Write(part[:min(len(part), 4096)]); err != nil {
				return err
			}
		}
		if err := p.Commit(); err != nil {
			return err
		}
		config, err := w.PutJSON(ctx, ocispec.MediaTypeImageConfig, map[string]any{"author": unique})
		if err != nil {
			return err
		}
		d, err := w.PutJSON(ctx, ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
			"config": config, "layers": []ocispec.Descriptor{layer}})
		if err != nil {
			return err
		}
		if err := w.Tag("example.com/"+who+":"+strconv.Itoa(i%20), d); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if i%7 == 6 {
			if err := l.Untag("example.com/" + who + ":" + strconv.Itoa((i-3)%20)); err != nil {
				return err
			}
		}
		if i%10 == 9 {
			if _, err := l.GC(ctx, layout.GCOptions{}); err != nil {
				return err
			}
		}
	}
}

// A writer that is killed at any moment leaves a layout that fsck accepts and nothing that gc does not remove.
func TestKill(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "l")
	kills := 120
	if testing.Short() {
		kills = 20
	}
	other := child(t, "write", dir, "other") // a second writer and gc, which is never in the way of the first's death
	defer func() { other.Process.Kill(); other.Wait() }()
	for n := range kills {
		c := child(t, "write", dir, "victim")
		time.Sleep(time.Duration(5+rand.IntN(60)) * time.Millisecond)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var ee *exec.ExitError
		if err := c.Wait(); !errors.As(err, &ee) || ee.Exited() {
			t.Fatalf("kill %d: the writer ended by itself: %v", n, err)
		}
		if l, err := layout.Open(dir); err == nil {
			layouttest.Good(t, l)
		} else if n > 20 {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("after kill %d", n)
		}
	}
	other.Process.Kill()
	other.Wait()
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	before := layouttest.Good(t, l)
	res, err := l.GC(ctx, layout.GCOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills: %d blobs, %d entries, %d unfinished files; gc removed %d blobs, %d partial blobs, %d temporary files",
		kills, before.Blobs, before.Entries, len(before.Temps), len(res.Blobs), res.Partials, res.Temps)
	after := layouttest.Good(t, l)
	if len(after.Temps) > 0 {
		t.Errorf("left by gc: %s", strings.Join(after.Temps, " "))
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), ".tmp-") {
			t.Errorf("left by gc: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := l.GC(ctx, layout.GCOptions{}); err != nil || len(res.Blobs)+res.Temps+res.Partials != 0 {
		t.Errorf("a second gc found more: %+v, %v", res, err)
	}
}
