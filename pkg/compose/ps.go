// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Row is one container as ctr-compose ps prints it; its JSON form has docker compose's names.
type Row struct {
	ID         string
	Name       string
	Image      string
	Command    string
	Project    string
	Service    string
	CreatedAt  string
	RunningFor string // since CreatedAt, for people
	State      string // running, restarting, paused, created, exited
	Status     string // for people
	Health     string
	ExitCode   int
	Publishers []Publisher
	Labels     map[string]string
}

// A Publisher is one published port.
type Publisher struct {
	URL           string
	TargetPort    int
	PublishedPort int
	Protocol      string
}

// NewRow describes a container as of now.
func NewRow(f *Found, now time.Time) Row {
	r := Row{
		ID: f.ID, Name: f.ID, Image: f.Image, Command: strings.Join(f.Args, " "), Project: f.Project, Service: f.Service,
		CreatedAt: f.Created.UTC().Format(time.RFC3339), RunningFor: ago(now.Sub(f.Created)) + " ago", Health: f.Health, Labels: f.Annotations, Publishers: []Publisher{},
	}
	switch {
	case f.Broken != "":
		r.State, r.Status = "dead", "Dead ("+f.Broken+")"
	case f.Status == "" || f.Status == "stopped":
		r.State, r.Status = "exited", "Exited"
		if f.Exit != nil {
			r.ExitCode = f.Exit.Code
			r.Status = fmt.Sprintf("Exited (%d) %s ago", f.Exit.Code, ago(now.Sub(f.Exit.FinishedAt)))
		}
	case f.Status == "created", f.Status == "creating":
		r.State, r.Status = "created", "Created"
	default:
		since := f.Created
		if !f.Started.IsZero() {
			since = f.Started
		}
		r.State, r.Status = f.Status, "Up "+ago(now.Sub(since))
		switch f.Status {
		case "paused":
			r.Status += " (Paused)"
		case "restarting":
			r.Status = "Restarting"
		}
		switch f.Health {
		case "starting":
			r.Status += " (health: starting)"
		case "healthy", "unhealthy":
			r.Status += " (" + f.Health + ")"
		}
	}
	for _, p := range f.Publish {
		r.Publishers = append(r.Publishers, publisher(p))
	}
	return r
}

// Ports is the publishers in docker's short form.
func (r Row) Ports() string {
	var list []string
	for _, p := range r.Publishers {
		s := strconv.Itoa(p.TargetPort) + "/" + p.Protocol
		if p.PublishedPort != 0 {
			s = p.URL + ":" + strconv.Itoa(p.PublishedPort) + "->" + s
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

// publisher reads [ADDRESS:][HOST:]PORT[/PROTOCOL], which publishSpec wrote.
func publisher(spec string) Publisher {
	p := Publisher{Protocol: "tcp", URL: "0.0.0.0"}
	if s, proto, ok := strings.Cut(spec, "/"); ok {
		spec, p.Protocol = s, proto
	}
	i := strings.LastIndex(spec, ":")
	p.TargetPort, _ = strconv.Atoi(spec[i+1:])
	if i < 0 {
		return p
	}
	host := spec[:i]
	if j := strings.LastIndex(host, ":"); j >= 0 {
		p.URL, host = host[:j], host[j+1:]
	}
	p.PublishedPort, _ = strconv.Atoi(host)
	return p
}

// ago is a duration as Docker writes it.
func ago(d time.Duration) string {
	hours := int(d.Hours() + 0.5)
	switch {
	case d < time.Second:
		return "Less than a second"
	case d < time.Minute:
		return plural(int(d.Seconds()), "second")
	case d < 2*time.Minute:
		return "About a minute"
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute")
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return plural(hours, "hour")
	case hours < 14*24:
		return plural(hours/24, "day")
	case hours < 60*24:
		return plural(hours/24/7, "week")
	case hours < 2*365*24:
		return plural(hours/24/30, "month")
	}
	return plural(hours/24/365, "year")
}

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.Itoa(n) + " " + unit + "s"
}
