package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/initproto"
	"carboy/runtime/proxy/policy"
)

func newTop(s *settings) *cobra.Command {
	out := processTable()
	c := &cobra.Command{
		Use:     "top NAME",
		Aliases: []string{"ps"},
		Short:   "List the processes in a bottle, by the numbers they have there",
		Args:    exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				client, conn, err := h.Dial(ctx, args[0])
				if err != nil {
					return err
				}
				defer conn.Close()
				list, err := client.List(ctx)
				if err != nil {
					return err
				}
				return out.print(c.OutOrStdout(), list)
			})
		},
	}
	out.register(c)
	return c
}

// processTable shows command lines that agents chose.
func processTable() *table[initproto.Listed] {
	return &table[initproto.Listed]{
		head: []string{"PID", "PPID", "UID", "CPU", "MEMORY", "COMMAND"},
		cells: func(p initproto.Listed) []string {
			return []string{
				strconv.Itoa(p.PID), strconv.Itoa(p.Parent), strconv.Itoa(p.UID), p.CPU.Round(10 * time.Millisecond).String(),
				units.BytesSize(float64(p.Memory)), p.Command,
			}
		},
		name:  func(p initproto.Listed) string { return strconv.Itoa(p.PID) },
		quiet: "print numbers only",
		plain: func(p initproto.Listed) initproto.Listed {
			p.Command = policy.Visible(p.Command)
			return p
		},
	}
}

// usageView is a sample in JSON output. Usage is since the bottle's start.
type usageView struct {
	Name string `json:"name"`
	runtime.Usage
	Percent float64 `json:"cpuPercent"` // of one CPU, since the sample before
}

type statsFlags struct {
	once bool
	out  *table[usageView]
}

// sampleTime is between two samples.
const sampleTime = time.Second

func newStats(s *settings) *cobra.Command {
	f := &statsFlags{out: usageTable()}
	c := &cobra.Command{
		Use:   "stats [flags] [NAME...]",
		Short: "Show what bottles use: CPU, memory, processes, network",
		Long: `Show what bottles use, all that run or the named ones: agent and proxy together.
On a terminal this goes on until Ctrl-C or the end of the last of them; elsewhere,
and with --no-stream, it is one sample, which takes a second.`,
		RunE: func(c *cobra.Command, args []string) error {
			once := f.once || !isTerminal(os.Stdout)
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				return f.show(ctx, h, c.OutOrStdout(), args, once)
			})
		},
	}
	c.Flags().BoolVar(&f.once, "no-stream", false, "one sample only")
	f.out.register(c)
	return c
}

func (f *statsFlags) show(ctx context.Context, h *runtime.Host, w io.Writer, names []string, once bool) error {
	before, err := sample(ctx, h, names, nil)
	if err != nil {
		return err
	}
	for len(before) > 0 || once {
		select {
		case <-ctx.Done():
			return nil // Ctrl-C is how this ends
		case <-time.After(sampleTime):
		}
		now, err := sample(ctx, h, names, before)
		if errdefs.IsNotFound(err) && !once {
			return nil // the last of the named has ended
		}
		if err != nil {
			return err
		}
		if err := f.print(w, now, once); err != nil || once {
			return err
		}
		before = now
	}
	return nil
}

// sample leaves out bottles that end meanwhile.
func sample(ctx context.Context, h *runtime.Host, names []string, before []usageView) ([]usageView, error) {
	if len(names) == 0 {
		var err error
		if names, err = running(ctx, h); err != nil {
			return nil, err
		}
	}
	list := []usageView{}
	for _, name := range names {
		r, err := h.Find(ctx, name)
		if err != nil {
			return nil, err
		}
		u, err := h.Usage(ctx, r)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, usageView{Name: name, Usage: u, Percent: percent(before, name, u)})
	}
	return list, nil
}

func percent(before []usageView, name string, now runtime.Usage) float64 {
	for _, b := range before {
		if took := now.Time.Sub(b.Time); b.Name == name && took > 0 && now.CPU >= b.CPU {
			return 100 * float64(now.CPU-b.CPU) / float64(took)
		}
	}
	return 0
}

func (f *statsFlags) print(w io.Writer, list []usageView, once bool) error {
	if f.out.asJSON { // one array for each sample, a line each
		return json.NewEncoder(w).Encode(list)
	}
	if !once && f.out.template == nil {
		if _, err := io.WriteString(w, "\x1b[H\x1b[J"); err != nil {
			return err
		}
	}
	return f.out.print(w, list)
}

func usageTable() *table[usageView] {
	return &table[usageView]{
		head: []string{"NAME", "CPU", "MEMORY", "LIMIT", "PIDS", "RECEIVED", "SENT"},
		cells: func(u usageView) []string {
			return []string{
				u.Name, fmt.Sprintf("%.1f%%", u.Percent), units.BytesSize(float64(u.Memory)), units.BytesSize(float64(u.Limit)),
				strconv.FormatInt(u.PIDs, 10), units.BytesSize(float64(u.Received)), units.BytesSize(float64(u.Sent)),
			}
		},
	}
}
