package test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

// proved is a row of `carboy verify --json`.
type proved struct{ Bottle, Probe, Result, Seen string }

// verify runs it and returns the probes that have not passed.
func (r *rig) verify(t *testing.T, name string) (open []string, all []proved, took time.Duration) {
	t.Helper()
	start := time.Now()
	o := r.run(t, "verify", "--json", name)
	took = time.Since(start)
	if err := json.Unmarshal([]byte(o.stdout), &all); err != nil || len(all) == 0 {
		t.Fatalf("%v: %v", err, o)
	}
	want := 0
	for _, p := range all {
		if p.Result != "PASS" {
			open = append(open, p.Probe)
		}
		switch {
		case p.Result == "FAIL":
			want = 1
		case p.Result != "PASS" && want == 0:
			want = 2
		}
	}
	if o.code != want || o.stderr != "" {
		t.Errorf("status %d, want %d: %v", o.code, want, o)
	}
	slices.Sort(open)
	return open, all, took
}

// TestVerify: a sound bottle passes every probe, beside others.
func TestVerify(t *testing.T) {
	onEachRuntime(t, func(t *testing.T, r *rig, runtime string) {
		for _, engine := range engines(t) {
			for _, user := range []string{"", "root"} {
				l := r.start(t, append(engineFlags(engine), "--runtime", runtime, "--user", user, "--allow", "allowed.test")...)
				open, all, took := r.verify(t, l.name)
				if len(open) > 0 || took > 3*time.Second {
					t.Errorf("%s as %q: %v of %v in %v", engine, user, open, all, took)
				}
				t.Logf("%d probes in %v: %v", len(all), took, all)
				l.stop(t)
			}
		}
	})
}
