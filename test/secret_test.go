package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
)

// needle is a random value to be looked for, in the forms that encoders give it.
type needle struct {
	value string
	forms [][]byte
}

func newNeedle() *needle {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	n := &needle{value: hex.EncodeToString(b)}
	n.forms = [][]byte{[]byte(n.value), []byte(hex.EncodeToString([]byte(n.value)))}
	for shift := range 3 { // where in a group of three it begins
		text := base64.StdEncoding.EncodeToString([]byte("xx"[:shift] + n.value))
		n.forms = append(n.forms, []byte(text[4:len(text)-4]))
	}
	return n
}

// in reads to the end. A form may lie across two reads.
func (n *needle) in(r io.Reader) (bool, error) {
	const overlap = 128
	buf := make([]byte, 1<<20)
	kept := 0
	for {
		got, err := r.Read(buf[kept:])
		for _, f := range n.forms {
			if bytes.Contains(buf[:kept+got], f) {
				return true, nil
			}
		}
		if errors.Is(err, io.EOF) || err == nil && got == 0 {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		end := kept + got
		kept = copy(buf, buf[max(0, end-overlap):end])
	}
}

// places are where anything of a bottle may be written: containerd's and
// carboy's directories, logs, and what is temporary.
func (r *rig) places() []string {
	return []string{r.containerd.Root, r.containerd.State, "/run", "/var/log", "/var/lib/cni", "/tmp", "/var/tmp", "/dev/shm", os.TempDir()}
}

// search returns the files below the places that hold the value. Those that
// were there before the value, unchanged, cannot.
func (n *needle) search(t *testing.T, places []string, since time.Time) (found []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, place := range places {
		err := filepath.WalkDir(place, func(path string, e fs.DirEntry, err error) error {
			if gone(err) {
				return nil
			}
			if err != nil || !e.Type().IsRegular() || seen[path] {
				return err
			}
			seen[path] = true
			holds, err := n.inFile(path, since)
			if holds {
				found = append(found, path)
			}
			if gone(err) {
				return nil
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// gone is the error for what has ended meanwhile, and for files of processes
// that are ending.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ESTALE)
}

func (n *needle) inFile(path string, since time.Time) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	var where unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &where); err != nil || where.Type == unix.NSFS_MAGIC {
		return false, err // a namespace cannot be read
	}
	// Nobody can set this one of a file's times.
	changed := st.Sys().(*syscall.Stat_t).Ctim
	if time.Unix(changed.Sec, changed.Nsec).Before(since.Add(-time.Second)) {
		return false, nil
	}
	return n.in(f)
}

// watch reads every file in the places that a process of the private host has
// written and closes, also one that is removed at once.
type watch struct {
	needles []*needle
	events  *os.File
	done    chan struct{}

	mu     sync.Mutex
	found  []string
	closed int
	err    error
}

func newWatch(t *testing.T, places []string, needles ...*needle) *watch {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{needles: needles, events: os.NewFile(uintptr(fd), "fanotify"), done: make(chan struct{})}
	for _, place := range places {
		err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_CLOSE_WRITE, unix.AT_FDCWD, place)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("watch %s: %v", place, err)
		}
	}
	go w.read()
	return w
}

func (w *watch) read() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.events.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				w.fail(err)
			}
			return
		}
		const size = int(unsafe.Sizeof(unix.FanotifyEventMetadata{}))
		for rest := buf[:n]; len(rest) >= size; {
			event := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&rest[0]))
			w.look(event)
			rest = rest[event.Event_len:]
		}
	}
}

func (w *watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(w.err, err)
}

// look passes over processes outside the private host, which have no number in
// it: they share its disk.
func (w *watch) look(event *unix.FanotifyEventMetadata) {
	f := os.NewFile(uintptr(event.Fd), "event")
	if f == nil {
		w.fail(errors.New("fanotify: an event without a file"))
		return
	}
	defer f.Close()
	if event.Pid == 0 || int(event.Pid) == os.Getpid() {
		return
	}
	path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", event.Fd))
	for i, n := range w.needles {
		holds, err := n.in(io.NewSectionReader(f, 0, 1<<40))
		w.mu.Lock()
		if holds {
			w.found = append(w.found, fmt.Sprintf("value %d in %s by process %d", i, path, event.Pid))
		}
		if err != nil {
			w.err = errors.Join(w.err, fmt.Errorf("%s: %w", path, err))
		}
		w.closed++
		w.mu.Unlock()
	}
}

