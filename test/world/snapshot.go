package world

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Host is all that a bottle could leave behind, as sorted lines by subject.
type Host map[string][]string

// subject reads one list of the host.
type subject struct {
	name string
	read func(context.Context) ([]string, error)
}

// Snapshot reads the state of the private host and of its running containerds.
func (w *World) Snapshot(ctx context.Context) (Host, error) {
	subjects := []subject{
		{"processes", w.processes},
		{"network namespaces", netNamespaces},
		{"mounts", mounts},
		{"links", links},
		{"addresses", addresses},
		{"routes", routes},
		{"rules", rules},
		{"nftables", nftables},
		{"iptables", iptables},
		{"files", w.files},
		{"cgroups", cgroups},
		{"sysctls", sysctls},
	}
	w.mu.Lock()
	for _, c := range w.containerds {
		subjects = append(subjects, subject{"containerd " + c.Version.Name, c.records})
	}
	w.mu.Unlock()
	h := Host{}
	for _, s := range subjects {
		lines, err := s.read(ctx)
		if err != nil {
			return nil, fmt.Errorf("snapshot of the host: %s: %w", s.name, err)
		}
		slices.Sort(lines)
		h[s.name] = lines
	}
	return h, nil
}

// Diff lists what b has more (+) and less (-) than a. It is empty when nothing
// differs.
func Diff(a, b Host) string {
	names := maps.Clone(a)
	maps.Copy(names, b)
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(names)) {
		lines := append(only("-", a[name], b[name]), only("+", b[name], a[name])...)
		if len(lines) > 0 {
			fmt.Fprintf(&out, "%s:\n%s", name, strings.Join(lines, ""))
		}
	}
	return out.String()
}

// only returns the lines of these that are not, as often, among those.
func only(mark string, these, those []string) []string {
	count := map[string]int{}
	for _, l := range those {
		count[l]++
	}
	var lines []string
	for _, l := range these {
		if count[l]--; count[l] < 0 {
			lines = append(lines, "  "+mark+" "+l+"\n")
		}
	}
	return lines
}

// WaitClean waits until the host is as before, for what the kernel finishes on
// its own, and returns the last difference.
func (w *World) WaitClean(ctx context.Context, before Host) (diff string, err error) {
	const settling = 5 * time.Second
	for deadline := time.Now().Add(settling); ; {
		now, err := w.Snapshot(ctx)
		if err != nil {
			return "", err
		}
		if diff = Diff(before, now); diff == "" || time.Now().After(deadline) {
			return diff, nil
		}
		if err := pause(ctx, 25*time.Millisecond); err != nil {
			return diff, err
		}
	}
}
