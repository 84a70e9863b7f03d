package netns

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// child is a process of one bottle: it says what it has made, a line each, and
// is killed at some point.
func child() error {
	var c Config
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		return err
	}
	n, err := New(c)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(n.Record()); err != nil {
		return err
	}
	if err := n.Open(); err != nil {
		return err
	}
	if err := n.Attach(context.Background()); err != nil {
		return err
	}
	fmt.Println("up")
	if err := n.down(); err != nil {
		return err
	}
	fmt.Println("down")
	return nil
}

// killAt starts a bottle's process, kills it so long after its record is known
// or after it is up, and returns the record and whether it was early enough.
func killAt(t *testing.T, c Config, up bool, after time.Duration) (r Record, died bool) {
	t.Helper()
	text, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	lines.Scan()
	must(t, json.Unmarshal(lines.Bytes(), &r))
	if up {
		lines.Scan()
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for lines.Scan() {
	}
	err = cmd.Wait()
	if err != nil && !killed(err) {
		t.Fatal(err)
	}
	return r, killed(err)
}

// TestKilled sweeps both ways for as long as the kill still hits.
func TestKilled(t *testing.T) {
	eachPlugins(t, func(t *testing.T, dir string) {
		for name, up := range map[string]bool{"on the way up": false, "on the way down": true} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				before := w.snapshot(t)
				hits, missed := 0, 0
				for after := time.Duration(0); missed < 3; after += 2 * time.Millisecond {
					c := w.config(fmt.Sprintf("k%d", after.Microseconds()), dir)
					r, died := killAt(t, c, up, after)
					if died {
						hits++
					} else {
						missed++
					}
					must(t, Detach(t.Context(), r, ""))
					// A link killed before it had a route is the kernel's to remove.
					await(t, fmt.Sprintf("clean after a kill at %s", after), func() bool { return w.snapshot(t) == before })
				}
				if hits < 5 {
					t.Errorf("only %d kills hit", hits)
				}
				t.Logf("%d kills hit", hits)
			})
		}
	})
}

// TestKilledBesideOthers has one bottle up all the time, which keeps its way
// out, and a second at the end that finds nothing in its way.
func TestKilledBesideOthers(t *testing.T) {
	w := newWorld(t)
	dir := pluginDirs(t)[0]
	site := serve(t, w.internet, site, 443)
	n := w.bottle(t, w.config("live", dir))
	before := w.snapshot(t)
	var left []Record
	for i := range 8 {
		r, _ := killAt(t, w.config(fmt.Sprintf("k%d", i), dir), false, time.Duration(i)*3*time.Millisecond)
		left = append(left, r)
	}
	second := w.bottle(t, w.config("second", dir)) // the dead are not yet reaped
	for _, b := range []*Network{n, second} {
		if !asks(b.egress, "tcp", "93.184.216.34", 443) {
			t.Error("no way out")
		}
	}
	if site.arrived.Load() != 2 {
		t.Errorf("%d arrived", site.arrived.Load())
	}
	for _, r := range left {
		must(t, Detach(t.Context(), r, ""))
	}
	must(t, second.down())
	await(t, "as before", func() bool { return withoutLast(w.snapshot(t)) == withoutLast(before) })
}