// sees tells whether a file of that name was caught.
func (w *watch) sees(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.found, func(f string) bool { return strings.Contains(f, name) })
}

func (w *watch) stop(t *testing.T) []string {
	t.Helper()
	_ = w.events.Close()
	<-w.done
	if w.err != nil {
		t.Fatal(w.err)
	}
	return w.found
}

// plant has another process write a value to a file and remove it.
func plant(t *testing.T, name string, n *needle) {
	t.Helper()
	script := fmt.Sprintf(`echo "name=%s" >%s && rm %s`, n.value, name, name)
	if out, err := exec.Command("/bin/sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// processesWith lists the processes whose file in /proc holds the value, and
// their parents.
func (n *needle) processesWith(t *testing.T, file string) map[int]int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]int{}
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil && !gone(err) {
			t.Fatal(err)
		}
		if holds, _ := n.in(bytes.NewReader(b)); holds {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			found[pid] = parent(t, pid)
		}
	}
	return found
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil && !gone(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "PPid:"); ok {
			ppid, _ := strconv.Atoi(strings.TrimSpace(text))
			return ppid
		}
	}
	return 0
}

// records are all that containerd knows of the namespace, as text.
func (r *rig) records(t *testing.T) string {
	t.Helper()
	client, err := r.containerd.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(context.WithoutCancel(t.Context()), r.namespace)
	leases, err := client.LeasesService().List(ctx)
	containers, containersErr := client.ContainerService().List(ctx)
	images, imagesErr := client.ImageService().List(ctx)
	if err := errors.Join(err, containersErr, imagesErr); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal([]any{leases, containers, images})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers {
		text = append(append(text, '\n'), c.Spec.GetValue()...)
	}
	return string(text)
}

// Where a test's secrets come from.
const (
	byName = "AGENT_TOKEN"
	byFile = "AGENT_FILE_TOKEN"
	byExec = "AGENT_EXEC_TOKEN"
)

// TestSecret looks for forwarded values everywhere but in the memory of those
// who need them.
func TestSecret(t *testing.T) {
	onEachRuntime(t, testSecret)
}

