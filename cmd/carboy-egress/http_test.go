package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"carboy/runtime/proxy/policy"
)

func TestHTTP(t *testing.T) {
	b := newBench(t, "a.test:plain")
	if code, body := b.get(t, "http://a.test:"+port(b.plain)+"/"); code != 200 || body != "served" {
		t.Fatalf("allowed: %d %s", code, body)
	}
	if code, body := b.get(t, "http://A.TEST.:"+port(b.plain)+"/"); code != 200 || body != "served" {
		t.Errorf("allowed, in other words: %d %s", code, body)
	}
	denied := []string{
		"http://b.test:" + port(b.plain) + "/",      // another name of the same address
		"http://a.test:" + port(b.secure) + "/",     // another port
		"http://a.test/",                            // the default port
		"http://127.0.0.1:" + port(b.plain) + "/",   // the address itself
		"http://evil.a.test:" + port(b.plain) + "/", // below it
		"http://a.test.evil:" + port(b.plain) + "/", // ends otherwise
		"http://2130706433:" + port(b.plain) + "/",  // a number that is an address
		"http://[::1]:" + port(b.plain) + "/",
	}
	for _, url := range denied {
		resp, err := b.client().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden || !strings.HasPrefix(string(body), "blocked: ") || resp.Header.Get(verdictHeader) != "denied" {
			t.Errorf("%s: %d %s", url, resp.StatusCode, body)
		}
	}
	if n := b.arrived.Load(); n != 2 {
		t.Errorf("%d requests arrived, want the allowed ones", n)
	}
	all := b.decisions(t)
	if len(all) != 2+len(denied) {
		t.Fatalf("%d lines: %+v", len(all), all)
	}
	for i, d := range all {
		allowed := i < 2
		if d.Event != policy.EventDecision || d.Method != http.MethodGet || d.Time.IsZero() || (d.Verdict == policy.Allow) != allowed ||
			(d.Reason == "") != allowed || (d.Rule == "a.test:"+port(b.plain)) != allowed || (d.Addr == b.plain.Listener.Addr().String()) != allowed {
			t.Errorf("line %d: %+v", i, d)
		}
	}
}

// An agent's words go to a terminal some day.
func TestLogIsSafeToShow(t *testing.T) {
	b := newBench(t)
	b.raw(t, "G!T http://\xe2\x80\xae%C2%9B31m.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	b.raw(t, "CONNECT "+strings.Repeat("x", 3000)+":443 HTTP/1.1\r\nHost: x\r\n\r\n")
	if all := b.decisions(t); len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	b.logMu.Lock()
	defer b.logMu.Unlock()
	if bytes.ContainsFunc(b.log.Bytes(), func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) || b.log.Len() > 2000 {
		t.Errorf("%q", b.log.Bytes())
	}
}

// A mistake in a request never gets it through.
func TestMalformedRequests(t *testing.T) {
	b := newBench(t, "a.test:plain", "tcp:a.test:plain", "a.test")
	authority := "a.test:" + port(b.plain)
	for name, text := range map[string]string{
		"both lengths":      "POST http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"two lengths":       "POST http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n12345",
		"folded header":     "GET http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\n folded\r\nX Y: 1\r\n\r\n",
		"NUL":               "GET http://a.test\x00.evil/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"two hosts":         "GET http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
		"no host":           "GET http:///x HTTP/1.1\r\nHost: " + authority + "\r\nConnection: close\r\n\r\n",
		"opaque":            "GET http:" + authority + "/ HTTP/1.1\r\nHost: " + authority + "\r\nConnection: close\r\n\r\n",
		"user in the URL":   "GET http://u:p@" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
		"host as user":      "GET http://" + authority + "@b.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
		"https in the URL":  "GET https://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
		"ftp in the URL":    "GET ftp://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
		"origin form":       "GET / HTTP/1.1\r\nHost: " + authority + "\r\nConnection: close\r\n\r\n",
		"websocket":         "GET http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/2":            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"CONNECT two ports": "CONNECT a.test:80:80 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"CONNECT port 0":    "CONNECT a.test:0 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"CONNECT no port":   "CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"CONNECT user":      "CONNECT u@" + authority + " HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"CONNECT path":      "CONNECT " + authority + "/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"CONNECT only path": "CONNECT /x HTTP/1.1\r\nHost: " + authority + "\r\n\r\n",
		"CONNECT URL":       "CONNECT http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
	} {
		answer := b.raw(t, text)
		if strings.Contains(answer, " 200 ") || strings.Contains(answer, "served") {
			t.Errorf("%s: %.80s", name, answer)
		}
	}
	if n := b.arrived.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	if code, _ := b.get(t, "http://"+authority+"/"); code != 200 {
		t.Errorf("control: %d", code)
	}
}

func TestBodies(t *testing.T) {
	b := newBench(t, "a.test:plain")
	want := strings.Repeat("0123456789", 100_000)
	for _, body := range []io.Reader{strings.NewReader(want), io.MultiReader(strings.NewReader(want))} { // the second is chunked
		resp, err := b.client().Post("http://a.test:"+port(b.plain)+"/echo", "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("%d of %d bytes came back: %v", len(got), len(want), err)
		}
	}
}

// An answer may begin before its request has ended.
func TestConversation(t *testing.T) {
	b := newBench(t, "a.test:plain")
	conn := b.dialProxy(t)
	_, _ = io.WriteString(conn, "POST http://a.test:"+port(b.plain)+"/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	var answer *bufio.Reader
	for _, word := range []string{"one", "two", "six"} {
		_, _ = io.WriteString(conn, "3\r\n"+word+"\r\n")
		if answer == nil {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			answer = bufio.NewReader(resp.Body)
		}
		got := make([]byte, 3)
		if _, err := io.ReadFull(answer, got); err != nil || string(got) != word {
			t.Fatalf("%q is answered %q, %v", word, got, err)
		}
	}
	_, _ = io.WriteString(conn, "0\r\n\r\n")
	if rest, err := io.ReadAll(answer); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

// Half an answer must not look like a whole one.
func TestBrokenAnswer(t *testing.T) {
	b := newBench(t, "a.test:plain")
	b.plain.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, err := b.client().Get("http://a.test:" + port(b.plain) + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil || string(body) != "half" {
		t.Errorf("%q, %v", body, err)
	}
	if d := b.closeLine(t); d.Reason == "" || d.Host != "a.test" {
		t.Errorf("%+v", d)
	}
}

func TestHealth(t *testing.T) {
	b := newBench(t)
	resp, err := http.Get("http://" + b.addr + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"status":"healthy"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for _, other := range []string{"/", "/health/x", "/healthy"} {
		resp, err := http.Get("http://" + b.addr + other)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", other, resp.StatusCode)
		}
	}
}
