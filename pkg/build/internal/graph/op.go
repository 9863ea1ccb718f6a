// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// An Op changes files: it makes a state of its parent's state, or the first one.
type Op struct {
	ID         int           // position in Graph.Ops: inputs come first
	Stage      string        // name of the stage, or its number
	File       string        // name of the Dockerfile, for messages
	Line, End  int           // the instruction's lines
	Text       string        // the instruction, variables expanded where the language says so
	Parent     *Op           // whose state it changes; nil for Scratch and Base
	Sources    []*Op         // states it reads: COPY --from, RUN --mount=from
	Do         Action        // what it does
	Definition digest.Digest // over Do and the definitions of Parent and Sources: equal definitions, equal work
}

// An Action is one of *Scratch, *Base, *Copy, *Run and *Mkdir. Its JSON form is all that the result
// depends on besides the inputs; what does not change the result is left out of it.
type Action interface{ verb() string }

// Scratch is the empty state.
type Scratch struct{}

// Base is the state that an image's layers make.
type Base struct {
	Name     string        `json:"-"` // as in the Dockerfile
	Manifest digest.Digest `json:"manifest"`
	Platform string        `json:"platform,omitempty"`
}

// Copy copies files: COPY, and ADD of local files.
type Copy struct {
	Context bool     `json:"context,omitempty"` // from the build context; else from Sources[0], if there are Paths
	Paths   []string `json:"paths,omitempty"`   // absolute within the source; may hold wildcards
	Inline  []Inline `json:"inline,omitempty"`  // here-documents
	Dest    string   `json:"dest"`              // absolute; a slash at the end says directory
	Chown   string   `json:"chown,omitempty"`   // USER[:GROUP]; empty: root for the context, else as it is
	Chmod   string   `json:"chmod,omitempty"`   // octal
	Extract bool     `json:"extract,omitempty"` // unpack what is a tar archive
	Link    bool     `json:"link,omitempty"`    // do not look at the state it is put on
	Parents bool     `json:"parents,omitempty"` // keep the sources' directories
	Exclude []string `json:"exclude,omitempty"` // patterns as in .dockerignore
}

// Inline is a file whose content stands in the Dockerfile.
type Inline struct {
	Name string `json:"name"`
	Data string `json:"data"`
}

// Run executes a program on the state.
type Run struct {
	Args    []string `json:"args"`
	Env     []string `json:"env,omitempty"`
	Proxy   []string `json:"-"` // proxy variables: they do not change the result
	User    string   `json:"user,omitempty"`
	Dir     string   `json:"dir,omitempty"`
	Network string   `json:"network"`          // none, host or default
	Script  *Inline  `json:"script,omitempty"` // put at ScriptDir/Name
	Mounts  []Mount  `json:"mounts,omitempty"`
}

// ScriptDir is where a here-document that starts with #! is put.
const ScriptDir = "/dev/pipes"

// A Mount is one --mount of a RUN.
type Mount struct {
	Type     string  `json:"type"`             // bind, cache, tmpfs or secret
	Target   string  `json:"target,omitempty"` // absolute
	Context  bool    `json:"context,omitempty"`
	From     *int    `json:"from,omitempty"` // index into the op's Sources
	Source   string  `json:"source,omitempty"`
	ReadOnly bool    `json:"readOnly,omitempty"`
	Size     int64   `json:"size,omitempty"`    // of a tmpfs, in bytes
	ID       string  `json:"id,omitempty"`      // of a cache or secret
	Sharing  string  `json:"sharing,omitempty"` // of a cache: shared, private or locked
	Required bool    `json:"required,omitempty"`
	Env      string  `json:"env,omitempty"` // variable that holds a secret
	Mode     *uint32 `json:"mode,omitempty"`
	UID      uint32  `json:"uid,omitempty"`
	GID      uint32  `json:"gid,omitempty"`
}

// Mkdir makes a directory and its missing parents: WORKDIR.
type Mkdir struct {
	Path string `json:"path"`
	User string `json:"user,omitempty"` // owner of what is made
}

func (*Scratch) verb() string { return "scratch" }
func (*Base) verb() string    { return "base" }
func (*Copy) verb() string    { return "copy" }
func (*Run) verb() string     { return "run" }
func (*Mkdir) verb() string   { return "mkdir" }

// Spell returns the action as JSON, the part of cache keys that the definition gives.
func Spell(a Action) []byte {
	data, err := json.Marshal(map[string]Action{a.verb(): a})
	if err != nil {
		panic(fmt.Sprintf("action %T has no JSON form: %v", a, err))
	}
	return data
}

// define sets the op's definition digest; its inputs have theirs.
func (o *Op) define() {
	var b strings.Builder
	b.Write(Spell(o.Do))
	for _, in := range o.Inputs() {
		b.WriteString("\n" + in.Definition.String())
	}
	o.Definition = digest.FromString(b.String())
}

// Inputs are the op's parent, if it has one, and its sources.
func (o *Op) Inputs() []*Op {
	if o.Parent == nil {
		return o.Sources
	}
	return append([]*Op{o.Parent}, o.Sources...)
}

// Fail wraps err with the op's place and shortened text.
func (o *Op) Fail(err error) error {
	if err == nil {
		return nil
	}
	return &Error{File: o.File, Line: o.Line, Text: Short(o.Text), Err: err}
}

// Short makes one line of at most 60 characters of an instruction.
func Short(text string) string {
	line, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	r := []rune(strings.Join(strings.Fields(line), " "))
	if len(r) > 60 {
		r, more = r[:59], true
	}
	if more {
		return string(r) + "…"
	}
	return string(r)
}
