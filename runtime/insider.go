package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"carboy/runtime/bottlespec"
	"carboy/runtime/initproto"
	"carboy/runtime/verify"
	"carboy/runtime/verify/inside"
)

// insiderPayload is what the process in the container says by UDP.
var insiderPayload = []byte("carboy verify: agent")

// longestAccount bounds what that process says, in bytes: it is in a hostile
// place.
const longestAccount = 4 << 20

// insider runs carboy-init in the agent's container, once, and reads what it
// tells.
func (p *proof) insider(ctx context.Context, i verify.Insider, user string) func() (inside.Account, error) {
	return sync.OnceValues(func() (a inside.Account, err error) {
		errand := inside.Errand{Payload: insiderPayload, Proxy: p.container.Listen, Denied: verify.Denied, Allowed: i.Allowed}
		for _, g := range i.Groups {
			errand.Targets = append(errand.Targets, g.Targets...)
		}
		text, err := json.Marshal(errand)
		if err != nil {
			return a, err
		}
		said, err := p.runInside(ctx, text, user)
		if err != nil {
			return a, err
		}
		return a, json.Unmarshal(said, &a)
	})
}

func (p *proof) runInside(ctx context.Context, errand []byte, user string) ([]byte, error) {
	spec := initproto.Spec{Args: []string{bottlespec.InitPath, "verify"}, Dir: "/", User: user, NotRoot: !p.seal.Root}
	said, failed := &limited{left: longestAccount}, &tail{}
	process, err := p.start(spec, initproto.Streams{Stdin: bytes.NewReader(errand), Stdout: said, Stderr: failed})
	if err != nil {
		return nil, err
	}
	exit, err := process.Wait(ctx)
	if err != nil {
		_ = process.Signal(syscall.SIGKILL) // it also ends with the connection
		return nil, err
	}
	if exit.Status() != 0 {
		return nil, fmt.Errorf("it ended with status %d %s%s", exit.Status(), exit.Reason, failed.quoted())
	}
	return said.Bytes(), nil
}

// limited takes no more than left bytes.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.Join(errors.New("it says too much"), io.ErrShortWrite)
	}
	return l.Buffer.Write(p)
}
