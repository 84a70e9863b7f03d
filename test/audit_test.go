package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"carboy/runtime/audit"
)

// verified is what `carboy audit verify` says of one record.
type verified struct {
	Name, Error string
	Entries     int
	Complete    bool
}

func (r *rig) verifyAudit(t *testing.T, args ...string) (code int, all []verified) {
	t.Helper()
	o := r.run(t, append([]string{"audit", "verify", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(o.stdout), &all); err != nil || len(all) == 0 {
		t.Fatalf("%v: %v", err, o)
	}
	return o.code, all
}

// TestAudit changes a bottle's record after its end.
func TestAudit(t *testing.T) {
	r := newRig(t, 0)
	l := r.start(t, "--allow", "allowed.test", "--name", "audited")
	path := filepath.Join(filepath.Dir(l.inspect(t).ProxyLog), audit.File)
	if code, all := r.verifyAudit(t, l.name); code != 0 || all[0].Entries != 1 {
		t.Errorf("while it lives: %d, %+v", code, all)
	}
	l.stop(t)
	var entries []audit.Event
	if err := json.Unmarshal([]byte(r.mustRun(t, "audit", "show", "--json", "audited")), &entries); err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || entries[0].Event != "start" || entries[0].Who.UID != 0 || !slices.Equal(entries[0].Hosts, []string{"allowed.test"}) || entries[1].Event != "end" {
		t.Errorf("%+v", entries)
	}
	if out := r.mustRun(t, "audit", "show", "audited"); !strings.Contains(out, "allowed.test (image ") {
		t.Errorf("%s", out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(strings.Lines(string(text)))
	for name, tt := range map[string]struct{ text, says string }{
		"control":     {string(text), ""},
		"changed":     {strings.Replace(string(text), "allowed.test", "another.test", 1), "line 1 is not what line 2"},
		"cut off":     {lines[0], "line 2 is missing"},
		"its last":    {lines[0] + strings.Replace(lines[1], `"end"`, `"rm"`, 1), "line 2 was changed"},
		"first taken": {lines[1], "line 1 is entry 2"},
	} {
		write(t, path, tt.text, 0o600)
		code, all := r.verifyAudit(t, "audited")
		if tt.says == "" && (code != 0 || all[0].Error != "") || tt.says != "" && (code != 1 || !strings.Contains(all[0].Error, tt.says)) {
			t.Errorf("%s: %d, %+v", name, code, all)
		}
	}
	r.checkKilledAudit(t)
	if code, all := r.verifyAudit(t, "--all"); code != 1 || !slices.ContainsFunc(all, func(v verified) bool { return v.Error == "" }) {
		t.Errorf("all: %d, %+v", code, all)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if code, all := r.verifyAudit(t, "audited"); code != 1 || !strings.Contains(all[0].Error, "no audit log") {
		t.Errorf("removed: %d, %+v", code, all)
	}
}

// checkKilledAudit: nobody knows whether a record that was found is all of it.
func (r *rig) checkKilledAudit(t *testing.T) {
	t.Helper()
	for _, kill := range []bool{false, true} {
		l := r.start(t)
		if kill {
			if err := l.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			l.ended(t)
			r.sweep(t, "killed")
		} else {
			l.stop(t)
		}
		if code, all := r.verifyAudit(t, l.name); code != 0 || all[0].Complete == kill {
			t.Errorf("killed %v: %d, %+v", kill, code, all)
		}
	}
}
