// SPDX-License-Identifier: Apache-2.0

// Package cli is the frame of every main: streams, signals, exit statuses, error and hint lines, help that
// names the man page. What it promises to users is ctr-cli(7).
//
//	func main() { cli.Main(command) }
//
//	func command() *cobra.Command {
//		root := cli.Command("ctr-vol", "named volumes and mounts for a bundle")
//		cli.Verbs(root, cli.Verb{"create", create}, cli.Verb{"attach", attach})
//		return root
//	}
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
)

// Exit statuses, one table for all tools (ctr-cli(7)).
const (
	StatusOK           = 0
	StatusFailed       = 1
	StatusUsage        = 2
	StatusNotFound     = 3
	StatusExists       = 4
	StatusNotPermitted = 5
	StatusUnverified   = 6
	StatusTryAgain     = 75
)

// Version is what --version prints; the Makefile sets it from git.
var Version = ""

// A Verb is a subcommand that is built only when it is called (or when help needs them all), so that the
// start of one verb does not pay for the others.
type Verb struct {
	Name string
	New  func() *cobra.Command
}

// Command makes a tool's root command. short follows the tool's name in help and in ctr(7).
func Command(name, short string) *cobra.Command {
	root := &cobra.Command{
		Use:           name,
		Short:         short,
		Long:          name + " - " + short + "\n\nThe manual: man " + name,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.Hint(fault.As(fault.ErrUsage, err), "%s --help", c.CommandPath())
	})
	root.PersistentFlags().BoolP("verbose", "v", false, "explain what is done")
	root.PersistentFlags().BoolP("quiet", "q", false, "no progress and no explanations")
	return root
}

// RootFlag adds --root to a command and returns where its value will be; the default is place.Root().
func RootFlag(c *cobra.Command) *string {
	return c.PersistentFlags().String("root", place.Root(), "directory of what lasts ($CTR_ROOT)")
}

// Verbs adds the verbs to root, whose own flags have to be there already. If the command line names one of the
// verbs, only that one is built.
func Verbs(root *cobra.Command, verbs ...Verb) {
	if name := firstOperand(root, os.Args[min(1, len(os.Args)):]); name != "" {
		for _, v := range verbs {
			if v.Name == name {
				root.AddCommand(v.New())
				root.CompletionOptions.DisableDefaultCmd = true // nobody asks for it
				return
			}
		}
	}
	for _, v := range verbs {
		root.AddCommand(v.New())
	}
}

// firstOperand is the first word that is neither an option nor the value of one, as cobra sees it: an option that
// it does not know takes a value.
func firstOperand(root *cobra.Command, args []string) string {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return ""
		case strings.HasPrefix(a, "--"):
			f := root.PersistentFlags().Lookup(a[2:])
			if !strings.Contains(a, "=") && (f == nil || f.NoOptDefVal == "") {
				i++
			}
		case strings.HasPrefix(a, "-") && len(a) == 2:
			if f := root.PersistentFlags().ShorthandLookup(a[1:]); f == nil || f.NoOptDefVal == "" {
				i++
			}
		case !strings.HasPrefix(a, "-"):
			return a
		}
	}
	return ""
}

func version() string {
	if Version != "" {
		return Version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "(devel)"
}

// Main runs the command line of the process and exits. The first SIGINT or SIGTERM cancels the command's
// context, the second ends the process at once.
func Main(command func() *cobra.Command) {
	os.Exit(Run(command(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Run runs one command line and returns its exit status.
func Run(root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	if root.Annotations["signals"] != "own" {
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(signals)
		go func() {
			s := <-signals
			cancel(interrupted{s.(syscall.Signal)})
			s = <-signals
			os.Exit(128 + int(s.(syscall.Signal)))
		}()
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	defaultArgs(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return StatusOK
	}
	var in interrupted
	if errors.As(context.Cause(ctx), &in) {
		fmt.Fprintf(stderr, "%s: interrupted: %v\n", root.Name(), in.Signal)
		return 128 + int(in.Signal)
	}
	Report(stderr, root.Name(), err)
	return Status(err)
}

type interrupted struct{ syscall.Signal }

func (i interrupted) Error() string { return "interrupted: " + i.Signal.String() }

// OwnSignals marks a tool or verb tree whose verbs handle signals themselves (ctr-run forwards them).
func OwnSignals(root *cobra.Command) {
	if root.Annotations == nil {
		root.Annotations = map[string]string{}
	}
	root.Annotations["signals"] = "own"
}

// Report prints err and its hints as ctr-cli(7) says: one line, then hint lines.
func Report(w io.Writer, name string, err error) {
	var exit fault.Exit
	if errors.As(err, &exit) && exit.Err == nil {
		return
	}
	msg := strings.TrimSpace(err.Error())
	if !strings.HasPrefix(msg, "ctr-") { // a sibling's own lines stand as they are
		msg = name + ": " + strings.ReplaceAll(msg, "\n", "\n"+name+": ")
	}
	fmt.Fprintln(w, printable(msg))
	for _, h := range fault.Hints(err) {
		fmt.Fprintln(w, printable(name+": hint: "+h))
	}
}

// printable quotes control characters other than newline and tab: messages may hold names from outside.
func printable(s string) string {
	if strings.IndexFunc(s, control) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if control(r) {
			fmt.Fprintf(&b, "\\x%02x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func control(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 }

// Status is the exit status for err.
func Status(err error) int {
	var exit fault.Exit
	var own interface{ ExitStatus() int }
	switch {
	case err == nil:
		return StatusOK
	case errors.As(err, &exit):
		return exit.Status
	case errors.As(err, &own):
		return own.ExitStatus()
	case errors.Is(err, fault.ErrUsage):
		return StatusUsage
	case errors.Is(err, fault.ErrUnverified):
		return StatusUnverified
	case errors.Is(err, fault.ErrTryAgain):
		return StatusTryAgain
	case errors.Is(err, fs.ErrNotExist):
		return StatusNotFound
	case errors.Is(err, fs.ErrExist), errors.Is(err, fault.ErrBusy):
		return StatusExists
	case errors.Is(err, fs.ErrPermission):
		return StatusNotPermitted
	}
	return StatusFailed
}

// defaultArgs makes cobra's complaints about operands and unknown verbs usage errors.
func defaultArgs(c *cobra.Command) {
	check := c.Args
	if check == nil && c.HasSubCommands() {
		check = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fmt.Errorf("no verb %q", args[0])
		}
	} else if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			err = fault.As(fault.ErrUsage, err)
			if len(args) > 0 && c.HasSubCommands() {
				for _, s := range c.SuggestionsFor(args[0]) {
					err = fault.Hint(err, "did you mean %s %s?", c.CommandPath(), s)
				}
			}
			return fault.Hint(err, "%s --help", c.CommandPath())
		}
		return nil
	}
	if c.Run == nil && c.RunE == nil && c.HasSubCommands() {
		c.RunE = func(c *cobra.Command, args []string) error {
			return fault.Hint(fault.Usagef("a verb is wanted"), "%s --help", c.CommandPath())
		}
	}
	for _, s := range c.Commands() {
		defaultArgs(s)
	}
}
