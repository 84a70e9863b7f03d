package manifest

import (
	"fmt"
	"strings"
)

// Kind is where a value comes from.
type Kind int

// Kinds of values of variables and secrets.
const (
	Literal    Kind = iota // what is written
	Forwarded              // a variable of the caller
	Prompted               // asked on the terminal
	Credential             // of systemd
	File                   // of a flag only: a file of the caller
	Descriptor             // of a flag only: what the caller opened
)

// Source is a value as a manifest or a flag writes it.
type Source struct {
	Kind Kind
	Text string // the value, or a name, a question, a path, a number
}

// ParseSource reads a value of a manifest's env or secrets.
func ParseSource(text string) Source {
	if name, ok := strings.CutPrefix(text, "${"); ok && strings.HasSuffix(name, "}") {
		return Source{Forwarded, strings.TrimSuffix(name, "}")}
	}
	if question, ok := strings.CutPrefix(text, "?"); ok {
		return Source{Prompted, strings.TrimSpace(question)}
	}
	if name, ok := strings.CutPrefix(text, "credential:"); ok {
		return Source{Credential, name}
	}
	return Source{Literal, text}
}

// Check refuses names that nothing can have. Its errors hold no value.
func (s Source) Check() error {
	switch {
	case s.Kind == Forwarded && !variableName.MatchString(s.Text):
		return fmt.Errorf("environment variable name %.100q", s.Text)
	case s.Kind == Credential && !credentialName(s.Text):
		return fmt.Errorf("credential %.300q: give its name alone", s.Text)
	}
	return nil
}

func checkValue(text string) error { return ParseSource(text).Check() }

// credentialName is systemd's rule (credential_name_valid), so that a name
// leads to no other directory.
func credentialName(s string) bool {
	printable := !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' })
	return s != "" && len(s) <= 255 && s != "." && s != ".." && printable
}

// ParseGiven reads a value of --secret.
func ParseGiven(text string) Source {
	if number, ok := strings.CutPrefix(text, "fd:"); ok {
		return Source{Descriptor, number}
	}
	if name, ok := strings.CutPrefix(text, "credential:"); ok {
		return Source{Credential, name}
	}
	return Source{File, text}
}

// OnlyKey is the one key that the caller's ssh-agent has.
const OnlyKey = "agent"

// AgentKey says whether a key is in the caller's ssh-agent, and by which comment
// or fingerprint, empty for OnlyKey.
func AgentKey(key string) (name string, ok bool) {
	if key == OnlyKey {
		return "", true
	}
	return strings.CutPrefix(key, OnlyKey+":")
}
