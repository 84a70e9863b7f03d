package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"carboy/runtime/audit"
	"carboy/runtime/egress"
	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
)

// live is the plan's policy as a bottle begins with it.
func (p *Plan) live() egress.Live {
	return egress.Live{Engine: p.Proxy.Engine, Start: p.policy, Now: p.policy, InterceptAll: p.interceptAll}
}

// steer answers a peer of the control socket.
func (b *Bottle) steer(ctx context.Context, request []byte) []byte {
	var r egress.Request
	var a egress.Answer
	err := json.Unmarshal(request, &r)
	if err == nil {
		a.View, err = b.Steer(ctx, r)
	}
	if err != nil {
		a.Error, a.Invalid = err.Error(), errdefs.IsInvalidArgument(err)
	}
	text, _ := json.Marshal(a) // plain values
	return text
}

// Steer tells what the bottle may reach, after a change of it if one is asked for.
// The change is in force when it returns; on error the policy before is, or the
// proxy does not run, unless the error says otherwise.
func (b *Bottle) Steer(ctx context.Context, r egress.Request) (egress.View, error) {
	if err := b.takeTurn(ctx); err != nil {
		return egress.View{}, err
	}
	defer b.giveTurn()
	var err error
	if r.Do != egress.Show {
		err = b.change(ctx, r)
	}
	v := b.live.View()
	v.Audit = b.audit.Head()
	if s := b.plan.Bottle; s != nil {
		v.Source, v.Parents = s.Source, s.Parents
	}
	return v, err
}

// change is in the bottle's record before it is made, and what came of it after.
func (b *Bottle) change(ctx context.Context, r egress.Request) error {
	about := audit.Event{Event: "egress-" + policy.Escape(r.Do), Who: &audit.Who{UID: r.Who.UID, Name: policy.Escape(r.Who.Name)}}
	for _, host := range r.Hosts {
		about.Hosts = append(about.Hosts, policy.Escape(host))
	}
	record := func(verdict string, err error) error {
		about.Verdict = verdict
		if err != nil {
			about.Reason = policy.Escape(err.Error())
		}
		return b.audit.Append(about)
	}
	next, err := b.live.After(r)
	if err != nil {
		return errors.Join(err, record(audit.Deny, err))
	}
	if err := record(audit.Begin, nil); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	if err := b.putInForce(ctx, next); err != nil {
		return errors.Join(err, record(audit.Fail, err))
	}
	if err := record(audit.Done, nil); err != nil {
		return fmt.Errorf("the change is in force, and its record does not say so: %w", err)
	}
	return nil
}

// putInForce changes the policy, or leaves the one before.
func (b *Bottle) putInForce(ctx context.Context, next policy.Policy) error {
	before := b.live.Now
	files, err := b.engineFiles(next)
	if err != nil {
		return err
	}
	if err := b.network.SetPorts(bothPorts(before, next)); err != nil {
		return errors.Join(err, b.followPolicy())
	}
	if err := b.switchTo(ctx, next, files); err != nil {
		return errors.Join(err, b.fallBack(ctx, before))
	}
	return nil
}

// followPolicy has the network, and what others compare it with, as the policy is.
func (b *Bottle) followPolicy() error {
	return errors.Join(b.network.SetPorts(b.live.Now.Ports()), b.sealed.set(func(s *seal) { s.follow(b.live.Now) }))
}

func bothPorts(a, b policy.Policy) []uint16 {
	ports := slices.Concat(a.Ports(), b.Ports())
	slices.Sort(ports)
	return slices.Compact(ports)
}

