package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/log"
	"gopkg.in/natefinch/lumberjack.v2"

	"carboy/runtime/initproto"
	"carboy/runtime/veil"
)

// Bounds of waiting for a proxy's health.
const (
	healthTime  = 15 * time.Second
	healthPause = 3 * time.Millisecond
)

// startEngine starts the proxy engine and returns when it is healthy.
func (b *Bottle) startEngine(ctx context.Context) error {
	defer b.host.Trace.step("proxy health")()
	b.openProxyLog(ctx)
	b.noteAuthority()
	return b.RestartProxy(ctx)
}

func (b *Bottle) openProxyLog(ctx context.Context) {
	b.proxyLog = &proxyLog{warn: func(err error) { log.G(ctx).WithError(err).Error("the proxy's log is not complete") },
		veil: veil.New(unspoken(b.plan.secretValues())),
		file: lumberjack.Logger{Filename: b.ProxyLog(), MaxSize: proxyLogSize, MaxBackups: 1}}
	if b.options.Decided != nil {
		b.proxyLog.each = b.tellDecision
	}
}

func (b *Bottle) tellDecision(line []byte) {
	if d, ok := b.engine.Decision(line); ok {
		d.Bottle = b.Name
		b.options.Decided(d)
	}
}

// takeTurn waits for who starts, ends or changes the engine. The caller gives it
// back.
func (b *Bottle) takeTurn(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *Bottle) giveTurn() { <-b.turn }

// AwaitProxyEnd returns when the proxy has ended by itself, and the agent is cut
// off, with words on how, which it writes to the log too.
func (b *Bottle) AwaitProxyEnd(ctx context.Context) (how string, err error) {
	for {
		process, err := b.engineNow(ctx)
		if err != nil {
			return "", err
		}
		select {
		case <-process.Ended():
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if err := b.takeTurn(ctx); err != nil {
			return "", err
		}
		same := process == b.engineProcess
		if same {
			how = b.proxyEnd(ctx)
		}
		b.giveTurn()
		if same {
			return how, nil
		}
	}
}

func (b *Bottle) engineNow(ctx context.Context) (*initproto.Process, error) {
	if err := b.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer b.giveTurn()
	return b.engineProcess, nil
}

func (b *Bottle) proxyEnd(ctx context.Context) string {
	last := b.lastProxyLines()
	exit, err := b.engineProcess.Wait(ctx)
	how := fmt.Sprintf("status %d", exit.Status())
	if err != nil {
		how = err.Error()
	}
	b.proxyLog.note("the proxy ended (" + how + "): the agent is cut off")
	return how + last
}

// RestartProxy starts an engine that has ended, with the same address and the
// policy in force, and returns when it is healthy.
func (b *Bottle) RestartProxy(ctx context.Context) error {
	if err := b.takeTurn(ctx); err != nil {
		return err
	}
	defer b.giveTurn()
	if b.engineRuns() {
		return nil // a change of the policy was first
	}
	return b.runEngine(ctx)
}

func (b *Bottle) engineRuns() bool {
	if b.engineProcess == nil {
		return false
	}
	select {
	case <-b.engineProcess.Ended():
		return false
	default:
		return true
	}
}

// runEngine starts the engine and returns when it is healthy. It starts by no files
// but those of the policy in force: a change that failed may have left others.
func (b *Bottle) runEngine(ctx context.Context) error {
	files, err := b.engineFiles(b.live.Now)
	if err != nil {
		return err
	}
	if _, err := b.writeEngineFiles(files); err != nil {
		return err
	}
	spec := initproto.Spec{Args: b.engine.Command(b.listen()), Env: b.engine.Env, Dir: "/", User: b.engineUser(), NotRoot: true}
	process, err := b.proxy.init.Start(spec, b.proxyLog.engineStreams())
	if err != nil {
		return fmt.Errorf("start proxy %s: %w", b.engine.Name, err)
	}
	b.engineProcess = process
	if err := b.awaitHealth(ctx); err != nil {
		return fmt.Errorf("proxy %s is not healthy: %w%s", b.engine.Name, err, b.lastProxyLines())
	}
	return nil
}

func (b *Bottle) lastProxyLines() string {
	if b.proxyLog == nil {
		return ""
	}
	select {
	case <-b.engineProcess.Ended():
		b.proxyLog.flush()
	default: // more of its last line may come
	}
	lines := b.proxyLog.tail.lines(10)
	if len(lines) == 0 {
		return ""
	}
	return "\n  its last words:\n    " + strings.Join(lines, "\n    ")
}

func (b *Bottle) awaitHealth(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthTime, fmt.Errorf("no answer within %v", healthTime))
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return b.network.DialProxy(ctx) },
	}}
	for {
		err := b.askHealth(ctx, client)
		if err == nil {
			return nil
		}
		select {
		case <-b.engineProcess.Ended():
			exit, err := b.engineProcess.Wait(ctx)
			return errors.Join(fmt.Errorf("it ended with status %d %s", exit.Status(), exit.Reason), err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(healthPause):
		}
	}
}

func (b *Bottle) askHealth(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.listen().String()+"/health", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/health answers %s", answer.Status)
	}
	return nil
}