func testSecret(t *testing.T, r *rig, runtime string) {
	secrets := map[string]*needle{byName: newNeedle(), byFile: newNeedle(), byExec: newNeedle()}
	all := []*needle{secrets[byName], secrets[byFile], secrets[byExec]}
	marker := newNeedle()
	began := time.Now()
	for name, n := range secrets {
		t.Setenv(name, n.value)
	}
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte(byFile+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	watching := newWatch(t, r.places(), append(all, marker)...)

	agent := r.start(t, "--runtime", runtime, "-e", byName, "--env-file", file, "--allow", "allowed.test")
	further := newPiped(t, r.command(t, "exec", "-i", "-e", byExec, agent.name, "--", "sh", "-c", `echo ready; exec sleep 1000`))
	if line := further.line(t); line != "ready\n" {
		t.Fatalf("%q: %s", line, further.stderr.String())
	}
	checkSeen(t, agent, secrets)
	r.run(t, "exec", "-e", byExec, agent.name, "sh", "-c", "wget -qO- http://$"+byExec+".refused.test/")
	if log := r.mustRun(t, "logs", "--proxy", agent.name); !strings.Contains(log, "[secret].refused.test") {
		t.Errorf("control: what a further command asks for is not in the proxy's log: %s", log)
	}
	init := agent.inspect(t).PIDs[0]
	may := map[string][]int{
		byName: {agent.cmd.Process.Pid, further.cmd.Process.Pid},
		byFile: {agent.cmd.Process.Pid, further.cmd.Process.Pid},
		byExec: {agent.cmd.Process.Pid, further.cmd.Process.Pid},
	}
	for name, n := range secrets {
		checkProcesses(t, name, n, runtime, init, may[name])
	}
	told := r.records(t) + r.mustRun(t, "inspect", agent.name) + r.mustRun(t, "ls", "--json") + agent.stderr.String()
	if !strings.Contains(told, agent.name) || !strings.Contains(told, byName) {
		t.Errorf("control: the records say nothing: %s", told)
	}
	checkNowhere(t, r, "while it lives", told, began, all)
	if err := further.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	further.wait(t)
	agent.stop(t)
	checkNowhere(t, r, "after its end", r.records(t), began, all)
	checkSearcher(t, r, watching, marker)
}

// checkSeen is the control: the agent has what was forwarded.
func checkSeen(t *testing.T, agent *live, secrets map[string]*needle) {
	t.Helper()
	for _, name := range []string{byName, byFile} {
		o := agent.exec(t, "sh", "-c", `printf %s "$`+name+`" | sha256sum`)
		if want := fmt.Sprintf("%x  -\n", sha256.Sum256([]byte(secrets[name].value))); o.stdout != want {
			t.Errorf("control: the agent does not see %s: %v", name, o)
		}
	}
}

// checkProcesses: nobody's arguments hold the value, and nobody's environment
// but carboy's own, of which the caller made it a part, and the commands'.
func checkProcesses(t *testing.T, name string, n *needle, runtime string, init int, carboys []int) {
	t.Helper()
	for pid := range n.processesWith(t, "cmdline") {
		t.Errorf("%s is in the arguments of process %d", name, pid)
	}
	holders := n.processesWith(t, "environ")
	commands := 0
	for pid, parent := range holders {
		switch {
		case slices.Contains(carboys, pid):
		case parent == init:
			commands++
		default:
			t.Errorf("%s is in the environment of process %d, child of %d", name, pid, parent)
		}
	}
	for _, pid := range carboys {
		if _, ok := holders[pid]; !ok {
			t.Errorf("control: %s is not found in carboy's own environment, process %d", name, pid)
		}
	}
	// runsc has the commands' processes to itself. The exec has the agent's
	// environment, too, but not the other way round.
	want := map[string]int{byName: 2, byFile: 2, byExec: 1}[name]
	if runtime == "runsc" {
		want = 0
	}
	if commands != want {
		t.Errorf("%s is in the environment of %d commands, want %d", name, commands, want)
	}
}

func checkNowhere(t *testing.T, r *rig, when, told string, began time.Time, all []*needle) {
	t.Helper()
	for _, n := range all {
		for _, path := range n.search(t, r.places(), began) {
			t.Errorf("%s: a secret is in %s", when, path)
		}
		if holds, err := n.in(strings.NewReader(told)); holds || err != nil {
			t.Errorf("%s: a secret is told (%v): %s", when, err, told)
		}
	}
}

// checkSearcher ends the watch. What was planted has to be found, and nothing
// else.
func checkSearcher(t *testing.T, r *rig, watching *watch, marker *needle) {
	t.Helper()
	places := append(r.places(), filepath.Join(r.containerd.State, "io.containerd.runtime.v2.task"))
	for i, place := range places {
		name := filepath.Join(place, "world-planted-"+strconv.Itoa(i))
		if _, err := os.Stat(place); err != nil {
			continue
		}
		plant(t, name, marker)
		eventually(t, "the watch sees "+name, func() bool { return watching.sees(filepath.Base(name)) })
	}
	planted := filepath.Join(os.TempDir(), "world-planted")
	if err := os.WriteFile(planted, []byte(strings.Repeat("x", 1<<20-20)+marker.value), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := marker.search(t, []string{os.TempDir()}, time.Now()); !slices.Contains(found, planted) {
		t.Errorf("control: the search does not find the planted file but %v", found)
	}
	if err := os.Remove(planted); err != nil {
		t.Fatal(err)
	}
	for _, found := range watching.stop(t) {
		if !strings.Contains(found, "world-planted") {
			t.Errorf("a secret was written: %s", found)
		}
	}
	t.Logf("%d looks at files that were closed", watching.closed)
}
