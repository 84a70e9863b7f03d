package manifest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// documents are what the decoder and the schema have to agree about.
var documents = map[string]struct{ good, bad []string }{
	"agent": {
		good: []string{
			"bottle: dev", "bottle: a.b-c_1\nprovider: claude\nmodel: x\npermissions: y", "bottle: x\nargs:\nenv: ~",
			"bottle: x\ncommand: [sh, -c, 'true', 1, true]", "bottle: x\nenv: {A: b, _B1: 1.10, C: true, D: ''}", "bottle: x\nskills: [a, b]",
		},
		bad: []string{
			"", "model: x", "bottle:", "bottle: 5", "bottle: ../x", "bottle: Dev", "bottle: [x]", "botle: x", "bottle: x\nprompt: y", "bottle: x\nprovider: clyde",
			"bottle: x\nenv: {a-b: c}", "bottle: x\nenv: [A=b]", "bottle: x\nenv: {A: [b]}", "bottle: x\nenv: {A: }", "bottle: x\ncommand: sh", "bottle: x\ncommand: [[sh]]",
			"bottle: x\nmodel: {}", "bottle: x\nskills: [../a]", "bottle: x\nskills: [/etc]", "bottle: x\nskills: ['']", "bottle: x\nname: y", "bottle: x\nprojects: true", "bottle: \"x\\n\"", "bottle: x\nmodel: \"\\e\"",
		},
	},
	"bottle": {
		good: []string{
			"image: a", "image: 5", "extends: a", "extends: [a, b]", "projects: true", "build: {context: .}", "build:", "egress: {allow: [a, {host: b, tls: intercept}, '*.c.test:8443']}",
			"egress: {presets: [claude, npm], private: [10.0.0.1], dlp: warn, tls: passthrough}", "limits: {memory: 1GiB, cpus: 1.5, pids: 64, disk: 5000000}", "limits: {cpus: 2, pids: 1.0}",
			"ssh: [{host: a, port: 22, known-hosts: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl]}]", "secrets: {token: '?', a.pem: 'credential:x', b: '${B}'}", "workspace: {mode: bind}", "runtime: runsc", "git: {instead-of: {a: b}}", "env: {A: \"b\\nc\"}",
		},
		bad: []string{
			"imag: a", "image: [a]", "extends: A", "extends: [[a]]", "extends: {a: b}", "projects: 'yes'", "projects: 1", "egress: {alow: [a]}", "egress: {allow: a}", "egress: {allow: [[a]]}",
			"egress: {allow: [{tls: intercept}]}", "egress: {allow: [{host: a, tls: maybe}]}", "egress: {presets: [clade]}", "egress: {dlp: drop}", "limits: {cpus: many}", "limits: {cpus: '1'}", "limits: {pids: 1.5}",
			"limits: {pids: -1}", "limits: [a]", "ssh: [{port: 22}]", "ssh: [{host: a, port: 0}]", "ssh: [{host: a, port: 65536}]", "ssh: {host: a}", "secrets: {../x: ?}", "secrets: {a: s3cret}", "secrets: {a: 5}", "secrets: {a: '${A'}", "secrets: {.x: ?}", "workspace: {mode: move}",
			"runtime: kata", "build: x", "build: {}", "env: {A: \"\\0\"}", "source: x", "parents: [x]", "proxy: {engine: squid}",
		},
	},
}

func TestSchemaAgreesWithDecoder(t *testing.T) {
	decoders := map[string]func(string) error{
		"agent":  func(text string) error { _, err := decode("x.md", []byte(text), &Agent{}); return err },
		"bottle": func(text string) error { _, err := decode("x.yaml", []byte(text), &Bottle{}); return err },
	}
	for kind, d := range documents {
		valid := validator(t, kind)
		for _, text := range d.good {
			if err := decoders[kind](text); err != nil {
				t.Errorf("decoder: %s %q: %v", kind, text, err)
			}
			if err := valid(text); err != nil {
				t.Errorf("schema: %s %q: %v", kind, text, err)
			}
		}
		for _, text := range d.bad {
			if decoders[kind](text) == nil {
				t.Errorf("decoder: %s %q is accepted", kind, text)
			}
			if valid(text) == nil {
				t.Errorf("schema: %s %q is accepted", kind, text)
			}
		}
	}
	if _, ok := Schema("egress"); ok {
		t.Error("a schema of nothing")
	}
}

// validator validates YAML by a schema.
func validator(t *testing.T, kind string) func(text string) error {
	t.Helper()
	b, ok := Schema(kind)
	if !ok {
		t.Fatalf("no schema of %s", kind)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("s.json")
	if err != nil {
		t.Fatal(err)
	}
	return func(text string) error {
		if strings.TrimSpace(text) == "" {
			text = "{}"
		}
		j, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			return err
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
		if err != nil {
			return err
		}
		return s.Validate(v)
	}
}
