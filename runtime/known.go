package runtime

import (
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"carboy/runtime/initproto"
	"carboy/runtime/proxy"
)

// secretValue is one that must not leave the bottle.
type secretValue struct{ name, text string }

// secretValues came from the caller, a file or a credential; what stands in a
// manifest or on the command line is none.
func (p *Plan) secretValues() (values []secretValue) {
	for _, name := range slices.Sorted(maps.Keys(p.secret)) {
		if p.secret[name] && !ordinaryName(name) {
			values = append(values, secretValue{name, p.env[name]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.secretFiles)) {
		values = append(values, secretValue{name, string(p.secretFiles[name])})
	}
	return values
}

// broughtValues are those of a further command that its asker forwarded.
func broughtValues(s initproto.Spec) (values []secretValue) {
	for _, e := range s.Env {
		name, text, _ := strings.Cut(e, "=")
		if slices.Contains(s.Forwarded, name) && !ordinaryName(name) {
			values = append(values, secretValue{name, text})
		}
	}
	return values
}

// knownSecrets are the texts that the engine looks for.
func (p *Plan) knownSecrets() (known []string) {
	if p.Proxy.Engine != proxy.Pipelock {
		return nil
	}
	for _, value := range p.secretValues() {
		known = append(known, searched(value.text)...)
	}
	return known
}

// unspoken are the texts that no log shows, whatever the engine looks for.
func unspoken(values []secretValue) (all []string) {
	for _, value := range values {
		for _, part := range append(leaves(value.text), value.text) {
			if ordinaryURL(part) {
				continue
			}
			all = append(all, part)
			if part != value.text || !isJSON(part) { // whose lines are brackets and names of fields
				all = append(all, strings.Split(part, "\n")...)
			}
		}
	}
	return all
}

// Unsearched names the secrets that pipelock cannot look for, of those that have
// been fetched: they are too short, or the address of a server.
func (p *Plan) Unsearched() (names []string) {
	if p.Proxy.Engine != proxy.Pipelock {
		return nil
	}
	for _, value := range p.secretValues() {
		if value.text != "" && len(searched(value.text)) == 0 {
			names = append(names, value.name)
		}
	}
	return sortedSet(names)
}

// searched are the leaves of a value; where all are too short, its longest line.
func searched(value string) []string {
	known := searchable(leaves(value))
	if len(known) > 0 {
		return known
	}
	longest := slices.MaxFunc(strings.Split(value, "\n"), func(a, b string) int { return len(a) - len(b) })
	return searchable([]string{longest})
}

func searchable(values []string) []string {
	return slices.DeleteFunc(values, func(value string) bool { return !proxy.Searchable(value) || ordinaryURL(value) })
}

// leaves are the texts in what is JSON, whose lines are in other JSON too, and
// else the value itself.
func leaves(value string) []string {
	if !isJSON(value) {
		return []string{value}
	}
	decoder := json.NewDecoder(strings.NewReader(value))
	decoder.UseNumber() // as it is written
	var document any
	if err := decoder.Decode(&document); err != nil {
		return []string{value}
	}
	return texts(document)
}

func isJSON(value string) bool {
	trimmed := strings.TrimSpace(value)
	return (strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[")) && json.Valid([]byte(trimmed))
}

func texts(document any) (all []string) {
	switch v := document.(type) {
	case string:
		return []string{v}
	case json.Number:
		return []string{v.String()}
	case []any:
		for _, item := range v {
			all = append(all, texts(item)...)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if !fieldName.MatchString(key) {
				all = append(all, key)
			}
			all = append(all, texts(v[key])...)
		}
	}
	return all
}

// fieldName is a key that is no secret, as access_token or registry1.test: to
// look for it would stop every message that speaks of such a field or host.
var fieldName = regexp.MustCompile(`^[A-Za-z_-]*$|^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]+)?$`)

// ordinaryName says that a variable's value is known to everybody, and part of
// many messages.
func ordinaryName(name string) bool {
	ordinary := []string{"LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "HOME", "PATH", "PWD", "USER", "LOGNAME", "SHELL", "EDITOR", "PAGER"}
	return slices.Contains(ordinary, name) || strings.HasPrefix(name, "LC_")
}

// ordinaryURL says that a value is the address of a server, as https://api.test/v1:
// to look for it would stop all that is sent there.
func ordinaryURL(value string) bool {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	return !slices.ContainsFunc(strings.Split(u.Path, "/"), func(part string) bool { return len(part) >= proxy.ShortestSecret })
}
