package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// agent speaks with qemu's guest agent, QMP's guest-exec, over a serial port of
// the machine (qemu 7.2, qga/qapi-schema.json).
type agent struct {
	conn  net.Conn
	in    *json.Decoder
	ended <-chan struct{} // of qemu
}

// pollPause is between two looks at a command that runs.
const pollPause = 50 * time.Millisecond

// dial returns when the agent answers.
func dial(ctx context.Context, socket string, ended <-chan struct{}) (*agent, error) {
	a := &agent{ended: ended}
	for a.conn == nil {
		var err error
		if a.conn, err = (&net.Dialer{}).DialContext(ctx, "unix", socket); err != nil {
			a.conn = nil
			if err := a.pause(ctx); err != nil {
				return nil, err
			}
		}
	}
	a.in = json.NewDecoder(a.conn)
	return a, a.ask(ctx, "guest-ping", nil, nil)
}

func (a *agent) pause(ctx context.Context) error {
	select {
	case <-a.ended:
		return errors.New("qemu has ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pollPause):
		return nil
	}
}

type result struct {
	status         int
	stdout, stderr string
}

// run runs a command line and waits for its end.
func (a *agent) run(ctx context.Context, line string) (result, error) {
	pid, err := a.start(ctx, line)
	if err != nil {
		return result{}, err
	}
	var s struct {
		Exited   bool   `json:"exited"`
		ExitCode int    `json:"exitcode"`
		Signal   int    `json:"signal"`
		Out      []byte `json:"out-data"`
		Err      []byte `json:"err-data"`
	}
	for !s.Exited {
		if err := a.pause(ctx); err != nil {
			return result{}, fmt.Errorf("%s: %w", line, err)
		}
		if err := a.ask(ctx, "guest-exec-status", map[string]any{"pid": pid}, &s); err != nil {
			return result{}, fmt.Errorf("%s: %w", line, err)
		}
	}
	if s.Signal != 0 {
		s.ExitCode = 128 + s.Signal
	}
	return result{s.ExitCode, string(s.Out), string(s.Err)}, nil
}

// say starts a command line.
func (a *agent) say(ctx context.Context, line string) error {
	_, err := a.start(ctx, line)
	return err
}

func (a *agent) start(ctx context.Context, line string) (pid int, err error) {
	var started struct {
		PID int `json:"pid"`
	}
	err = a.ask(ctx, "guest-exec", map[string]any{"path": "/bin/sh", "arg": []string{"-c", line}, "capture-output": true}, &started)
	return started.PID, err
}

// ask is one command and its answer.
func (a *agent) ask(ctx context.Context, command string, arguments, answer any) error {
	stop := context.AfterFunc(ctx, func() { _ = a.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	message := map[string]any{"execute": command}
	if arguments != nil {
		message["arguments"] = arguments
	}
	if err := json.NewEncoder(a.conn).Encode(message); err != nil {
		return fmt.Errorf("tell the guest agent: %w", err)
	}
	var said struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	if err := a.in.Decode(&said); err != nil {
		return fmt.Errorf("%s: hear from the guest agent: %w", command, errors.Join(err, context.Cause(ctx)))
	}
	if said.Error != nil {
		return fmt.Errorf("%s: %s", command, said.Error.Desc)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said.Return, answer)
}
