package runtime

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"carboy/runtime/manifest"
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// setEnv merges, later over earlier: the bottle's, the agent's, the flags'. What
// is overridden need not be there to forward.
func (p *Plan) setEnv(r Request, a manifest.Agent, b manifest.Bottle) error {
	p.env, p.secret, p.secretFiles = map[string]string{}, map[string]bool{}, map[string][]byte{}
	asked := map[string]manifest.Source{}
	for _, env := range []map[string]string{b.Env, a.Env} {
		for name, text := range env {
			asked[name] = manifest.ParseSource(text)
		}
	}
	files := map[string]manifest.Source{}
	for name, text := range b.Secrets {
		files[name] = manifest.ParseSource(text)
	}
	given := slices.Concat(r.EnvFile, r.Env)
	for _, e := range given {
		name, _, _ := strings.Cut(e, "=")
		delete(asked, name)
	}
	if err := give(r, asked, files); err != nil {
		return err
	}
	if err := missing(r.Lookup, given, asked, files); err != nil {
		return err
	}
	if err := errors.Join(p.want(r, asked, false), p.want(r, files, true)); err != nil {
		return err
	}
	for i, e := range given {
		name, value, err := Variable(e, r.Lookup)
		if err != nil {
			return err
		}
		if err := p.addEnv(name, value); err != nil {
			return err
		}
		p.secret[name] = i < len(r.EnvFile) || !strings.Contains(e, "=")
		p.Env = append(p.Env, name)
	}
	p.Env, p.Secrets = sortedSet(p.Env), sortedSet(p.Secrets)
	return nil
}

func (p *Plan) addEnv(name, value string) error {
	if !variableName.MatchString(name) {
		return invalid("environment variable name %q", name)
	}
	if strings.ContainsRune(value, 0) {
		return invalid("value of environment variable %s holds a NUL byte", name)
	}
	p.env[name] = value
	return nil
}

// Variable reads NAME=VALUE, or NAME to forward it by lookup. Its errors are of
// class errdefs.ErrInvalidArgument and hold no value.
func Variable(e string, lookup func(name string) (string, bool)) (name, value string, err error) {
	name, value, given := strings.Cut(e, "=")
	switch {
	case !variableName.MatchString(name):
		err = invalid("environment variable name %q", name)
	case !given:
		value, err = forward(name, lookup)
	}
	return name, value, err
}

// forward takes a variable from the caller. sudo drops nearly all of them, so
// the message says how to keep this one.
func forward(name string, lookup func(string) (string, bool)) (string, error) {
	if !variableName.MatchString(name) {
		return "", invalid("environment variable name %q", name)
	}
	if value, ok := lookup(name); ok {
		return value, nil
	}
	return "", notSet(lookup, name)
}

// missing is one error for all that cannot be forwarded, so that one call more
// is enough.
func missing(lookup func(string) (string, bool), given []string, asked ...map[string]manifest.Source) error {
	wanted := slices.DeleteFunc(slices.Clone(given), func(e string) bool { return strings.Contains(e, "=") })
	for _, sources := range asked {
		for _, from := range sources {
			if from.Kind == manifest.Forwarded {
				wanted = append(wanted, from.Text)
			}
		}
	}
	names := slices.DeleteFunc(sortedSet(wanted), func(name string) bool {
		_, ok := lookup(name)
		return ok || !variableName.MatchString(name)
	})
	if len(names) == 0 {
		return nil
	}
	return notSet(lookup, names...)
}

func notSet(lookup func(string) (string, bool), names ...string) error {
	which, it := "environment variable "+names[0]+" is", "it"
	if len(names) > 1 {
		which, it = "environment variables "+strings.Join(names, ", ")+" are", "them"
	}
	if _, sudo := lookup("SUDO_UID"); sudo {
		return invalid("%s not set: sudo drops %s unless called as `sudo --preserve-env=%s carboy ...`, or env_keep in sudoers has %s", which, it, strings.Join(names, ","), it)
	}
	return invalid("%s not set and cannot be forwarded", which)
}

// environment is the image's, then the way to the proxy, then what was asked
// for. curl reads http_proxy in lower case only, others upper case only.
func (b *Bottle) environment(image []string) []string {
	url := "http://" + b.listen().String()
	env := append([]string(nil), image...)
	for _, name := range []string{"http_proxy", "https_proxy"} {
		env = append(env, name+"="+url, strings.ToUpper(name)+"="+url)
	}
	const local = "localhost,127.0.0.1,::1"
	env = append(env, "no_proxy="+local, "NO_PROXY="+local, "CARBOY="+b.Name)
	env = append(env, b.provisions().Env()...)
	if b.options.Runsc != "" {
		env = append(env, "BUN_JSC_useJIT=0") // Bun's JIT crashes under gVisor
	}
	if b.plan.TTY {
		env = append(env, "TERM="+b.options.Term)
	}
	for _, name := range b.plan.Env {
		env = append(env, name+"="+b.plan.env[name])
	}
	return lastWins(env)
}

// lastWins drops earlier values of a variable: programs differ in which of two
// they take.
func lastWins(env []string) []string {
	at := map[string]int{}
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}
