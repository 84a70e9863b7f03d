package provision

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/crypto/ssh"

	"carboy/runtime/bottlespec"
	"carboy/runtime/initproto"
)

// SSH is a host that ssh in the bottle reaches through the proxy, with a key
// that the supervisor keeps.
type SSH struct {
	Host     string // as ssh is called with it
	HostName string // where it is
	Port     uint16
	User     string          // empty is ssh's choice
	Key      ssh.PublicKey   // whose private half signs at SSHAgentPath
	HostKeys []ssh.PublicKey // the only ones that the host may have
}

// SSHAgentPath is where an ssh-agent listens for the agent's user.
const SSHAgentPath = sshDir + "agent.sock"

const (
	sshDir        = runDir + "ssh/"
	sshConfigPath = sshDir + "config"
	knownHosts    = sshDir + "known_hosts"
	// A distribution's own file includes what is here, and its first word counts.
	sshIncludePath = "/etc/ssh/ssh_config.d/10-carboy.conf"
)

// sshFiles are public, all of them.
func (a Agent) sshFiles() ([]initproto.File, error) {
	if len(a.SSH) == 0 {
		return nil, nil
	}
	var config, known bytes.Buffer
	var files []initproto.File
	for i, h := range a.SSH {
		half := sshDir + "key-" + strconv.Itoa(i+1) + ".pub"
		files = append(files, public(half, ssh.MarshalAuthorizedKey(h.Key)))
		h.writeConfig(&config, half, a.Proxy)
		for _, key := range h.HostKeys {
			_, _ = fmt.Fprintf(&known, "%s %s", h.Host, ssh.MarshalAuthorizedKey(key)) // a Buffer never fails
		}
	}
	// For any other host that may be reached: there is no way but the proxy.
	_, _ = fmt.Fprintf(&config, "Host *\n  ProxyCommand %s\n", proxyCommand(a.Proxy))
	return append(files,
		public(knownHosts, known.Bytes()),
		public(sshConfigPath, config.Bytes()),
		public(sshIncludePath, []byte("Include "+sshConfigPath+"\n"))), nil
}

// writeConfig leaves ssh no choice of keys: one that is offered in vain counts
// as an attempt to log in.
func (h SSH) writeConfig(config *bytes.Buffer, identity string, proxy netip.AddrPort) {
	set := func(name, value string) { _, _ = fmt.Fprintf(config, "  %s %s\n", name, value) }
	_, _ = fmt.Fprintf(config, "Host %s\n", h.Host)
	set("HostName", h.HostName)
	set("Port", strconv.Itoa(int(h.Port)))
	if h.User != "" {
		set("User", h.User)
	}
	set("IdentityFile", identity)
	set("IdentitiesOnly", "yes")
	set("IdentityAgent", SSHAgentPath)
	set("HostKeyAlias", h.Host)
	set("UserKnownHostsFile", knownHosts)
	set("GlobalKnownHostsFile", "/dev/null")
	set("StrictHostKeyChecking", "yes")
	set("UpdateHostKeys", "no")
	set("ProxyCommand", proxyCommand(proxy))
}

func proxyCommand(proxy netip.AddrPort) string {
	return fmt.Sprintf("%s connect %s %%h %%p", bottlespec.InitPath, proxy)
}

// sshEnv makes git use the configuration in images whose ssh does not look for
// further files.
func (a Agent) sshEnv() []string {
	if len(a.SSH) == 0 {
		return nil
	}
	return []string{"SSH_AUTH_SOCK=" + SSHAgentPath, "GIT_SSH_COMMAND=ssh -F " + sshConfigPath}
}
