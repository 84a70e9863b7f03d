package proxy

import (
	"encoding/json"
	"testing"

	"carboy/runtime/proxy/policy"
)

func TestReloaded(t *testing.T) {
	own, err := json.Marshal(policy.ReloadLine{Event: policy.EventReload, Status: policy.Reloaded, Hash: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]struct {
		hash, err string
		ok        bool
	}{
		string(own): {"abc", "", true},
		`{"level":"info","component":"pipelock","event":"config_reload","status":"success","detail":"mode=strict","config_hash":"abc","time":"2026-11-25T08:00:00Z","message":"configuration reloaded"}`: {"abc", "", true},
		`{"level":"error","component":"pipelock","event":"error","method":"CONFIG_RELOAD","resource":"x","error":"rejected: security downgrade"}`:                                                        {"", "rejected: security downgrade", true},
		`pipelock: config reload failed: invalid config`:                       {"", "invalid config", true},
		`{"event":"config_reload","status":"refused","detail":"policy"}`:       {"", "policy", true},
		`{"event":"error","method":"CONNECT","error":"dial"}`:                  {"", "", false},
		`{"event":"decision","host":"config_reload","reason":"config_reload"}`: {"", "", false},
		`{"event":"blocked","url":"config reload failed: x"}`:                  {"", "", false},
		``: {"", "", false},
	} {
		got, ok := Reloaded([]byte(line))
		if ok != want.ok || got.Hash != want.hash || (got.Err == nil) != (want.err == "") || got.Err != nil && got.Err.Error() != want.err {
			t.Errorf("%s: %+v, %v", line, got, ok)
		}
	}
}

func TestConfigHashIsOfTheFile(t *testing.T) {
	for _, e := range []Engine{pipelock(), allowlist()} {
		one, err := e.Files(Config{Policy: policyOf(t, "", "a.test"), Listen: listen})
		if err != nil {
			t.Fatal(err)
		}
		other, err := e.Files(Config{Policy: policyOf(t, "", "b.test"), Listen: listen})
		if err != nil {
			t.Fatal(err)
		}
		if e.ConfigHash(one) == e.ConfigHash(other) || e.ConfigHash(one) == e.ConfigHash(nil) {
			t.Errorf("%s: the hash says nothing", e.Name)
		}
	}
}

func TestPipelockReloads(t *testing.T) {
	usual := policyOf(t, "", "a.test", "b.test")
	read := usual
	read.Intercept = usual.Allow[:1]
	less, more, none := read, read, read
	less.Allow = usual.Allow[:1]
	more.Allow = policyOf(t, "", "a.test", "b.test", "c.test").Allow
	none.Allow, none.Intercept = usual.Allow[1:], nil
	paused := read
	paused.Paused = true
	for name, tt := range map[string]struct {
		from, to policy.Policy
		want     bool
	}{
		"more":                           {usual, unread(more), true},
		"less":                           {unread(more), usual, true},
		"less beside what is read":       {read, less, true},
		"paused":                         {read, paused, true},
		"resumed":                        {paused, read, true},
		"more that passes through":       {read, more, false},
		"nothing is read any more":       {read, none, false},
		"something is read after a time": {usual, read, false},
	} {
		if got := pipelock().Reloads(Config{Policy: tt.from}, Config{Policy: tt.to}); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
		if !allowlist().Reloads(Config{Policy: tt.from}, Config{Policy: tt.to}) {
			t.Errorf("%s: the allowlist engine does not", name)
		}
	}
}

func unread(p policy.Policy) policy.Policy {
	p.Intercept = nil
	return p
}

func TestPaused(t *testing.T) {
	p := policyOf(t, "", "a.test")
	p.Paused = true
	config := pipelockYAML(t, Config{Policy: p})
	if got := texts(config["api_allowlist"]); len(got) != 1 || got[0] != "nothing.invalid" || at(config, "kill_switch.enabled") != true {
		t.Errorf("%v", config)
	}
	files, err := allowlist().Files(Config{Policy: p, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	var got policy.Policy
	if err := json.Unmarshal(files[policy.File], &got); err != nil || !got.Paused {
		t.Errorf("%+v, %v", got, err)
	}
}
