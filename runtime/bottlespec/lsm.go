package bottlespec

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/core/containers"
	hostapparmor "github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// apparmorProfile is loaded once and stays: it names no bottle.
const apparmorProfile = "carboy-default"

func name(c capability.Cap) string { return "CAP_" + strings.ToUpper(c.String()) }

// loadProfile runs apparmor_parser at most once per process.
var loadProfile = sync.OnceValue(func() error { return apparmor.LoadDefaultProfile(apparmorProfile) })

// withLSM confines the container by the security module that the host has:
// containerd's client applies none by itself.
func withLSM() oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		profile, labels, err := HostLSM()
		if err != nil {
			return err
		}
		s.Process.ApparmorProfile = profile
		if !labels {
			return nil
		}
		process, mount, err := label.InitLabels(nil)
		if err != nil {
			return fmt.Errorf("make SELinux labels: %w", err)
		}
		s.Process.SelinuxLabel, s.Linux.MountLabel = process, mount
		return nil
	}
}

// HostLSM is what a container on this host is confined by: a profile of
// AppArmor, which is loaded, and whether SELinux labels.
func HostLSM() (profile string, labels bool, err error) {
	if hostapparmor.HostSupports() {
		if err := loadProfile(); err != nil {
			return "", false, fmt.Errorf("load AppArmor profile %s: %w", apparmorProfile, err)
		}
		profile = apparmorProfile
	}
	return profile, selinux.GetEnabled(), nil
}

// CheckLSM proves that a process is confined as its specification says. It is
// not for one in a sandbox of gVisor, which applies neither module.
func CheckLSM(pid uint32, p *specs.Process) error {
	for what, want := range map[string]string{"AppArmor profile": p.ApparmorProfile, "SELinux label": p.SelinuxLabel} {
		if want == "" {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", pid))
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if have := inForce(text); have != want {
			return fmt.Errorf("%s is %q, not %q", what, have, want)
		}
	}
	return nil
}

// inForce reads what the kernel shows: AppArmor adds a mode, which has to be
// enforce, and SELinux ends with a NUL byte.
func inForce(text []byte) string {
	return strings.TrimSuffix(strings.Trim(string(text), "\n\x00"), " (enforce)")
}

// NeedsLSM says which modules the host has on and a specification does not use.
func NeedsLSM(p *specs.Process) []string {
	var missing []string
	if hostapparmor.HostSupports() && p.ApparmorProfile == "" {
		missing = append(missing, "AppArmor")
	}
	if selinux.GetEnabled() && p.SelinuxLabel == "" {
		missing = append(missing, "SELinux")
	}
	return missing
}
