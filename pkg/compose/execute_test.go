// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ctr-tools/ctr/pkg/toolkit"
)

func sh(script string, after ...int) Step {
	return Step{Argv: []string{"sh", "-c", script}, After: after, About: script}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Steps run after those they wait for; independent ones at the same time: each of the two below ends only when
// it sees the other.
func TestExecuteOrder(t *testing.T) {
	dir := t.TempDir()
	meet := func(me, other string) string {
		return "touch " + dir + "/" + me + "; until [ -e " + dir + "/" + other + " ]; do sleep 0.01; done"
	}
	p := &Plan{Steps: []Step{
		sh(meet("a", "b")),
		sh(meet("b", "a")),
		sh("echo one >>"+dir+"/order", 0, 1),
		{Argv: []string{"sh", "-c", "cat >>" + dir + "/order"}, Stdin: "two\n", After: []int{2}},
		{Argv: []string{"echo", " 0 "}, Want: "0", After: []int{3}},
		sh("echo three >>"+dir+"/order", 4),
	}}
	if err := Execute(context.Background(), p, ExecuteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, dir+"/order"), "one\ntwo\nthree\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// After a failure what is at work ends by itself, nothing else starts, and waiting ends.
func TestExecuteFailure(t *testing.T) {
	dir := t.TempDir()
	wait := sh("sleep 600")
	wait.Waits = true
	p := &Plan{Steps: []Step{
		sh("until [ -e " + dir + "/working ]; do sleep 0.01; done; echo why >&2; exit 3"),
		sh("touch " + dir + "/working; sleep 0.2; touch " + dir + "/ended"),
		wait,
		sh("touch "+dir+"/started", 0),
		sh("touch "+dir+"/started", 1),
	}}
	err := Execute(context.Background(), p, ExecuteOptions{})
	var failed *toolkit.Failure
	if !errors.As(err, &failed) || failed.Status != 3 || strings.TrimSpace(failed.Stderr) != "why" {
		t.Fatalf("got %v, want status 3 and its reason", err)
	}
	if _, err := os.Stat(dir + "/ended"); err != nil {
		t.Error("the step at work was not let finish")
	}
	if _, err := os.Stat(dir + "/started"); err == nil {
		t.Error("a step started after the failure")
	}
}

func TestExecuteUnwanted(t *testing.T) {
	p := &Plan{Steps: []Step{{Argv: []string{"echo", "7"}, Want: "0", About: "p-migrate-1"}}}
	if err := Execute(context.Background(), p, ExecuteOptions{}); err == nil || err.Error() != "p-migrate-1 exited with status 7" {
		t.Errorf("got %v", err)
	}
}

func TestExecuteCancelled(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for _, err := os.Stat(dir + "/on"); err != nil; _, err = os.Stat(dir + "/on") {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	p := &Plan{Steps: []Step{sh("trap 'touch " + dir + "/int; exit 1' INT; touch " + dir + "/on; while :; do sleep 0.01; done"), sh("touch "+dir+"/next", 0)}}
	if err := Execute(ctx, p, ExecuteOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	if _, err := os.Stat(dir + "/int"); err != nil {
		t.Error("the command at work got no SIGINT")
	}
	if _, err := os.Stat(dir + "/next"); err == nil {
		t.Error("the next command ran")
	}
}

func TestPublish(t *testing.T) {
	for _, spec := range []string{"80", "8080:80", "127.0.0.1:8080:80", "[::1]:53:53/udp", "10.0.0.1::80"} {
		ports, err := ParsePorts([]string{spec})
		if err != nil || len(ports) != 1 {
			t.Errorf("%s: %v %v", spec, ports, err)
			continue
		}
		got, err := publishSpec(ports[0], 1)
		if err != nil || got != spec {
			t.Errorf("%s became %s, %v", spec, got, err)
		}
	}
	p := publisher("[::1]:53:5353/udp")
	if p != (Publisher{URL: "[::1]", PublishedPort: 53, TargetPort: 5353, Protocol: "udp"}) {
		t.Errorf("%+v", p)
	}
}

func TestStamp(t *testing.T) {
	inOrder := []string{"2026-01-02T03:04:05Z x", "2026-01-02T03:04:05.000000001Z x", "2026-01-02T03:04:05.01Z x", "2026-01-02T03:04:05.1Z x", "2026-01-02T03:04:06Z x"}
	for i := range inOrder[1:] {
		if stamp(inOrder[i]) >= stamp(inOrder[i+1]) {
			t.Errorf("%s is not before %s", inOrder[i], inOrder[i+1])
		}
	}
}

func TestWhereIs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(file, []byte("x-a: &a\n  logging: {}\nservices:\n  web:\n    <<: *a\n    image: x\n    volumes:\n      - a:/b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, line := range map[string]string{"services.web.image": "6", "services.web.volumes.[].bind": "7", "services.web": "4"} {
		if got, want := whereIs([]string{file}, strings.Split(path, ".")), file+":"+line+": "; got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if got := whereIs([]string{file, "-"}, []string{"networks"}); got != "" {
		t.Errorf("got %q for what is not there", got)
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "Less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds", time.Minute: "About a minute",
		2 * time.Minute: "2 minutes", time.Hour: "About an hour", 47 * time.Hour: "47 hours", 72 * time.Hour: "3 days",
		21 * 24 * time.Hour: "3 weeks", 90 * 24 * time.Hour: "3 months", 3 * 365 * 24 * time.Hour: "3 years",
	} {
		if got := ago(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