// switchTo returns when the engine has the policy, and nothing is open that it does
// not allow. An engine that does not run has it as soon as it is started again.
func (b *Bottle) switchTo(ctx context.Context, next policy.Policy, files map[string][]byte) error {
	said := make(chan proxy.Reload, 16)
	defer b.proxyLog.hear(func(line []byte) {
		if r, ok := proxy.Reloaded(line); ok {
			select {
			case said <- r:
			default: // nobody waits for so many
			}
		}
	})()
	changed, err := b.writeEngineFiles(files)
	if err != nil {
		return err
	}
	before, narrows := b.live.Now, b.live.Narrows(next)
	b.live.Now = next
	runs := b.engineRuns()
	var late error // why it does not go by them
	if runs && changed {
		late = b.awaitReload(ctx, before, b.engine.ConfigHash(files), said)
	}
	// Before connections end: one made anew meanwhile, to a port that closes, would stay.
	if err := b.followPolicy(); err != nil || !runs {
		return err
	}
	if late == nil && narrows && !b.engine.EndsTunnels {
		late = b.network.EndConnections()
	}
	if late != nil {
		log.G(ctx).WithError(late).Debugf("proxy %s is started again for its new policy", b.engine.Name)
		return b.replaceEngine(ctx)
	}
	return nil
}

// reloadTime is how long an engine may take to put a policy in force. Else it is
// started again.
const reloadTime = 700 * time.Millisecond

// awaitReload returns when the engine says that it decides by the files with a hash.
func (b *Bottle) awaitReload(ctx context.Context, before policy.Policy, hash string, said <-chan proxy.Reload) error {
	if !b.engine.Reloads(b.engineConfig(before), b.engineConfig(b.live.Now)) {
		return errors.New("it does not reload this")
	}
	late := time.After(reloadTime)
	for {
		select {
		case r := <-said:
			if r.Hash == hash || r.Err != nil {
				return r.Err
			}
		case <-b.engineProcess.Ended():
			return errors.New("it has ended")
		case <-late:
			return fmt.Errorf("it says nothing within %v", reloadTime)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (b *Bottle) engineFiles(p policy.Policy) (map[string][]byte, error) {
	files, err := b.engine.Files(b.engineConfig(p))
	if err != nil {
		return nil, fmt.Errorf("render configuration of %s: %w", b.engine.Name, err)
	}
	return files, nil
}

// writeEngineFiles replaces those that differ, each in one step.
func (b *Bottle) writeEngineFiles(files map[string][]byte) (changed bool, err error) {
	for name, text := range files {
		path := filepath.Join(b.dir(), "proxy", name)
		if there, err := os.ReadFile(path); err == nil && string(there) == string(text) {
			continue
		}
		if err := os.WriteFile(path+".new", text, 0o644); err != nil {
			return false, fmt.Errorf("write the proxy's configuration: %w", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return false, fmt.Errorf("write the proxy's configuration: %w", err)
		}
		changed = true
	}
	return changed, nil
}

// replaceEngine ends the engine, and all its connections with it, and starts it
// again.
func (b *Bottle) replaceEngine(ctx context.Context) error {
	if err := b.endEngine(ctx); err != nil {
		return fmt.Errorf("end proxy %s: %w", b.engine.Name, err)
	}
	return b.runEngine(ctx)
}

func (b *Bottle) endEngine(ctx context.Context) error {
	if !b.engineRuns() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	b.proxyLog.note("the proxy is started again, for another policy")
	if err := b.engineProcess.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_, err := b.engineProcess.Wait(ctx)
	return err
}

// fallBack is for a change that failed: nobody knows by what the engine that runs
// decides.
func (b *Bottle) fallBack(ctx context.Context, before policy.Policy) error {
	b.live.Now = before
	if err := errors.Join(b.endEngine(ctx), b.followPolicy()); err != nil {
		return fmt.Errorf("the agent may be cut off: %w", err)
	}
	if err := b.runEngine(ctx); err != nil {
		return fmt.Errorf("the agent is cut off: %w", errors.Join(err, b.endEngine(ctx)))
	}
	return errors.New("the policy before it is in force")
}

// Steer asks the supervisor of a bottle, as Bottle.Steer.
func (h *Host) Steer(ctx context.Context, name string, r egress.Request) (egress.View, error) {
	client, conn, err := h.Dial(ctx, name)
	if err != nil {
		return egress.View{}, err
	}
	defer conn.Close()
	var a egress.Answer
	if err := client.Steer(ctx, r, &a); err != nil {
		return egress.View{}, fmt.Errorf("bottle %s: %w", name, err)
	}
	switch {
	case a.Error == "":
		return a.View, nil
	case a.Invalid:
		return a.View, invalid("%s", policy.Visible(a.Error))
	default:
		return a.View, errors.New(policy.Visible(a.Error))
	}
}
