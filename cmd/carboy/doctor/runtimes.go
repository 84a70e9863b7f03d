package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"carboy/runtime/version"
)

// programTime bounds programs that only have to say who they are.
const programTime = 10 * time.Second

// runc is found by containerd's shim, in containerd's PATH.
func runc(ctx context.Context, p *Patient) Finding {
	path := cmp.Or(p.daemon.PATH(), os.Getenv("PATH"))
	if _, found := program(path, "containerd-shim-runc-v2"); !found {
		return fail("containerd-shim-runc-v2 is not in containerd's PATH "+path, "it comes with containerd (apt install containerd)")
	}
	file, found := program(path, "runc")
	if !found {
		return fail("it is not in containerd's PATH "+path, "apt install runc")
	}
	if err := p.daemon.Try(ctx, file); err != nil {
		return fail(fmt.Sprintf("%s cannot be used: %s", file, words(err)), "")
	}
	return ok(fmt.Sprintf("%s, %s started a container", firstLine(said(ctx, file, "--version")), file))
}

func runsc(ctx context.Context, p *Patient) Finding {
	file, note, err := p.daemon.Runsc(ctx)
	if err != nil {
		return fail(words(err), "")
	}
	if note != "" {
		return warn(note+": bottles share the kernel of the host (runc)", "https://gvisor.dev/docs/user_guide/install; `carboy run --runtime runsc` tries it again")
	}
	return ok(fmt.Sprintf("%s, %s started a sandbox", firstLine(said(ctx, file, "--version")), file))
}

// said is what a program prints, whatever its status is.
func said(ctx context.Context, file string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	c := exec.CommandContext(ctx, file, args...)
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	if len(out) == 0 && err != nil {
		return err.Error()
	}
	return string(out)
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}

// helper is a program of carboy's own and how it says its build: carboy-init
// has none, and ends well when it can run at all.
type helper struct {
	name  string
	args  []string
	build func(said string) string
}

var ours = []helper{
	{"carboy-init", []string{"probe"}, nil},
	{"carboy-egress", []string{"--version"}, strings.TrimSpace},
	{"carboy-buildkit", nil, func(said string) string {
		if words := strings.Fields(said); len(words) > 1 {
			return words[1]
		}
		return ""
	}},
}

func helpers(ctx context.Context, p *Patient) Finding {
	const out = "install carboy with its helpers from one build (make install)"
	for _, h := range ours {
		err := h.check(ctx, p)
		switch {
		case err == nil:
		case h.name == "carboy-buildkit":
			return warn(err.Error()+": there is no `carboy build`", out)
		default:
			return fail(err.Error(), out)
		}
	}
	return ok(fmt.Sprintf("build %s, in %s", p.Build, p.Libexec))
}

func (h helper) check(ctx context.Context, p *Patient) error {
	file := filepath.Join(p.Libexec, h.name)
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("%s is not in %s", h.name, p.Libexec)
	}
	if h.build != nil {
		return version.Check(h.name, h.build(said(ctx, file, h.args...)), p.Build)
	}
	if out := said(ctx, file, h.args...); out != "" {
		return errors.New(h.name + " does not run: " + firstLine(out))
	}
	return nil
}
