package bottlespec

import (
	"context"
	"fmt"
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
		if hostapparmor.HostSupports() {
			if err := loadProfile(); err != nil {
				return fmt.Errorf("load AppArmor profile %s: %w", apparmorProfile, err)
			}
			s.Process.ApparmorProfile = apparmorProfile
		}
		if !selinux.GetEnabled() {
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
