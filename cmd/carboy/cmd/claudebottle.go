package cmd

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"carboy/runtime/manifest"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/skill"
)

// claudeBottle is claude-bottle.json as bot-bottle read it on 2026-05-12.
// Keys that are not here are told.
type claudeBottle struct {
	Bottles map[string]oldBottle `json:"bottles"`
	Agents  map[string]oldAgent  `json:"agents"`
	more    []string
}

type oldBottle struct {
	Env     map[string]any `json:"env"`
	SSH     []oldSSH       `json:"ssh"`
	Git     []oldGit       `json:"git"`
	Egress  oldEgress      `json:"egress"`
	Runtime string         `json:"runtime"`
}

type oldSSH struct {
	Host, IdentityFile, Hostname, User, KnownHostKey string
	Port                                             any // text or number
}

type oldGit struct {
	Name, Upstream, IdentityFile, KnownHostKey string
	ExtraHosts                                 map[string]string
}

type oldEgress struct {
	Allowlist []string `json:"allowlist"`
	DLP       string   `json:"dlp_action"`
}

type oldAgent struct {
	Bottle string   `json:"bottle"`
	Skills []string `json:"skills"`
	Prompt string   `json:"prompt"`
}

func readClaudeBottle(text []byte) (c claudeBottle, err error) {
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("not a claude-bottle.json: %w", inJSON(err))
	}
	if len(c.Bottles)+len(c.Agents) == 0 {
		return c, errors.New("not a claude-bottle.json: it has neither bottles nor agents")
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return c, err
	}
	c.more = unknown("", all, "bottles", "agents")
	for _, of := range []struct {
		kind  string
		known []string
	}{{"bottles", []string{"env", "ssh", "git", "egress", "runtime"}}, {"agents", []string{"bottle", "skills", "prompt"}}} {
		var entries map[string]map[string]json.RawMessage
		if err := json.Unmarshal(all[of.kind], &entries); all[of.kind] != nil && err != nil {
			return c, err
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			c.more = append(c.more, unknown(of.kind+"."+name+".", entries[name], of.known...)...)
		}
	}
	return c, nil
}

// inJSON names the place in the file instead of types of this program.
func inJSON(err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("%s cannot be %s", cmp.Or(kind.Field, "the whole"), kind.Value)
	}
	return err
}

func unknown(prefix string, have map[string]json.RawMessage, known ...string) (names []string) {
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if !slices.Contains(known, key) {
			names = append(names, prefix+key)
		}
	}
	return names
}

// conversion collects drafts, and what a person has to know of them.
type conversion struct {
	dir, image string
	drafts     []draft
	notes      []string
	names      map[string]map[string]string // old to new, by kind
}

func (x *conversion) note(format string, args ...any) {
	x.notes = append(x.notes, fmt.Sprintf(format, args...))
}

func (x *conversion) all(old claudeBottle) error {
	for _, key := range old.more {
		x.note("%s has no equivalent", key)
	}
	x.rename("bottle", slices.Sorted(maps.Keys(old.Bottles)))
	x.rename("agent", slices.Sorted(maps.Keys(old.Agents)))
	if x.image == "" && len(old.Bottles) > 0 {
		d, _ := draftDockerfile(x.dir, "claude")
		x.drafts = append(x.drafts, d)
	}
	for _, name := range slices.Sorted(maps.Keys(old.Bottles)) {
		d, err := draftBottle(x.dir, x.names["bottle"][name], x.bottle("bottle "+name, old.Bottles[name]))
		if err != nil {
			return err
		}
		x.drafts = append(x.drafts, d)
	}
	for _, name := range slices.Sorted(maps.Keys(old.Agents)) {
		if err := x.agent(name, old.Agents[name]); err != nil {
			return err
		}
	}
	x.note("Claude Code's login was taken from $CLAUDE_BOTTLE_OAUTH_TOKEN: give it to `carboy login claude`, or set $CLAUDE_CODE_OAUTH_TOKEN, which is forwarded (through sudo with --preserve-env)")
	return nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9._-]+`)

// rename finds names that are valid here, different from each other.
func (x *conversion) rename(kind string, names []string) {
	taken := map[string]bool{}
	x.names[kind] = map[string]string{}
	for _, old := range names {
		base := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(old), "-"), "-._")
		base = strings.Trim(base[:min(len(base), 36)], "-._") // room for -999
		if base == "" {
			base = kind
		}
		name := base
		for i := 2; taken[name]; i++ {
			name = base + "-" + strconv.Itoa(i)
		}
		taken[name] = true
		x.names[kind][old] = name
		if name != old {
			x.note("%s %q is called %s", kind, old, name)
		}
	}
}

func (x *conversion) agent(name string, a oldAgent) error {
	bottle, ok := x.names["bottle"][a.Bottle]
	if !ok {
		x.note("agent %s names bottle %q, which is not there: it is left out", name, a.Bottle)
		return nil
	}
	prompt := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, a.Prompt))
	var skills []string
	for _, s := range a.Skills {
		if skill.CheckName(s) != nil {
			x.note("agent %s: skill %q is no name here, and is left out", name, s)
			continue
		}
		skills = append(skills, s)
	}
	d, err := draftAgent(x.dir, x.names["agent"][name], agentDraft{Bottle: bottle, Provider: "claude", Skills: skills}, prompt)
	x.drafts = append(x.drafts, d)
	return err
}

func (x *conversion) bottle(what string, old oldBottle) bottleDraft {
	b := bottleDraft{Image: x.image, Runtime: x.oneOf(what+": runtime", old.Runtime, "runc", "runsc"), Env: x.env(what, old.Env)}
	if x.image == "" {
		b.Build = &buildDraft{Context: "claude"}
	}
	b.Egress = egressDraft{Presets: []string{"claude"}, DLP: x.oneOf(what+": dlp_action", old.Egress.DLP, "block", "warn")}
	for _, host := range old.Egress.Allowlist {
		x.allow(&b, what, host)
	}
	for _, s := range old.SSH {
		x.ssh(&b, what, s)
	}
	for _, g := range old.Git {
		x.git(&b, what, g)
	}
	return b
}

func (x *conversion) oneOf(what, value string, known ...string) string {
	if value == "" || slices.Contains(known, value) {
		return value
	}
	x.note("%s %q has no equivalent", what, value)
	return ""
}

// env takes values as they are: both have ?TEXT and ${NAME}.
func (x *conversion) env(what string, old map[string]any) map[string]string {
	env := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		value, ok := old[name].(string)
		from := manifest.ParseSource(value)
		switch {
		case !ok || !isVariable(name):
			x.note("%s: env %q is no name with a text, and is left out", what, name)
		case from.Kind == manifest.Credential || from.Kind == manifest.Forwarded && !isVariable(from.Text):
			x.note("%s: env %s has a plain value that means something else here, and is left out", what, name)
		default:
			env[name] = value
		}
	}
	return env
}

func isVariable(name string) bool { return variable.MatchString(name) && !strings.Contains(name, "=") }

func (x *conversion) allow(b *bottleDraft, what, host string) {
	if _, err := policy.ParsePattern(host); err != nil {
		x.note("%s: %v: it is not allowed", what, err)
		return
	}
	if !slices.Contains(b.Egress.Allow, host) {
		b.Egress.Allow = append(b.Egress.Allow, host)
	}
}
