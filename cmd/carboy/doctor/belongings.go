package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"carboy/image/registry"
	"carboy/runtime"
	"carboy/runtime/proxy"
)

func engine(ctx context.Context, p *Patient) Finding {
	if p.Engine != proxy.Pipelock {
		return ok(p.Engine + ", which comes with carboy")
	}
	ref, err := reference.ParseDockerRef(p.ProxyImage)
	if err != nil {
		return fail(fmt.Sprintf("proxy-image %q: %v", p.ProxyImage, err), "carboy config shows where it is set")
	}
	images, err := p.daemon.Images(ctx)
	if err != nil {
		return failed(err)
	}
	if slices.ContainsFunc(images, func(i imageRecord) bool { return i.Ref == ref.String() }) {
		return ok("pipelock, " + ref.String())
	}
	out := "`carboy pull " + ref.String() + "`"
	if file, found := program(os.Getenv("PATH"), "pipelock"); found {
		out += ", or run with --proxy-binary " + file
	}
	return warn("pipelock's image is not here: the first run pulls "+ref.String(), out)
}

// logins says whose credentials would be used, and none of them.
func logins(_ context.Context, p *Patient) Finding {
	sources, err := p.Logins()
	if err != nil {
		return warn(words(err), "")
	}
	var found []string
	for _, s := range sources {
		known, err := s.Known()
		switch {
		case err == nil:
			found = append(found, describe(s, known))
		case s.Required || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
			return warn("registry credentials: "+words(err), "pulls that need a login fail: mend the file, or name another with --registry-config")
		}
	}
	return ok(cmp.Or(strings.Join(found, "; "), "none: registries are asked anonymously"))
}

func describe(s registry.Source, k registry.Known) string {
	text := s.Path + ": "
	if len(k.Hosts) > 0 {
		text += "for " + strings.Join(k.Hosts, ", ")
	}
	if len(k.Helpers) > 0 {
		text += " by " + strings.Join(k.Helpers, ", ")
	}
	return strings.TrimSuffix(text, ": ")
}

func leftovers(ctx context.Context, p *Patient) Finding {
	const out = "`carboy gc` tries, and says what cannot be removed; so does `carboy doctor --fix`"
	bottles, err := p.daemon.Bottles(ctx)
	if err != nil {
		return warn(words(err), "leases of another version of carboy: use that")
	}
	swept, err := p.daemon.Leftovers(ctx)
	if err != nil {
		return warn(words(err), out)
	}
	var left []string
	for _, s := range swept {
		left = append(left, s.Kind+" "+nameOf(s))
	}
	for _, b := range bottles {
		if b.State == runtime.StateLeaking {
			left = append(left, fmt.Sprintf("%s is leaking: %s", b.Name, b.Reason))
		}
	}
	if len(left) > 0 {
		return warn(strings.Join(left, "; "), out)
	}
	return ok(fmt.Sprintf("none; bottles: %d", len(bottles)))
}

func nameOf(s runtime.Swept) string { return cmp.Or(s.Name, s.Instance) }
