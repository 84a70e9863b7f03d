package runtime

import (
	"cmp"
	"slices"

	"carboy/runtime/manifest"
	"carboy/runtime/provision"
)

// setProvider settles what kind of agent it is and what its program is told. It
// comes after the environment, which may hold its login already.
func (p *Plan) setProvider(r Request, a manifest.Agent) error {
	if err := checkCommand(a); err != nil {
		return err
	}
	p.provision = provision.Agent{
		Provider: cmp.Or(r.Provider, a.Provider, provision.Generic), Prompt: a.Prompt, Skills: r.Skills,
		Model: cmp.Or(r.Model, a.Model), Permissions: a.Permissions, Args: a.Args, Task: r.Task, RemoteControl: r.RemoteControl,
	}
	g := p.provision
	if err := g.Check(); err != nil {
		return ifWritten(r.Provider == "" && r.Model == "" && !r.RemoteControl, a.At(providerKey(a))).Fault(err)
	}
	p.Provider, p.HasPrompt, p.HasTask = g.Provider, g.Prompt != "", g.Task != ""
	if len(p.Command) == 0 { // else nobody is told
		p.Model, p.Permissions = g.Model, g.Permissions
	}
	p.RemoteControl = g.RemoteControl
	for _, s := range r.Skills {
		p.Skills = append(p.Skills, s.Name)
	}
	if own := g.Provider != provision.Generic; own && len(p.Command) > 0 && (p.HasTask || g.RemoteControl || r.Model != "") {
		return invalid("a task, a model and remote control are for the program of provider %s: here is another command, put it there", g.Provider)
	} else if !own && len(a.Args) > 0 {
		return a.At("args").Fault(invalid("args are for a provider's program: put them into the command"))
	}
	return p.addLogin(r)
}

// providerKey is what of an agent its provider may not know.
func providerKey(a manifest.Agent) string {
	if a.Permissions != "" {
		return "permissions"
	}
	return "model"
}

// checkCommand refuses a manifest that names a command, and what only the
// provider's would be told.
func checkCommand(a manifest.Agent) error {
	if len(a.Command) == 0 {
		return nil
	}
	for _, key := range []struct {
		name  string
		given bool
	}{{"permissions", a.Permissions != ""}, {"model", a.Model != ""}, {"args", len(a.Args) > 0}} {
		if key.given {
			return a.At(key.name).Fault(invalid("%s is for a provider's own program, and command names another: put it into the command", key.name))
		}
	}
	return nil
}

// addLogin forwards what logs the provider's program in, where the caller has
// it and nothing else was said. An agent of a project gets nothing unasked.
func (p *Plan) addLogin(r Request) error {
	names := p.provision.Credentials()
	if i := slices.IndexFunc(names, func(name string) bool { return slices.Contains(p.Env, name) }); i >= 0 {
		p.Login = names[i]
		return nil
	}
	if p.Project {
		return nil
	}
	for _, name := range names {
		value, err := r.login(name)
		if err != nil {
			return err
		}
		if value == "" {
			continue
		}
		p.Login, p.Env, p.secret[name] = name, sortedSet(append(p.Env, name)), true
		return p.addEnv(name, value)
	}
	return nil
}

// login is the caller's variable, else what he has stored.
func (r Request) login(name string) (string, error) {
	if value, ok := r.Lookup(name); ok || r.Stored == nil {
		return value, nil
	}
	return r.Stored(name)
}

// LoginNames are the variables of which one would log the provider's program
// in, where none was found.
func (p *Plan) LoginNames() []string {
	if p.Login != "" {
		return nil
	}
	return p.provision.Credentials()
}
