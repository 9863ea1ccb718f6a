// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/registry"
)

func serve() *cobra.Command {
	c := &cobra.Command{Use: "serve [flags] DIR", Short: "serve an image layout as a registry, until a signal",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%d operands, want DIR", len(args))
			}
			return nil
		}}
	listen := c.Flags().String("listen", "127.0.0.1:5000", "`ADDRESS`:PORT to listen on; port 0 is a free one")
	write := c.Flags().Bool("read-write", false, "take pushes; without it only pulls")
	portFile := c.Flags().String("port-file", "", "`FILE` that the port number is written to when ready")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir := args[0]
		if o, err := image.ParseOperand(dir); err == nil && o.Kind == image.KindLayout && o.Name == "" && o.Digest == "" {
			dir = o.Path
		}
		open := layout.Open
		if *write {
			open = layout.Create
		}
		l, err := open(dir)
		if err != nil {
			return err
		}
		ln, err := net.Listen("tcp", *listen)
		if err != nil {
			return err
		}
		defer ln.Close()
		handler := registry.NewServer(l, registry.ServerOptions{ReadWrite: *write, Explain: explain(c)})
		defer handler.Close()
		addr := ln.Addr().(*net.TCPAddr)
		if *portFile != "" {
			if err := atomicfile.Write(*portFile, []byte(strconv.Itoa(addr.Port)+"\n"), 0o644); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(c.OutOrStdout(), "http://%s\n", addr); err != nil {
			return err
		}
		return run(c.Context(), ln, handler, log.New(c.ErrOrStderr(), "ctr-push: ", 0))
	}
	return c
}

// run serves until the context ends, which is how one ends a server: it is no failure.
func run(ctx context.Context, ln net.Listener, h http.Handler, l *log.Logger) error {
	s := &http.Server{Handler: h, ErrorLog: l, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Those who are in the middle of something get a moment to end it.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(end); err != nil {
		s.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
