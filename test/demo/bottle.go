package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"carboy/test/world"
)

// performance is what came of the agent in its bottle.
type performance struct {
	outcomes []outcome
	strays   []world.Arrival
	plan     string // as carboy shows it
	timings  string
	first    time.Duration // until the agent's first word
}

// commandLine is carboy's.
func (s *stage) commandLine() []string {
	engine := []string{"--proxy", "allowlist"}
	if s.binary != "" {
		engine = []string{"--proxy", "pipelock", "--proxy-binary", s.binary}
	}
	args := append([]string{"run", "--yes", "--timings", "--image", image, "--runtime", "runc"}, engine...)
	return append(args, "--allow", "allowed.test", "--", "/"+agentDir+"/agent")
}

// fromBottle runs the agent sealed.
func (s *stage) fromBottle(ctx context.Context) (p performance, err error) {
	s.Reset()
	cmd, err := s.containerd.Carboy(ctx, s.carboy, namespace, s.commandLine()...)
	if err != nil {
		return p, err
	}
	var stderr bytes.Buffer
	stdout := stopwatch{start: time.Now()}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return p, fmt.Errorf("carboy run: %w\n%s", err, &stderr)
	}
	if err := s.Settle(ctx); err != nil {
		return p, err
	}
	p.first = stdout.first
	p.plan, p.timings = split(stderr.String())
	p.outcomes, p.strays, err = judge(stdout.text.String(), s.Arrivals(""))
	return p, err
}

// split parts what carboy tells before the start from the timings at the end.
func split(stderr string) (plan, timings string) {
	lines := strings.SplitAfter(stderr, "\n")
	for i, line := range lines {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "begin" && f[1] == "took" {
			return strings.Join(lines[:i], ""), strings.Join(lines[i:], "")
		}
	}
	return stderr, ""
}

// stopwatch keeps what is written, and when the first of it came.
type stopwatch struct {
	text  bytes.Buffer
	start time.Time
	first time.Duration
}

func (s *stopwatch) Write(b []byte) (int, error) {
	if s.first == 0 {
		s.first = time.Since(s.start)
	}
	return s.text.Write(b)
}
