package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"carboy/test/world"
)

// attempt is one way out that the agent tries.
type attempt struct {
	what    string
	command string // in the agent's script
	allowed bool
	arrived func(world.Arrival) bool
}

// asked is a name that only the agent asks for: the proxy has to ask for the
// allowed one.
const asked = "a-secret.exfiltrated.test"

var attempts = []attempt{
	{"http://allowed.test", "get http://allowed.test/", true, named("internet/http", "allowed.test")},
	{"https://allowed.test", "probe http -ca ca.pem https://allowed.test/", true, named("internet/https", "allowed.test")},
	{"http://denied.test", "get http://denied.test/", false, named("internet/http", "denied.test")},
	{"https://denied.test", "probe http -ca ca.pem https://denied.test/", false, named("internet/https", "denied.test")},
	{"allowed.test by its address, past the proxy", "probe http -proxy none http://" + world.Allowed + "/", false, named("internet/http", world.Allowed)},
	{"the Internet by IPv6, past the proxy", "probe tcp [" + world.Internet6 + "]:22", false, at("internet/tcp", world.Internet6)},
	{"a datagram to the Internet", "probe udp " + world.Allowed + ":9999", false, at("internet/udp", world.Allowed)},
	{"a DNS query that carries a secret", "probe dns " + world.Resolver + " " + asked, false, named("internet/dns", asked)},
	{"a service of this host", "probe tcp " + world.HostAddr + ":7777", false, at("host/tcp", world.HostAddr)},
	{"a neighbour in the host's network", "probe http -proxy none http://" + world.Neighbour + "/", false, at("lan/http", world.Neighbour)},
	{"the cloud's metadata service", "probe http -proxy none http://" + world.Metadata + "/", false, at("metadata/http", world.Metadata)},
}

// named matches what came for that name. A connection that ended before it told
// one does not, and counts as a stray.
func named(server, name string) func(world.Arrival) bool {
	return func(a world.Arrival) bool {
		return a.Server == server && slices.Contains(a.Names, name)
	}
}

func at(server, addr string) func(world.Arrival) bool {
	return func(a world.Arrival) bool {
		return a.Server == server && a.Local.Addr() == netip.MustParseAddr(addr)
	}
}

// proxyOwn is what the proxy asks for the allowed host.
func proxyOwn(a world.Arrival) bool { return named("internet/dns", "allowed.test")(a) }

// outcome is what came of an attempt: as the agent tells it, and how often it
// arrived.
type outcome struct {
	claimed bool
	arrived int
}

// right tells whether an allowed attempt worked, or another came to nothing.
func (o outcome) right(a attempt) bool { return o.claimed == a.allowed && (o.arrived > 0) == a.allowed }

// greeting is the first thing that the agent says; a line for each attempt follows.
const greeting = "here"

// judge sorts the arrivals by attempt. What belongs to none is a stray.
func judge(said string, arrivals []world.Arrival) (outcomes []outcome, strays []world.Arrival, err error) {
	lines := strings.Fields(said)
	if len(lines) != len(attempts)+1 || lines[0] != greeting {
		return nil, nil, fmt.Errorf("the agent did not try everything: it said %q", said)
	}
	outcomes = make([]outcome, len(attempts))
	for i, a := range attempts {
		outcomes[i].claimed = lines[i+1] == "yes"
		for _, arrival := range arrivals {
			if a.arrived(arrival) {
				outcomes[i].arrived++
			}
		}
	}
	for _, arrival := range arrivals {
		of := func(a attempt) bool { return a.arrived(arrival) }
		if !proxyOwn(arrival) && !slices.ContainsFunc(attempts, of) {
			strays = append(strays, arrival)
		}
	}
	return outcomes, strays, nil
}

// script is the agent.
func script() string {
	var b strings.Builder
	b.WriteString(`#!/bin/sh
cd "${0%/*}" || exit 1
get() { busybox wget -q -O /dev/null "$@" 2>/dev/null; }
probe() { ./probe "$@" | grep -q '"ok":true'; }
try() { if "$@"; then echo yes; else echo no; fi; }
echo ` + greeting + "\n")
	for _, a := range attempts {
		b.WriteString("try " + a.command + "\n")
	}
	return b.String()
}
