package manifest

import (
	"strings"
	"testing"
)

const hostKeyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

// refused are values with what is said about them; the line is the second one.
var refused = []struct{ text, want string }{
	{"egress: {allow: [a b]}", `allow: bad host pattern "a b": blank or control character in a host name`},
	{"egress: {allow: [{host: 'https://a.test/x'}]}", `host: bad host pattern "https://a.test/x": give the host only, as in a.test`},
	{"egress: {allow: ['']}", `allow: bad host pattern "": a host name has 1 to 253 characters`},
	{"egress: {private: [db.local]}", `private: private address "db.local": give an address or a prefix, as in 10.1.2.3/32`},
	{"egress: {presets: [pipy]}", `presets: unknown "pipy" (did you mean "pypi"?): known are claude, codex, debian, github, go, npm, pypi`},
	{"egress: {dlp: drop}", `dlp: unknown "drop": known are block, warn`},
	{"limits: {memory: lots}", `memory: "lots": give a size of at least 16MiB, as in 512MiB or 4g`},
	{"limits: {memory: 15m}", `memory: "15m": give a size of at least 16MiB, as in 512MiB or 4g`},
	{"limits: {disk: 1k}", `disk: "1k": give a size of at least 1MiB, as in 512MiB or 4g`},
	{"limits: {cpus: many}", `cpus: give a number from 0 to 2147483648`},
	{"mounts: [{source: /srv, target: data}]", `target: "data": give an absolute path in the container that is its own, as /data`},
	{"mounts: [{source: /srv, target: /etc/x}]", `target: "/etc/x": give an absolute path in the container that is its own, as /data`},
	{"mounts: [{source: /run/docker.sock, target: /x}]", `source: "/run/docker.sock": services of the host have their sockets and devices there: name a directory of files`},
	{"mounts: [{source: '', target: /x}]", `source: "": give an absolute path of the host, or one from ~/`},
	{"mounts: [{target: /x}]", `no source: give one`},
	{"workspace: {target: /proc}", `target: "/proc": give an absolute path in the container that is its own, as /data`},
	{"workdir: src", `workdir: "src": give an absolute path in the image`},
	{"image: A B", `image: image reference "A B": invalid reference format: repository name (library/A B) must be lowercase`},
	{"proxy: {image: A B}", `image: image reference "A B": invalid reference format: repository name (library/A B) must be lowercase`},
	{"build: {target: x}", `no context: give one`},
	{"env: {a-b: x}", `env: "a-b" is no name of a variable: use letters, digits and '_'`},
	{"env: {A: '${a-b}'}", `env.A: environment variable name "a-b"`},
	{"env: {A: 'credential:../x'}", `env.A: credential "../x": give its name alone`},
	{"secrets: {a: 'credential:'}", `secrets.a: credential "": give its name alone`},
	{"secrets: {a: s3cret}", `secrets.a: a secret is not written here: give ${NAME}, ?TEXT or credential:NAME`},
	{"git: {name: a <b>}", `name: "a <b>": git drops blanks around and < > in names and addresses`},
	{`git: {email: "a\nb"}`, `email: control character in "a\nb"`},
	{"git: {instead-of: {a: ''}}", `instead-of.a: "": give the beginning of an address, and what stands for it`},
	{"git: {instead-of: {'': a}}", `instead-of: "": give the beginning of an address, and what stands for it`},
	{"ssh: [{host: '*'}]", `host: "*": not a host name`},
	{"ssh: [{host: a, hostname: a/b}]", `hostname: "a/b": not a host name`},
	{"ssh: [{host: a, user: -x}]", `user: "-x" is no name of a user: use letters, digits and _ . @ + -, at most 64`},
	{"ssh: [{host: a, known-hosts: [a " + hostKeyLine + "]}]", `known-hosts: known host "a ` + hostKeyLine + `": give a type and a key alone, as in "ssh-ed25519 AAAA..."`},
	{"extends: ../x", `extends: "../x" is no name: use lower-case letters, digits, '.', '_' and '-', at most 40`},
	{"runtime: kata", `runtime: unknown "kata": known are auto, runc, runsc`},
}

