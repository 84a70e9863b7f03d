package cmd

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"carboy/runtime/manifest"
	"carboy/runtime/proxy/policy"
)

func (x *conversion) ssh(b *bottleDraft, what string, old oldSSH) {
	s := sshDraft{Host: old.Host, HostName: old.Hostname, User: old.User, Key: old.IdentityFile}
	port := fmt.Sprint(old.Port)
	if old.Port == nil || port == "" {
		port = "22"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || s.Host == "" {
		x.note("%s: ssh %q with port %q is left out", what, s.Host, port)
		return
	}
	if slices.ContainsFunc(b.SSH, func(have sshDraft) bool { return have.Host == s.Host }) {
		x.note("%s: ssh %q is there twice: the first counts", what, s.Host)
		return
	}
	if old.KnownHostKey == "" {
		x.note("%s: ssh %q has no KnownHostKey and is left out: write it with its known-hosts, which ssh-keyscan shows", what, s.Host)
		return
	}
	if s.Port = uint16(n); n == 22 {
		s.Port = 0
	}
	s.KnownHosts = []string{hostKey(old.KnownHostKey)}
	if _, err := examine(nil, manifest.Agent{}, manifest.Bottle{Source: what, SSH: []manifest.SSH{manifest.SSH(s)}}); err != nil {
		x.note("%v: it is left out", err)
		return
	}
	b.SSH = append(b.SSH, s)
	target := s.HostName
	if target == "" {
		target = s.Host
	}
	if addr, err := netip.ParseAddr(target); err == nil && policy.Refused(addr) != "" {
		b.Egress.Private = append(b.Egress.Private, target)
	}
}

// hostKey leaves out the host that a line of known_hosts begins with.
func hostKey(line string) string {
	if fields := strings.Fields(line); len(fields) > 2 && strings.HasPrefix(fields[2], "AAAA") {
		return strings.Join(fields[1:], " ")
	}
	return line
}

// git was a mirror that looked for secrets on the way out; here it is ssh.
func (x *conversion) git(b *bottleDraft, what string, old oldGit) {
	u, err := url.Parse(old.Upstream)
	if err != nil || u.Scheme != "ssh" || u.Hostname() == "" {
		x.note("%s: git %q has no equivalent", what, old.Name)
		return
	}
	x.note("%s: git %q has become ssh to %s: nothing looks for secrets in what is pushed", what, old.Name, u.Hostname())
	for _, host := range slices.Sorted(maps.Keys(old.ExtraHosts)) {
		if host != u.Hostname() {
			x.note("%s: git %q: the address of %s in ExtraHosts has no equivalent", what, old.Name, host)
		}
	}
	s := oldSSH{Host: u.Hostname(), Hostname: old.ExtraHosts[u.Hostname()], IdentityFile: old.IdentityFile, User: u.User.Username(), KnownHostKey: old.KnownHostKey, Port: u.Port()}
	if !slices.ContainsFunc(b.SSH, func(have sshDraft) bool { return have.Host == s.Host }) {
		x.ssh(b, what, s)
	}
}
