package netns

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// held is a connection to an echo, from a namespace.
func held(t *testing.T, ns *os.File, address string) net.Conn {
	t.Helper()
	var c net.Conn
	must(t, inNamespace(ns, func() (err error) {
		c, err = net.DialTimeout("tcp", address, patience)
		return err
	}))
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(patience)))
	if !echoes(c) {
		t.Fatalf("control: nobody answers at %s", address)
	}
	return c
}

func echoes(c net.Conn) bool {
	_, err := c.Write([]byte("?"))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	return err == nil
}

func echo(t *testing.T, ns *os.File, address string) {
	t.Helper()
	must(t, inNamespace(ns, func() error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, c); c.Close() }()
			}
		}()
		return nil
	}))
}

func TestEndConnections(t *testing.T) {
	eachPlugins(t, func(t *testing.T, dir string) {
		w := newWorld(t)
		n, other := w.bottle(t, w.config("one", dir)), w.bottle(t, w.config("two", dir))
		inside := net.JoinHostPort(ProxyAddr.String(), "8888")
		echo(t, w.internet, site+":443")
		echo(t, n.egress, inside)
		agent, out, others := held(t, n.isolated, inside), held(t, n.egress, site+":443"), held(t, other.egress, site+":443")
		must(t, n.EndConnections())
		for what, c := range map[string]net.Conn{"the agent's": agent, "the proxy's": out} {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if !echoes(others) {
			t.Error("another bottle's connection ended")
		}
		held(t, n.isolated, inside) // who listens goes on
		held(t, n.egress, site+":443")
		must(t, n.EndConnections())
		must(t, n.EndConnections()) // there is none
	})
}

func TestSetPorts(t *testing.T) {
	eachPlugins(t, func(t *testing.T, dir string) {
		w := newWorld(t)
		n := w.bottle(t, w.config("one", dir))
		echo(t, w.internet, site+":443")
		late := serve(t, w.internet, site, 8443)
		open := held(t, n.egress, site+":443")
		if asks(n.egress, "tcp", site, 8443) || late.arrived.Load() != 0 {
			t.Error("a port that is not allowed is reached")
		}
		must(t, n.SetPorts([]uint16{8443}))
		if !asks(n.egress, "tcp", site, 8443) {
			t.Error("a port that is allowed is not reached")
		}
		if asks(n.egress, "tcp", site, 443) || !echoes(open) {
			t.Error("another port is reached, or what was open has ended")
		}
		must(t, n.Verify())
	})
}
