package uplink

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFreeRange(t *testing.T) {
	uses := func(prefixes ...string) (all []Use) {
		for _, p := range prefixes {
			all = append(all, Use{netip.MustParsePrefix(p), "route"})
		}
		return all
	}
	for name, c := range map[string]struct {
		asked string
		taken []Use
		want  string // a prefix or a part of the error
	}{
		"first":           {want: "10.77.0.0/16"},
		"second":          {taken: uses("10.77.3.0/24"), want: "172.28.0.0/16"},
		"third":           {taken: uses("10.0.0.0/8", "172.28.9.9/32"), want: "198.18.0.0/16"},
		"none":            {taken: uses("10.0.0.0/8", "172.16.0.0/12", "198.18.0.0/15"), want: "--egress-range"},
		"asked":           {asked: "10.80.1.2/24", want: "10.80.1.0/24"},
		"overlaps":        {asked: "10.80.0.0/16", taken: uses("10.80.9.0/24"), want: "10.80.9.0/24 (route): choose another with --egress-range"},
		"overlay":         {asked: "100.100.0.0/16", want: "overlay"},
		"link-local":      {asked: "169.254.7.0/24", want: "link-local"},
		"small":           {asked: "10.80.0.0/30", want: "at most /29"},
		"version 6":       {asked: "fd00::/64", want: "IPv4"},
		"the whole world": {asked: "0.0.0.0/0", want: "overlaps"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked netip.Prefix
			if c.asked != "" {
				asked = netip.MustParsePrefix(c.asked)
			}
			got, err := freeRange(asked, c.taken)
			if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && got.String() != c.want {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
}
