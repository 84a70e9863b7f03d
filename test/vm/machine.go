// Package vm runs a virtual machine with a real systemd, version 2 of control
// groups and disks of its own, for what a namespace cannot show: units, boots
// and power cuts. qemu emulates it, as not every host has a /dev/kvm that works.
package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// bootTime bounds a boot: 20 to 40 s, and more on a busy host.
const bootTime = 4 * time.Minute

// Config says what a machine is made of.
type Config struct {
	Deps    string // directory of kernel and root disk, which deps.sh makes
	Payload string // directory whose content is copied over the root
	Dir     string // for disks, sockets and what the console says
}

// Machine is a virtual one that runs, or has been cut off. The caller closes it.
type Machine struct {
	dir, kernel string
	qemu        *process
	agent       *agent
}

// New makes a machine's disks, boots it and copies the payload.
func New(ctx context.Context, c Config) (*Machine, error) {
	m := &Machine{dir: c.Dir, kernel: filepath.Join(c.Deps, "vmlinuz")}
	root := filepath.Join(c.Deps, "root.raw")
	if _, err := os.Stat(root); err != nil {
		return nil, fmt.Errorf("%w: run `make deps-vm`", err)
	}
	if err := tool(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", root, "-F", "raw", m.path("root.qcow2")); err != nil {
		return nil, err
	}
	if err := tool(ctx, "mke2fs", "-q", "-t", "ext4", "-d", c.Payload, m.path("payload.raw"), "1G"); err != nil {
		return nil, err
	}
	if err := m.Boot(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if _, err := m.Run(ctx, "mount -o ro /dev/nvme1n1 /mnt && cp -a /mnt/. / && umount /mnt && systemctl daemon-reload && sync"); err != nil {
		return nil, errors.Join(fmt.Errorf("copy the payload: %w", err), m.Close())
	}
	return m, nil
}

func tool(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// Boot starts a machine that is off, and returns when systemd has started all.
func (m *Machine) Boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("the machine did not boot within %v: see %s", bootTime, m.path("console")))
	defer cancel()
	if err := m.hangUp(); err != nil {
		return err
	}
	var err error
	if m.qemu, err = launch("qemu-system-x86_64", m.arguments()...); err != nil {
		return err
	}
	if m.agent, err = dial(ctx, m.path("agent"), m.qemu.ended); err != nil {
		return err
	}
	// Degraded is an answer, too: a test may have a unit that fails.
	_, err = m.Run(ctx, "systemctl is-system-running --wait | grep -E 'running|degraded'")
	return err
}

// arguments emulate a machine in which Debian's cloud kernel finds its disks
// without an initrd. A reboot ends qemu.
func (m *Machine) arguments() []string {
	return []string{
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", m.kernel, "-append", "root=/dev/nvme0n1 rw console=ttyS0 mitigations=off panic=-1 quiet",
		"-chardev", "file,id=console,append=on,path=" + m.path("console"), "-serial", "chardev:console",
		"-drive", "if=none,id=root,format=qcow2,file=" + m.path("root.qcow2"), "-device", "nvme,drive=root,serial=root",
		"-drive", "if=none,id=payload,format=raw,readonly=on,file=" + m.path("payload.raw"), "-device", "nvme,drive=payload,serial=payload",
		"-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + m.path("agent"), "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
	}
}

// Run runs a shell's command line in the machine and returns what it printed. A
// status other than 0 is an error with both of its outputs.
func (m *Machine) Run(ctx context.Context, line string) (stdout string, err error) {
	if m.agent == nil {
		return "", errors.New("the machine has not booted")
	}
	r, err := m.agent.run(ctx, line)
	if err == nil && r.status != 0 {
		err = fmt.Errorf("status %d of %s\nstdout: %s\nstderr: %s", r.status, line, r.stdout, r.stderr)
	}
	return r.stdout, err
}

// PowerCut takes the machine's power away. What it had not written to its disk
// is lost.
func (m *Machine) PowerCut() { m.qemu.kill() }

// Reboot has the machine shut down, and boots it.
func (m *Machine) Reboot(ctx context.Context) error {
	if err := m.agent.say(ctx, "systemctl reboot"); err != nil {
		return err
	}
	select {
	case <-m.qemu.ended:
	case <-ctx.Done():
		return fmt.Errorf("the machine does not shut down: %w", context.Cause(ctx))
	}
	return m.Boot(ctx)
}

// Close ends the machine.
func (m *Machine) Close() error {
	if m.qemu != nil {
		m.qemu.kill()
	}
	return m.hangUp()
}

func (m *Machine) hangUp() error {
	if m.agent == nil {
		return nil
	}
	conn := m.agent.conn
	m.agent = nil
	return conn.Close()
}

// process is a program that ends with this one, however this one ends.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func launch(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), ended: make(chan struct{})} //nolint:noctx // it outlives a context
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stderr = os.Stderr
	started := make(chan error)
	go func() {
		defer close(p.ended)
		runtime.LockOSThread() // the signal comes with the thread's end
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}
