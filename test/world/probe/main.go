// Command probe is the agent of the tests: it tries one thing and prints what
// came of it, a JSON object in a line for each attempt. It is static, and needs
// nothing of the image.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// attempt is one line of output.
type attempt struct {
	What   string `json:"what"`
	Target string `json:"target"`
	OK     bool   `json:"ok"`
	Err    string `json:"err,omitempty"`
	Value  any    `json:"value,omitempty"`
}

const patience = 2 * time.Second

func report(what, target string, value any, err error) {
	a := attempt{What: what, Target: target, OK: err == nil, Value: value}
	if err != nil {
		a.Err = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		os.Exit(3)
	}
}

const usage = `usage: probe COMMAND
  tcp ADDR...            connect
  udp ADDR...            send a datagram, wait for an answer
  icmp IP...             ping, by an unprivileged and by a raw socket
  dns SERVER NAME...     ask for the A records
  http [-proxy URL] [-ca FILE] [-connect HOST:PORT] [-header NAME:VALUE] [-body TEXT] [-times N [-fresh]] URL...
  run --config FILE --listen ADDR   be a proxy that is healthy, and nothing else
  tunnel -ca FILE PROXY HOST:PORT NAME
  connect-storm ADDR N   N connections, 64 at a time
  firstconnect ADDR      connect before anything else
  ptrace1                reach PID 1: /proc/1, ptrace
  kill1                  send PID 1 every signal
  env | caps | limits | mounts | winsize
  spam N                 N bytes to stdout, the same each time
  cat                    stdin to stdout
  sleep SECONDS | exit N | sig N
`

func main() {
	// Nothing may come before this one.
	if len(os.Args) == 3 && os.Args[1] == "firstconnect" {
		firstConnect(os.Args[2])
		return
	}
	if len(os.Args) < 2 {
		fail(usage)
	}
	args := os.Args[2:]
	commands := map[string]func([]string){
		"tcp": each(tcp), "udp": each(udp), "icmp": each(ping), "dns": dns, "http": web, "run": beProxy, "tunnel": tunnel, "connect-storm": storm,
		"ptrace1": none(reachInit), "kill1": none(signalInit), "env": none(env), "caps": none(caps), "limits": none(limits), "mounts": none(mounts),
		"winsize": none(winsize), "cat": none(cat), "spam": number(spam), "sleep": number(sleep), "exit": number(os.Exit), "sig": number(signalSelf),
	}
	f, ok := commands[os.Args[1]]
	if !ok {
		fail(usage)
	}
	f(args)
}

func each(f func(string)) func([]string) {
	return func(args []string) {
		for _, a := range args {
			f(a)
		}
	}
}

func none(f func()) func([]string) { return func([]string) { f() } }

func number(f func(int)) func([]string) {
	return func(args []string) {
		if len(args) != 1 {
			fail(usage)
		}
		n, err := strconv.Atoi(args[0])
		if err != nil {
			fail(err.Error() + "\n")
		}
		f(n)
	}
}

func fail(s string) {
	_, _ = fmt.Fprint(os.Stderr, s)
	os.Exit(2)
}

func sleep(n int) { time.Sleep(time.Duration(n) * time.Second) }

// signalSelf ends this process by a signal, if its default is to end it.
func signalSelf(n int) {
	err := resetAndKill(syscall.Signal(n))
	report("sig", strconv.Itoa(n), nil, err)
	time.Sleep(patience)
}
