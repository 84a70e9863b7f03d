package cmd

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"carboy/runtime"
	"carboy/runtime/provision"
)

// gitText is what git in a bottle is told.
func gitText(g provision.Git) string {
	text := []string{quote(cmp.Or(g.Name, "(no name)")) + " <" + quote(g.Email) + ">"}
	for _, written := range slices.Sorted(maps.Keys(g.InsteadOf)) {
		text = append(text, quote(g.InsteadOf[written])+" for "+quote(written))
	}
	return strings.Join(text, ", ")
}

// sshText is a host that an agent may log in to.
func sshText(h runtime.SSHPlan) string {
	return fmt.Sprintf("%s: %s at %s:%d with key %s (never inside)", h.Host, cmp.Or(h.User, "anybody"), h.HostName, h.Port, quote(h.Key))
}
