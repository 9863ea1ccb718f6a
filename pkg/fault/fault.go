// SPDX-License-Identifier: Apache-2.0

// Package fault names the few kinds of failure that a caller, a script above all, branches on,
// and lets an error carry hints: what the user can do next. It has no other error types; where a
// kind is in the standard library (fs.ErrNotExist, fs.ErrExist, fs.ErrPermission), that one is used.
// Package cli turns kinds into exit statuses and prints hints.
package fault

import (
	"errors"
	"fmt"
)

// Kinds of failure; wrap them with %w or mark an error with [As].
var (
	ErrUsage      = errors.New("wrong command line")         // exit status 2
	ErrBusy       = errors.New("in use")                     // exit status 4
	ErrUnverified = errors.New("content fails verification") // exit status 6: digest, size, signature
	ErrTryAgain   = errors.New("try again")                  // exit status 75: the other side was out of order
)

type marked struct {
	error
	kind error
}

func (m marked) Unwrap() []error { return []error{m.error, m.kind} }

// As marks err as being of a kind without changing its text. A nil err stays nil.
func As(kind, err error) error {
	if err == nil {
		return nil
	}
	return marked{err, kind}
}

// Usagef is an error about the command line itself.
func Usagef(format string, args ...any) error {
	return As(ErrUsage, fmt.Errorf(format, args...))
}

type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint attaches to err one line that names the user's next move, a command line if there is one.
// A nil err stays nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, args...)}
}

// Hints returns the hints along err's chain, innermost last.
func Hints(err error) (hints []string) {
	for err != nil {
		if h, ok := err.(hinted); ok {
			hints = append(hints, h.hint)
		}
		if m, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range m.Unwrap() {
				hints = append(hints, Hints(e)...)
			}
			return hints
		}
		err = errors.Unwrap(err)
	}
	return hints
}

// An Exit carries the status of a program that ran to its end, when the tool passes it through
// (ctr-run run, ctr-compose exec). Err may be nil: then nothing is printed.
type Exit struct {
	Status int // 0 to 255
	Err    error
}

func (e Exit) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

func (e Exit) Unwrap() error { return e.Err }
