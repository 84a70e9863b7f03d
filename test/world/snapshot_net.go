package world

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func links(context.Context) ([]string, error) {
	all, err := netlink.LinkList()
	var lines []string
	for _, l := range all {
		a := l.Attrs()
		lines = append(lines, fmt.Sprintf("%s %s %s master %d", a.Name, l.Type(), a.Flags, a.MasterIndex))
	}
	return lines, err
}

func addresses(context.Context) ([]string, error) {
	all, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	var lines []string
	for _, a := range all {
		lines = append(lines, fmt.Sprintf("link %d %s", a.LinkIndex, a.IPNet))
	}
	return lines, err
}

// routes lists those of every table.
func routes(context.Context) ([]string, error) {
	var lines []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		// An unspecified table means all of them.
		all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			lines = append(lines, fmt.Sprintf("table %d %s", r.Table, r))
		}
	}
	return lines, nil
}

func rules(context.Context) ([]string, error) {
	all, err := netlink.RuleList(unix.AF_UNSPEC)
	var lines []string
	for _, r := range all {
		lines = append(lines, r.String())
	}
	return lines, err
}

// nftables lists the ruleset without what counts, each line below its path.
func nftables(ctx context.Context) ([]string, error) {
	out, err := output(ctx, "nft", "-s", "list", "ruleset")
	var lines, path []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case line == "}":
			path = path[:max(0, len(path)-1)]
		case strings.HasSuffix(line, "{"):
			path = append(path, strings.TrimSuffix(line, " {"))
			lines = append(lines, strings.Join(path, " / "))
		case line != "":
			lines = append(lines, strings.Join(path, " / ")+" / "+line)
		}
	}
	return lines, err
}

var counters = regexp.MustCompile(`\s*\[\d+:\d+\]`)

// iptables lists the rules of both backends. A backend that is not installed
// has none.
func iptables(ctx context.Context) ([]string, error) {
	var lines []string
	for _, tool := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		out, err := output(ctx, tool)
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		table := ""
		for line := range strings.Lines(out) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "*") {
				table = line
			}
			if line != "" && line != "COMMIT" && !strings.HasPrefix(line, "#") {
				lines = append(lines, tool+" "+table+" "+counters.ReplaceAllString(line, ""))
			}
		}
	}
	return lines, nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			return "", fmt.Errorf("%w: run `make deps`", err)
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(out), nil
}
