package bottlespec

import (
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestModeOfAProfile(t *testing.T) {
	for shown, want := range map[string]string{
		"carboy-default (enforce)\n":                   "carboy-default",
		"carboy-default (complain)\n":                  "carboy-default (complain)",
		"unconfined\n":                                 "unconfined",
		"system_u:system_r:container_t:s0:c1,c2\x00":   "system_u:system_r:container_t:s0:c1,c2",
		"system_u:system_r:container_t:s0:c1,c2\n\x00": "system_u:system_r:container_t:s0:c1,c2",
		"": "",
	} {
		if got := inForce([]byte(shown)); got != want {
			t.Errorf("%q: %q, want %q", shown, got, want)
		}
	}
}

func TestNotConfinedAsSpecified(t *testing.T) {
	pid := uint32(os.Getpid()) // of no container
	if err := CheckLSM(pid, &specs.Process{}); err != nil {
		t.Errorf("nothing asked for: %v", err)
	}
	for _, p := range []specs.Process{{ApparmorProfile: apparmorProfile}, {SelinuxLabel: "system_u:system_r:container_t:s0"}} {
		if CheckLSM(pid, &p) == nil {
			t.Errorf("%+v passes", p)
		}
	}
}
