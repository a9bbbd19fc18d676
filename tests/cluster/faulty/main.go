// Command faulty stands before an API server and does what networks, loads and other writers do: conflicts, refusals, errors, slow answers,
// watches that end, break in the middle of an event, or are told that they are too old.
//
// usage: faulty LISTEN CERT KEY CA SERVER
//
// What it does is set by POST /-/faults with {"conflict": P, "throttle": P, "error": P, "slow": P, "slowMs": N, "lost": P, "watchSecs": N,
// "brokenEvent": P, "gone": P, "missing": P, "tokenSecs": N}, P being probabilities from 0 to 1; `lost`: done, but the answer does not arrive;
// `missing`: what is to be deleted is not known; `tokenSecs`: tokens of
// service accounts are told to live so long. GET /-/faults says how often each was done.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

type faults struct {
	Conflict, Throttle, Error, Slow, Lost, BrokenEvent, Gone, Missing float64
	SlowMs, WatchSecs, TokenSecs                                      int
}

type proxy struct {
	mu    sync.Mutex
	now   faults
	done  map[string]int
	clean *httputil.ReverseProxy
}

func (p *proxy) hit(what string, chance float64) bool {
	if rand.Float64() >= chance {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[what]++
	return true
}

func refuse(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"injected","reason":%q,"code":%d}`, reason, code)
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/-/faults" {
		p.control(w, r)
		return
	}
	p.mu.Lock()
	now := p.now
	p.mu.Unlock()
	if r.URL.Query().Get("watch") != "" {
		p.watch(w, r, now)
		return
	}
	if p.hit("slow", now.Slow) {
		time.Sleep(time.Duration(now.SlowMs) * time.Millisecond)
	}
	if now.TokenSecs > 0 && r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/token") {
		p.hit("token", 1)
		p.shortened(w, r, now.TokenSecs)
		return
	}
	writes := r.Method == http.MethodPatch || r.Method == http.MethodPut
	switch {
	case r.Method == http.MethodDelete && p.hit("missing", now.Missing):
		refuse(w, http.StatusNotFound, "NotFound")
	case writes && p.hit("conflict", now.Conflict):
		refuse(w, http.StatusConflict, "Conflict")
	case p.hit("throttle", now.Throttle):
		refuse(w, http.StatusTooManyRequests, "TooManyRequests")
	case p.hit("error", now.Error):
		refuse(w, http.StatusInternalServerError, "InternalError")
	case p.hit("lost", now.Lost):
		p.clean.ServeHTTP(&nowhere{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	default:
		p.clean.ServeHTTP(w, r)
	}
}

// shortened says of a token that it lives for so many seconds.
func (p *proxy) shortened(w http.ResponseWriter, r *http.Request, secs int) {
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Accept-Encoding", "identity")
	answer := httptest.NewRecorder()
	p.clean.ServeHTTP(answer, r)
	var token struct {
		Kind       string          `json:"kind"`
		APIVersion string          `json:"apiVersion"`
		Metadata   json.RawMessage `json:"metadata"`
		Spec       map[string]any  `json:"spec"`
		Status     map[string]any  `json:"status"`
	}
	if answer.Code >= 300 || json.Unmarshal(answer.Body.Bytes(), &token) != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
		return
	}
	token.Spec["expirationSeconds"] = secs
	token.Status["expirationTimestamp"] = time.Now().UTC().Add(time.Duration(secs) * time.Second).Format(time.RFC3339)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.Code)
	_ = json.NewEncoder(w).Encode(token)
}

// watch ends a watch early: cleanly, in the middle of an event, or with the word that it is too old.
func (p *proxy) watch(w http.ResponseWriter, r *http.Request, now faults) {
	if now.WatchSecs == 0 {
		p.clean.ServeHTTP(w, r)
		return
	}
	until := time.Duration(rand.IntN(now.WatchSecs*1000)+200) * time.Millisecond
	out := &cut{ResponseWriter: w, end: time.Now().Add(until), broken: p.hit("brokenEvent", now.BrokenEvent)}
	p.hit("watchEnded", 1)
	go func() {
		time.Sleep(until)
		out.over()
	}()
	r.Header.Set("Accept-Encoding", "identity")
	json := strings.HasPrefix(r.Header.Get("Accept"), "application/json") && !strings.Contains(r.Header.Get("Accept"), "protobuf")
	if json && p.hit("gone", now.Gone) {
		out.last = `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}` + "\n"
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { _ = recover() }()
		p.clean.ServeHTTP(out, r)
	}()
	select {
	case <-ended:
	case <-time.After(until + 50*time.Millisecond):
	}
	out.shut()
	if out.broken {
		panic(http.ErrAbortHandler)
	}
}

// cut is an answer that ends at a time.
type cut struct {
	http.ResponseWriter
	mu     sync.Mutex
	end    time.Time
	broken bool
	last   string
	closed bool
}

func (c *cut) over() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if c.last != "" {
		_, _ = c.ResponseWriter.Write([]byte(c.last))
	} else if c.broken {
		_, _ = c.ResponseWriter.Write([]byte(`{"type":"MODIFIED","object":{"kind":"Po`))
	}
	_ = http.NewResponseController(c.ResponseWriter).Flush()
}

// shut lets nothing more through: the answer is over.
func (c *cut) shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

func (c *cut) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, io.ErrClosedPipe
	}
	return c.ResponseWriter.Write(b)
}

func (c *cut) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
	}
}

type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}

func (p *proxy) control(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodPost {
		var wanted faults
		if err := json.NewDecoder(r.Body).Decode(&wanted); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.now = wanted
	}
	_ = json.NewEncoder(w).Encode(p.done)
}

func main() {
	if len(os.Args) != 6 {
		log.Fatal("usage: faulty LISTEN CERT KEY CA SERVER")
	}
	ca, err := os.ReadFile(os.Args[4])
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	server, err := url.Parse(os.Args[5])
	if err != nil {
		log.Fatal(err)
	}
	clean := httputil.NewSingleHostReverseProxy(server)
	clean.FlushInterval = -1
	clean.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	clean.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	handler := &proxy{done: map[string]int{}, clean: clean}
	log.Fatal((&http.Server{Addr: os.Args[1], Handler: handler}).ListenAndServeTLS(os.Args[2], os.Args[3]))
}
