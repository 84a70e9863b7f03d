package runtime

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"

	"carboy/image"
	"carboy/runtime/buildproto"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// BuildPlan is how the agent's image is made before a start.
type BuildPlan struct {
	Image      string            `json:"image"`
	Context    string            `json:"context"`
	Dockerfile string            `json:"dockerfile,omitempty"`
	Target     string            `json:"target,omitempty"`
	Args       map[string]string `json:"args,omitempty"`
	Network    string            `json:"network"`

	at manifest.Place
}

// setBuild takes over what a bottle's manifest says, unless another image was
// asked for, or the one of the last build.
func (p *Plan) setBuild(r Request, b manifest.Bottle) error {
	m := b.Build
	if m == nil {
		return nil
	}
	bottle := strings.TrimSuffix(filepath.Base(b.Source), filepath.Ext(b.Source))
	if filepath.Dir(filepath.Dir(b.Source)) != manifest.OperatorDir { // users do not share names
		sum := sha256.Sum256([]byte(b.Source))
		bottle += "-" + hex.EncodeToString(sum[:4])
	}
	name, err := image.Normalize(cmp.Or(b.Image, image.BuiltName(bottle)))
	if err != nil {
		return err
	}
	plan := BuildPlan{
		Image: name, Context: from(filepath.Dir(b.Source), m.Context),
		Target: m.Target, Args: m.Args, Network: cmp.Or(m.Network, buildproto.NetworkEgress),
		at: b.At("build"),
	}
	if m.Dockerfile != "" {
		plan.Dockerfile = from(plan.Context, m.Dockerfile)
	}
	if !slices.Contains(buildproto.Networks, plan.Network) {
		return b.At("build", "network").Fault(invalid("network %q of build: choose egress, none or host", plan.Network))
	}
	if r.Image == "" {
		p.Build = &plan
	}
	return nil
}

// from makes a path absolute.
func from(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// Request is the plan's in the words of a build.
func (b *BuildPlan) Request() buildproto.Build {
	return buildproto.Build{
		Context: b.Context, File: b.Dockerfile, Names: []string{b.Image}, Target: b.Target, Args: b.Args, Network: b.Network, Progress: "auto",
	}
}

// Check looks for the directory and the Dockerfile, as the build will.
func (b *BuildPlan) Check(who invoker.User) error {
	if _, _, err := b.Request().Locate(who.Stat); err != nil {
		return b.at.Fault(invalid("%w", err))
	}
	return nil
}
