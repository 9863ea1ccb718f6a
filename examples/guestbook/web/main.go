// SPDX-License-Identifier: Apache-2.0

// Guestbook is the application of the demonstration: it keeps its entries in a file below $DATA, one a
// line, and shows above them the motto that another service ($MOTTO_URL) answers.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const maxEntryBytes = 500

var page = template.Must(template.New("page").Parse(`<!doctype html>
<title>Guestbook</title>
<h1>Guestbook</h1>
<p>{{.Motto}}</p>
<form method="post"><input name="entry" maxlength="500" required autofocus> <button>Sign</button></form>
<ul>{{range .Entries}}
<li>{{.}}</li>{{end}}
</ul>
`))

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-check" { // what HEALTHCHECK runs: the image has no other program
		os.Exit(check())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx); err != nil {
		log.Fatal(err)
	}
}

func check() int {
	r, err := http.Get("http://127.0.0.1:8080/healthz")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, r.Status)
		return 1
	}
	return 0
}

func serve(ctx context.Context) error {
	b := &book{
		file:  filepath.Join(os.Getenv("DATA"), "entries"),
		motto: os.Getenv("MOTTO_URL"),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", b.show)
	mux.HandleFunc("POST /{$}", b.sign)
	srv := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		srv.Shutdown(grace)
	}()
	log.Printf("guestbook listens on %s, entries in %s", srv.Addr, b.file)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type book struct {
	file, motto string
	mu          sync.Mutex // one writer of file
}

func (b *book) show(w http.ResponseWriter, r *http.Request) {
	entries, err := b.entries()
	if err != nil {
		b.fail(w, err)
		return
	}
	log.Printf("%s %s: %d entries", r.Method, r.URL.Path, len(entries))
	page.Execute(w, struct {
		Motto   string
		Entries []string
	}{b.askMotto(r.Context()), entries})
}

func (b *book) sign(w http.ResponseWriter, r *http.Request) {
	entry := strings.Join(strings.Fields(r.FormValue("entry")), " ")
	if entry == "" || len(entry) > maxEntryBytes {
		http.Error(w, fmt.Sprintf("an entry has 1 to %d bytes", maxEntryBytes), http.StatusBadRequest)
		return
	}
	if err := b.add(entry); err != nil {
		b.fail(w, err)
		return
	}
	log.Printf("signed: %q", entry)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (b *book) fail(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, "the book cannot be opened", http.StatusInternalServerError)
}

func (b *book) entries() ([]string, error) {
	f, err := os.Open(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		all = append(all, s.Text())
	}
	return all, s.Err()
}

func (b *book) add(entry string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := os.OpenFile(b.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, entry)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// askMotto asks the other service, by name. The page is shown without it where it does not answer.
func (b *book) askMotto(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.motto, nil)
	if err != nil {
		return "no motto: " + err.Error()
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return "no motto: " + err.Error()
	}
	defer r.Body.Close()
	text, err := io.ReadAll(io.LimitReader(r.Body, 1000))
	if err != nil || r.StatusCode != http.StatusOK {
		return "no motto: " + r.Status
	}
	return strings.TrimSpace(string(text))
}