// TestRefusedValues: each is told with its line, and all of a file at once.
func TestRefusedValues(t *testing.T) {
	const end = ": invalid argument"
	for _, tt := range refused {
		want := "/x/bottles/y.yaml:2: " + tt.want + end
		if _, err := ParseBottle("/x/bottles/y.yaml", []byte("# first\n"+tt.text+"\n")); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %v", tt.text, err, want)
		}
	}
	file := "limits: {memory: x,\n  disk: y}\nmounts:\n- source: /a\n  target: b\n- source: /c\n  target: d\nenv:\n  A: ok\n  B-C: x\n"
	wants := []string{"y:1: memory:", "y:2: disk:", "y:5: target:", "y:7: target:", "y:10: env:"}
	_, err := ParseBottle("y", []byte(file))
	lines := strings.Split(err.Error(), "\n")
	for i, want := range wants {
		if len(lines) != len(wants) || !strings.HasPrefix(lines[i], want) {
			t.Errorf("%q, want %q", lines, want)
		}
	}
}

// TestRefusedNames: what is looked for and not there, or not allowed, is told
// with the line that names it.
func TestRefusedNames(t *testing.T) {
	etc := files("/etc/carboy", map[string]string{
		"bottles/closed.yaml": "image: x\n", "bottles/loop.yaml": "image: x\nextends:\n- closed\n- loop\n", "bottles/orphan.yaml": "image: x\nextends: gone\n",
		"bottles/ill.yaml": "extends: sick\n", "bottles/sick.yaml": "image: x\nlimits:\n  memory: x\n",
	})
	agent := func(bottle string) string { return "---\nprovider: claude\nbottle: " + bottle + "\n---\n" }
	user := files("/u", map[string]string{
		"agents/lost.md": agent("gone"), "agents/loop.md": agent("loop"), "agents/orphan.md": agent("orphan"), "agents/ill.md": agent("ill"),
		"agents/who.md": "---\nbottle: closed\nprovider: clyde\n---\n", "agents/greedy.md": "---\nbottle: closed\nenv:\n  A: '${B C}'\n---\n",
	})
	p := project(t, map[string]string{"agents/thief.md": agent("closed"), "agents/two.md": "---\nbottle: closed\nenv:\n  A: x\n  B: '${B}'\n  C: '?'\n---\n"})
	const class, plain = ": invalid argument", "an agent of a project may have plain values only: the bottle says what is forwarded" + ": invalid argument"
	for name, want := range map[string]string{
		"lost":   "/u/agents/lost.md:3: no bottle gone: looked for /u/bottles/gone.yaml and /etc/carboy/bottles/gone.yaml" + class,
		"loop":   "/etc/carboy/bottles/loop.yaml:4: bottle loop extends itself: loop -> loop" + class,
		"orphan": "/etc/carboy/bottles/orphan.yaml:2: no bottle gone: looked for /etc/carboy/bottles/gone.yaml" + class,
		"ill":    `/etc/carboy/bottles/sick.yaml:3: memory: "x": give a size of at least 16MiB, as in 512MiB or 4g` + class,
		"who":    `/u/agents/who.md:3: provider: unknown "clyde" (did you mean "claude"?): known are claude, codex, generic` + class,
		"greedy": `/u/agents/greedy.md:4: env.A: environment variable name "B C"` + class,
		"thief":  "/p/.carboy/agents/thief.md:3: an agent of a project may not use bottle closed: whoever trusts it with that writes `projects: true` into /etc/carboy/bottles/closed.yaml" + class,
		"two":    "/p/.carboy/agents/two.md:5: env.B: " + plain + "\n/p/.carboy/agents/two.md:6: env.C: " + plain,
	} {
		if _, _, err := Find([]Dir{user, etc, p}, name); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %v", name, err, want)
		}
	}
}
