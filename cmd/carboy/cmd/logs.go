package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/output"
	"carboy/runtime/proxy/policy"
)

type logsFlags struct {
	follow, timestamps, proxy, json bool
	tail, since                     string
}

func newLogs(s *settings) *cobra.Command {
	f := &logsFlags{}
	c := &cobra.Command{
		Use:   "logs [flags] NAME",
		Short: "Show what a bottle's command said, also after its end",
		Long: `Show what the agent's command said, its standard output and error apart, with
carboy's own remarks on standard error. Bottles that have ended are known for a
week, by name or by instance.`,
		Args: exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			query, err := f.query(time.Now())
			if err != nil {
				return err
			}
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				about, err := h.History(args[0])
				if err != nil {
					return err
				}
				query.Ended = func() bool { return !h.Lives(about.Instance) }
				p := &printer{logsFlags: f, out: c.OutOrStdout(), err: c.ErrOrStderr()}
				if f.proxy {
					return output.ReadProxy(ctx, about.LogDir, query, p.proxyLine)
				}
				return output.Read(ctx, about.LogDir, query, p.line)
			})
		},
	}
	fl := c.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on until the bottle ends")
	fl.StringVarP(&f.tail, "tail", "n", "all", "number of lines from the end")
	fl.StringVar(&f.since, "since", "", "from a time on: 10m, or 2026-11-25T08:00:00Z")
	fl.BoolVarP(&f.timestamps, "timestamps", "t", false, "begin each line with its time")
	fl.BoolVar(&f.proxy, "proxy", false, "show what the proxy decided instead, as its engine writes it")
	fl.BoolVar(&f.json, "json", false, "print JSON, one object on a line")
	return c
}

func (f *logsFlags) query(now time.Time) (q output.Query, err error) {
	q = output.Query{Tail: -1, Follow: f.follow}
	if f.tail != "all" {
		if q.Tail, err = strconv.Atoi(f.tail); err != nil || q.Tail < 0 {
			return q, fmt.Errorf("--tail %q: give a number or all: %w", f.tail, errdefs.ErrInvalidArgument)
		}
	}
	if f.since == "" {
		return q, nil
	}
	if ago, err := time.ParseDuration(f.since); err == nil {
		q.Since = now.Add(-ago)
		return q, nil
	}
	if q.Since, err = time.Parse(time.RFC3339, f.since); err != nil {
		return q, fmt.Errorf("--since %q: give a time as 10m or 2026-11-25T08:00:00Z: %w", f.since, errdefs.ErrInvalidArgument)
	}
	return q, nil
}

// printer shows lines of a log.
type printer struct {
	*logsFlags
	out, err io.Writer
	inLine   bool
}

// logLine is a line in JSON. Text that is not UTF-8 is in Bytes, as base64.
type logLine struct {
	Time    time.Time     `json:"time"`
	Stream  output.Stream `json:"stream"`
	Text    string        `json:"text"`
	Bytes   []byte        `json:"bytes,omitempty"`
	Partial bool          `json:"partial,omitempty"`
}

// line prints one as the command wrote it: it may be a terminal's.
func (p *printer) line(l output.Line) error {
	if p.json {
		one := logLine{Time: l.Time, Stream: l.Stream, Text: string(l.Text), Partial: l.Partial}
		if !utf8.Valid(l.Text) {
			one.Text, one.Bytes = "", l.Text
		}
		return json.NewEncoder(p.out).Encode(one)
	}
	to, text := p.out, string(l.Text)
	switch l.Stream {
	case output.Stderr:
		to = p.err
	case output.Note:
		to, text = p.err, "carboy: "+policy.Visible(text)
	}
	if p.timestamps && !p.inLine {
		text = l.Time.Format(time.RFC3339Nano) + " " + text
	}
	p.inLine = l.Partial
	if !l.Partial {
		text += "\n"
	}
	_, err := io.WriteString(to, text)
	return err
}

// proxyLine prints what an engine wrote. Names in it are the agent's choice.
func (p *printer) proxyLine(l output.Line) error {
	text := string(l.Text)
	if isTerminal(os.Stdout) {
		text = policy.Visible(text)
	}
	_, err := io.WriteString(p.out, text+"\n")
	return err
}
