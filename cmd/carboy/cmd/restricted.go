package cmd

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// restrictedGroups is the key of the configuration that names them. It is no
// flag and no variable.
const restrictedGroups = "restricted_groups"

// restriction holds a member of a restricted group to what is permitted. Nil
// holds nobody.
type restriction struct {
	who   invoker.User
	group string
	given []string // the environment that he had
}

// restrictionOf finds who is behind sudo. Whoever has no rights but his own needs
// no restriction, and root knows none.
func restrictionOf(ctx context.Context, groups []string) (*restriction, error) {
	if len(groups) == 0 || os.Geteuid() != 0 {
		return nil, nil
	}
	who, err := invoker.Current()
	if err != nil || who.UID == 0 {
		return nil, err
	}
	if err := shedLimits(); err != nil {
		return nil, err
	}
	group, err := who.MemberOf(ctx, groups)
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w: until that is put right carboy is for root alone: %w", restrictedGroups, configFile, err, errdefs.ErrPermissionDenied)
	}
	if group == "" {
		return nil, nil
	}
	return &restriction{who: who, group: group}, nil
}

// hold ends the command line unless it is permitted, and takes from the process
// what its caller put in its environment. Nothing but the configuration has been
// looked at before.
func (r *restriction) hold(c *cobra.Command) error {
	if r == nil {
		return nil
	}
	flags, ok := permitted[commandPath(c)]
	if !ok {
		return r.refuse("`%s`", c.CommandPath())
	}
	var refused []string
	c.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(flags, f.Name) {
			refused = append(refused, "--"+f.Name)
		}
	})
	if len(refused) > 0 {
		return r.refuse("%s of `%s`", strings.Join(refused, ", "), c.CommandPath())
	}
	neverStop()
	r.given = os.Environ()
	return r.cleanEnvironment()
}

// refuse says who can change it.
func (r *restriction) refuse(format string, what ...any) error {
	return fmt.Errorf("group %s may not use %s: the operator of this host restricts it by %s in %s: %w",
		quote(r.group), fmt.Sprintf(format, what...), restrictedGroups, configFile, errdefs.ErrPermissionDenied)
}

// commandPath is what follows carboy, empty for carboy itself.
func commandPath(c *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), c.Root().Name()), " ")
}

// cleanEnvironment keeps variables of the caller from choosing what root's
// process reads, runs or talks to, in carboy or in a library.
func (r *restriction) cleanEnvironment() error {
	os.Clearenv()
	own := []string{"PATH=" + ownPath}
	for _, name := range ownVariables {
		if value, ok := r.lookup(name); ok {
			own = append(own, name+"="+value)
		}
	}
	for _, variable := range own {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("environment: %w", err)
		}
	}
	return nil
}

// lookup finds a variable that the caller gave, for his agent.
func (r *restriction) lookup(name string) (string, bool) {
	for _, variable := range slices.Backward(r.given) {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// dirs has the operator's agents alone. What they build on may have come with
// carboy.
func (r *restriction) dirs() []manifest.Dir {
	dirs := hostDirs()
	for i := range dirs {
		dirs[i].NoAgents = dirs[i].Path != manifest.OperatorDir
	}
	return dirs
}

// checkAgent wants one.
func (r *restriction) checkAgent(name string) error {
	if r != nil && name == "" {
		return r.refuse("`carboy run` without an agent of %s", manifest.OperatorDir)
	}
	return nil
}

// checkPlan keeps agents from the live directories that a member can read.
func (r *restriction) checkPlan(p *runtime.Plan) error {
	if w := p.Workspace; r != nil && w != nil && w.Mode != runtime.ModeCopy {
		return r.refuse("a workspace of mode %s", w.Mode)
	}
	return nil
}

// imager is as whom an agent's image is built and pulled. A member could trace a
// build's client that has his rights, and have the controller build anything by
// any name, the proxy's too; a credential helper of his would run without his
// limits, and others would wait for it.
func (r *restriction) imager(who invoker.User) (invoker.User, error) {
	if r == nil {
		return who, nil
	}
	return invoker.Root()
}

// explain says why an agent is not found that there may be elsewhere.
func (r *restriction) explain(err error) error {
	if r == nil || err == nil {
		return err
	}
	return fmt.Errorf("group %s runs agents of %s alone: %w", quote(r.group), manifest.OperatorDir, err)
}
