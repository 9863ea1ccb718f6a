// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime"
	"github.com/ctr-tools/ctr/pkg/strictjson"
)

// verb makes a RunE of what a verb does with a runtime: the global options are looked at, and an error goes to
// --log as well as to stderr.
func verb(do func(c *cobra.Command, rt *runtime.Runtime, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if systemd, _ := c.Flags().GetBool("systemd-cgroup"); systemd {
			return logged(c, fault.Hint(fault.Usagef("--systemd-cgroup: systemd's cgroups are not supported"),
				"use the cgroupfs driver of the engine: podman --cgroup-manager=cgroupfs"))
		}
		rt := runtime.New(stateRoot(c))
		rt.Warn = func(message string) { writeLog(c, "warning", message) }
		return logged(c, do(c, rt, args))
	}
}

// logged writes an error to --log and returns it.
func logged(c *cobra.Command, err error) error {
	if exit, ok := err.(fault.Exit); err == nil || ok && exit.Err == nil {
		return err
	}
	writeLog(c, "error", err.Error())
	return err
}

// writeLog appends a line to --log in the form that runc's callers parse. Without --log, warnings go to stderr;
// errors get there anyway.
func writeLog(c *cobra.Command, level, message string) {
	path, _ := c.Flags().GetString("log")
	format, _ := c.Flags().GetString("log-format")
	if path == "" {
		if level == "warning" && !cli.Quiet(c) {
			os.Stderr.WriteString("ctr-run: warning: " + message + "\n")
		}
		return
	}
	now := time.Now().Format(time.RFC3339)
	var b []byte
	if format == "json" {
		b = append(b, `{"level":"`+level+`","msg":`...)
		b = strictjson.Quote(b, message)
		b = append(b, `,"time":"`+now+`"}`...)
	} else {
		b = append(b, `time="`+now+`" level=`+level+` msg=`...)
		b = strictjson.Quote(b, message)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		os.Stderr.WriteString("ctr-run: --log: " + err.Error() + "\n")
		return
	}
	f.Write(append(b, '\n'))
	f.Close()
}

// parseSignal reads a signal: a number, TERM or SIGTERM.
func parseSignal(s string) (syscall.Signal, error) {
	n, number := 0, s != ""
	for _, c := range s {
		number = number && c >= '0' && c <= '9' && n < 100
		n = 10*n + int(c-'0')
	}
	if number {
		if n > 64 {
			return 0, fault.Usagef("signal %s: want 0 to 64", s)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig, ok := signals[name]; ok {
		return sig, nil
	}
	return 0, fault.Usagef("signal %q: want a number or a name such as TERM", s)
}

// signals by name (signal(7)); real-time signals are named by number, RTMIN and RTMAX.
var signals = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
	"SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CLD": 17, "CONT": 18,
	"STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27,
	"WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "RTMIN": 34, "RTMIN+1": 35, "RTMIN+2": 36, "RTMIN+3": 37,
	"RTMIN+4": 38, "RTMIN+5": 39, "RTMIN+6": 40, "RTMIN+7": 41, "RTMIN+8": 42, "RTMIN+9": 43, "RTMIN+10": 44,
	"RTMIN+11": 45, "RTMIN+12": 46, "RTMIN+13": 47, "RTMIN+14": 48, "RTMIN+15": 49, "RTMAX": 64,
}
