// Package presets knows the hosts that agents and package managers need: one
// file for each, with the page that says so beside every host.
package presets

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

//go:embed *.yaml
var files embed.FS

// Preset is a named list of hosts.
type Preset struct {
	About string `yaml:"about"`
	Hosts []Host `yaml:"hosts"`
}

// Host is a host pattern, and the page that says what it is needed for.
type Host struct {
	Host   string `yaml:"host"`
	For    string `yaml:"for"`
	Source string `yaml:"source"`
	Login  bool   `yaml:"login"` // the agent's login is sent there
}

// Names are those that there are, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // the files are part of the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), path.Ext(e.Name())))
	}
	slices.Sort(names)
	return names
}

// Find returns the preset of that name, if there is one.
func Find(name string) (Preset, bool) {
	if !slices.Contains(Names(), name) {
		return Preset{}, false
	}
	b, err := files.ReadFile(name + ".yaml")
	var p Preset
	if err == nil {
		err = yaml.UnmarshalWithOptions(b, &p, yaml.DisallowUnknownField())
	}
	if err != nil {
		panic(fmt.Sprintf("preset %s: %v", name, err)) // the test reads them all
	}
	return p, true
}
