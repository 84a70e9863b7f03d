package manifest

import "strings"

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
