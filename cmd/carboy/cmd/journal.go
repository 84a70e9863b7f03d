package cmd

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"

	"carboy/runtime/initproto"
	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/veil"
)

// journalled makes each line of an agent an entry of its bottle's name, where
// our own output goes to systemd's journal: there an agent could pass its lines
// off as carboy's. The caller flushes when nothing more comes.
func journalled(bottle string, s initproto.Streams) (_ initproto.Streams, flush func()) {
	entries := func(to io.Writer, ours func() (bool, error)) (io.Writer, func()) {
		if is, err := ours(); err != nil || !is {
			return to, func() {}
		}
		lines := new(veil.Veil).Lines(func(line []byte) {
			fields := map[string]string{"SYSLOG_IDENTIFIER": bottle}
			// What fails is in the bottle's log. By our own stream it would count as ours.
			_ = journal.Send(string(bytes.TrimSuffix(line, []byte("\n"))), journal.PriInfo, fields)
		})
		return lines, lines.Flush
	}
	var out, err func()
	s.Stdout, out = entries(s.Stdout, journal.StdoutIsJournalStream)
	s.Stderr, err = entries(s.Stderr, journal.StderrIsJournalStream)
	return s, func() { out(); err() }
}

// deciding is whom the proxy's decisions are told where we are a service: the
// journal has each with its verdict.
func deciding() func(proxy.Decision) {
	if is, err := journal.StderrIsJournalStream(); err != nil || !is {
		return nil
	}
	return func(d proxy.Decision) {
		priority := journal.PriInfo
		if d.Verdict == policy.Deny {
			priority = journal.PriNotice
		}
		// Where it fails, the proxy's log has it.
		_ = journal.Send(strings.TrimSpace("proxy: "+d.Verdict+" "+d.Host+" "+d.Reason), priority, map[string]string{
			"SYSLOG_IDENTIFIER": "carboy", "CARBOY_VERDICT": d.Verdict, "CARBOY_HOST": d.Host,
			"CARBOY_PORT": strconv.Itoa(int(d.Port)), "CARBOY_METHOD": d.Method, "CARBOY_RULE": d.Rule,
		})
	}
}
