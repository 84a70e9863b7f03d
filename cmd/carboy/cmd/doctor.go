package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"carboy/cmd/carboy/doctor"
	"carboy/netns"
	"carboy/runtime/invoker"
)

type doctorFlags struct {
	asJSON, fix, packet bool
	bundle              string
}

func newDoctor(s *settings) *cobra.Command {
	var f doctorFlags
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether this host has what carboy needs, and say what to do",
		Long: `Look whether this host has what carboy needs, and say what to do. With root it
also starts a container and a sandbox, which end at once (below the state
directory, as a run does); without it the checks that take root are warnings. No
packet is sent: of the host's firewalls the policies are read. With --packet a
link out is made as bottles have it, and the first resolver is asked through it;
after that the host is as before.

The status is 0 where all is well, 1 with warnings (bottles run, or a part of
carboy cannot be used), 2 with failures, or when the doctor itself failed.

--fix does two things, then looks again: it makes carboy's own directories where
they are missing, and removes what dead bottles left, as gc does.

--bundle writes a tar.gz for a bug report, as the user who calls and never over a
file: the findings as JSON, versions, the configuration file and the settings. It
has no logs, as these hold what agents said, no logins of registries, and no
values from the environment. Read it before you send it: paths and names of
bottles are in it.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			report, err := consult(c, s, f)
			if err != nil {
				_, _ = fmt.Fprintf(c.ErrOrStderr(), "carboy: %s\n", words(err))
				return exitStatus(2)
			}
			if status := report.Status(); status != 0 {
				return exitStatus(status)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&f.fix, "fix", false, "make missing directories of carboy's, and remove what dead bottles left")
	c.Flags().BoolVar(&f.packet, "packet", false, "prove the way out by a packet to the first resolver")
	c.Flags().StringVar(&f.bundle, "bundle", "", "`FILE` to write for a bug report, a tar.gz without secrets")
	return c
}

func consult(c *cobra.Command, s *settings, f doctorFlags) (r doctor.Report, err error) {
	p, err := s.patient()
	if err != nil {
		return r, err
	}
	ctx := c.Context()
	p.Packet = f.packet
	p.Open(ctx)
	defer func() { err = errors.Join(err, p.Close()) }()
	var fixed []string
	var fixErr error
	if f.fix {
		fixed, fixErr = p.Fix(ctx)
	}
	board := awaiting(false, func() string { return "looking at this host" })
	r = doctor.Examine(ctx, p)
	board.Close()
	r.Fixed = fixed
	if f.asJSON {
		err = printJSON(c.OutOrStdout(), r)
	} else {
		err = r.Print(c.OutOrStdout(), coloured(os.Stdout))
	}
	if f.bundle != "" {
		err = errors.Join(err, s.writeBundle(ctx, f.bundle, p, r))
	}
	return r, errors.Join(err, fixErr)
}

// coloured follows no-color.org.
func coloured(f *os.File) bool {
	return isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func (s *settings) patient() (*doctor.Patient, error) {
	config, err := s.config()
	if err != nil {
		return nil, err
	}
	p := &doctor.Patient{
		Config: config, PluginDirs: s.pluginDirs(), Network: s.get("egress-network"),
		Engine: s.get("proxy"), ProxyImage: s.get("proxy-image"), Logins: s.logins,
	}
	if p.Network != "" {
		p.Conflist, p.NetworkErr = netns.OperatorNetwork(s.get("cni-conf-dir"), p.Network)
	}
	return p, nil
}

// writeBundle puts the name of a variable wherever its value is: the
// environment is the caller's own affair.
func (s *settings) writeBundle(ctx context.Context, path string, p *doctor.Patient, r doctor.Report) error {
	who, err := invoker.Current()
	if err != nil {
		return err
	}
	b := doctor.Bundle{Report: r, Versions: p.Versions(ctx), Withheld: map[string]string{os.Getenv("DOCKER_CONFIG"): "$DOCKER_CONFIG"}}
	for _, o := range s.all {
		one := doctor.Setting{Name: o.name, Value: o.value, Source: o.source}
		switch o.source {
		case configFile:
			b.Config = append(b.Config, one)
		case "$" + o.env:
			b.Withheld[o.value] = o.source
			one.Value = o.source
		}
		b.Settings = append(b.Settings, one)
	}
	return b.Write(who, path)
}
