package supervise

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errTime is the end of a command by a limit of time.
var errTime = errors.New("limit of time")

// watchTime ends the command that takes too long, or does nothing for too long.
func (s *session) watchTime(ctx context.Context, end context.CancelCauseFunc) {
	if s.o.Timeout == 0 && s.o.Idle == 0 {
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	start, active := time.Now(), time.Now()
	traffic := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now, err := s.b.Traffic(); err == nil && now != traffic {
			traffic, active = now, time.Now()
		}
		if last := s.out.Last(); last.After(active) {
			active = last
		}
		var reached error
		switch {
		case s.o.Timeout > 0 && time.Since(start) > s.o.Timeout:
			reached = fmt.Errorf("the command took longer than %v (--timeout): it is ended", s.o.Timeout)
		case s.o.Idle > 0 && time.Since(active) > s.o.Idle:
			reached = fmt.Errorf("no output and no traffic for %v (--idle-timeout): the command is ended", s.o.Idle)
		default:
			continue
		}
		s.say(reached)
		end(fmt.Errorf("%w: %w", reached, errTime))
		return
	}
}

// proxyRestarts is how often a proxy is started again in one run, and
// proxyPause the time before the first; it doubles.
const (
	proxyRestarts = 5
	proxyPause    = 100 * time.Millisecond
)

// tendProxy tells at once when the agent is cut off, and starts the proxy
// again. The agent is not freed meanwhile: there is no other way out.
func (s *session) tendProxy(ctx context.Context) {
	pause := proxyPause
	for left := proxyRestarts; ; left-- {
		how, err := s.b.AwaitProxyEnd(ctx)
		if err != nil || ctx.Err() != nil {
			return
		}
		if left == 0 {
			s.say(fmt.Errorf("the proxy ended (%s): the agent is cut off, for good", how))
			return
		}
		s.say(fmt.Errorf("the proxy ended (%s): the agent is cut off until it is up again", how))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause *= 2
		if err := s.b.RestartProxy(ctx); err != nil {
			if ctx.Err() == nil {
				s.say(fmt.Errorf("start the proxy again: %w: the agent stays cut off", err))
			}
			return
		}
		s.say(errors.New("the proxy is up again"))
	}
}
