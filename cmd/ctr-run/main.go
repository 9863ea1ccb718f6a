// SPDX-License-Identifier: Apache-2.0

// The settings spare what Go would find out about the machine at every start, and a tool that lives for
// milliseconds does not need.
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
//go:debug decoratemappings=0

// Ctr-run makes processes of OCI bundles: a runtime with runc's command line, and a supervisor. See ctr-run(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/place"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-run", "OCI runtime: bundle to process")
	cli.OwnSignals(root)
	root.Version += "\nspec: 1.3.0" // a line of its own, as runc's callers expect
	f := root.PersistentFlags()
	f.String("root", place.Containers(place.Run()), "`DIR`ectory of the containers' state ($CTR_RUN/containers)")
	f.String("log", "", "append errors to `FILE`")
	f.String("log-format", "text", "`FORMAT` of --log: text or json")
	f.Bool("debug", false, "explain more")
	f.Bool("systemd-cgroup", false, "refused: cgroups are made without systemd")
	f.String("rootless", "auto", "accepted for runc's callers; whether we are root is found out")
	f.String("criu", "", "accepted for runc's callers, without effect")
	cli.Verbs(root,
		cli.Verb{Name: "create", New: newCreate},
		cli.Verb{Name: "start", New: newStart},
		cli.Verb{Name: "run", New: newRun},
		cli.Verb{Name: "state", New: newState},
		cli.Verb{Name: "kill", New: newKill},
		cli.Verb{Name: "delete", New: newDelete},
		cli.Verb{Name: "exec", New: newExec},
		cli.Verb{Name: "list", New: newList},
		cli.Verb{Name: "ps", New: newPs},
		cli.Verb{Name: "pause", New: newPause},
		cli.Verb{Name: "resume", New: newResume},
		cli.Verb{Name: "spec", New: newSpec},
		cli.Verb{Name: "features", New: newFeatures},
		cli.Verb{Name: "plan", New: newPlan},
		cli.Verb{Name: "supervise", New: newSupervise},
		cli.Verb{Name: "supervisor", New: newSupervisor},
		cli.Verb{Name: "logs", New: newLogs},
		cli.Verb{Name: "wait", New: newWait},
		cli.Verb{Name: "stop", New: newStop},
		cli.Verb{Name: "attach", New: newAttach},
	)
	return root
}
