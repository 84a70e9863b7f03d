package main

import (
	"net/http"
	"strings"
)

// verdictHeader marks an answer that is the engine's refusal; a target cannot
// pretend to it.
const verdictHeader = "X-Carboy-Verdict"

// dropHopByHop removes what concerns one connection only: the headers that
// Connection lists, and those that are known to (RFC 9110, 7.6.1).
func dropHopByHop(h http.Header) {
	for _, line := range h.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings"} {
		h.Del(name)
	}
	for name := range h {
		if strings.HasPrefix(strings.ToLower(name), "proxy-") {
			delete(h, name)
		}
	}
}

// isWebSocket is true for a request to leave HTTP.
func isWebSocket(h http.Header) bool {
	for _, line := range h.Values("Upgrade") {
		if strings.Contains(strings.ToLower(line), "websocket") {
			return true
		}
	}
	return false
}
