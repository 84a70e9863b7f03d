package cmd

import (
	"context"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// tell says something to systemd, as sd_notify(3) has it. Where carboy is not a
// service of Type=notify it does nothing, and nothing depends on it.
func tell(lines ...string) { _, _ = daemon.SdNotify(false, strings.Join(lines, "\n")) }

// keepAlive tells systemd's watchdog, where there is one, that this process goes
// on, until the caller stops it.
func keepAlive(ctx context.Context) (stop func()) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit == 0 {
		return func() {}
	}
	// Beyond a signal: the tear-down is watched as well.
	ctx, stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		tick := time.NewTicker(limit / 2)
		defer tick.Stop()
		for {
			tell(daemon.SdNotifyWatchdog)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return stop
}

// asService tells systemd of a bottle's life beside what runs in it.
func (f *runFlags) asService(ctx context.Context, name string, live func() error) error {
	if f.report != nil { // a background process is nobody's main one
		return live()
	}
	defer keepAlive(ctx)()
	tell("STATUS=bringing up " + name)
	stop := context.AfterFunc(ctx, func() { tell(daemon.SdNotifyStopping, "STATUS=ending the agent") })
	defer stop()
	return live()
}
