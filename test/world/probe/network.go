package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func connect(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience) //nolint:gosec // it is what a probe is for
	if err != nil {
		return err
	}
	return c.Close()
}

func tcp(addr string) { report("tcp", addr, nil, connect(addr)) }

func firstConnect(addr string) { report("firstconnect", addr, nil, connect(addr)) }

func udp(addr string) {
	c, err := net.DialTimeout("udp", addr, patience) //nolint:gosec // it is what a probe is for
	if err != nil {
		report("udp", addr, nil, err)
		return
	}
	defer func() { _ = c.Close() }()
	_, err = c.Write([]byte("probe"))
	if err == nil {
		err = c.SetReadDeadline(time.Now().Add(patience / 2))
	}
	if err == nil {
		_, err = c.Read(make([]byte, 1500))
	}
	report("udp", addr, nil, err)
}

// ping asks by both kinds of socket: the first needs a sysctl, the second a
// capability.
func ping(ip string) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		fail(err.Error() + "\n")
	}
	report("icmp", ip, nil, echo(addr, unix.SOCK_DGRAM))
	report("icmp-raw", ip, nil, echo(addr, unix.SOCK_RAW))
}

func echo(addr netip.Addr, kind int) error {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	request := []byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1} // echo, with its checksum
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: addr.Unmap().As4()}
	if addr.Is6() && !addr.Is4In6() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
		request = []byte{128, 0, 0, 0, 0, 1, 0, 1} // the kernel does the checksum
		to = &unix.SockaddrInet6{Addr: addr.As16()}
	}
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.NsecToTimeval(int64(patience / 2))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	if err := unix.Sendto(fd, request, 0, to); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	_, _, err = unix.Recvfrom(fd, make([]byte, 1500), 0)
	return err
}

func dns(args []string) {
	if len(args) < 2 {
		fail(usage)
	}
	server := args[0]
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "53")
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	for _, name := range args[1:] {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		addrs, err := resolver.LookupHost(ctx, name)
		cancel()
		report("dns", name, addrs, err)
	}
}

// web gets each URL. The environment's proxy variables count, as for any client.
func web(args []string) {
	flags := flag.NewFlagSet("http", flag.ExitOnError)
	proxy := flags.String("proxy", "", "proxy URL; none for no proxy at all")
	ca := flags.String("ca", "", "file of trusted certificates")
	dial := flags.String("connect", "", "connect to this address instead of the URL's")
	var o order
	flags.StringVar(&o.host, "host", "", "Host header")
	flags.StringVar(&o.header, "header", "", "one more header, as NAME:VALUE")
	flags.StringVar(&o.body, "body", "", "text to POST")
	times := flags.Int("times", 1, "how often, on one connection; the last answer is reported, or the first error")
	fresh := flags.Bool("fresh", false, "each time on a connection of its own")
	_ = flags.Parse(args) // it exits
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: *fresh || *times == 1}
	if *proxy == "none" {
		transport.Proxy = nil
	} else if *proxy != "" {
		u, err := url.Parse(*proxy)
		if err != nil {
			fail(err.Error() + "\n")
		}
		transport.Proxy = http.ProxyURL(u)
	}
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			fail(err.Error() + "\n")
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if *dial != "" {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, *dial)
		}
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	for _, target := range flags.Args() {
		value, err := get(client, target, o)
		for i := 1; i < *times && err == nil; i++ {
			value, err = get(client, target, o)
		}
		report("http", target, value, err)
	}
}

// order is what a request has beside its URL.
type order struct{ host, header, body string }

// get is an error for every status but 200, whose answer is the value then. The
// begin of an answer has to come soon; all of it may take as long as it comes.
func get(client *http.Client, target string, o order) (any, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	late := time.AfterFunc(5*patience, cancel)
	method := http.MethodGet
	if o.body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(o.body))
	if err != nil {
		return nil, err
	}
	req.Host = o.host
	if name, value, ok := strings.Cut(o.header, ":"); ok {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	late.Stop()
	defer func() { _ = resp.Body.Close() }()
	return answer(resp)
}

func answer(resp *http.Response) (any, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	rest, restErr := io.Copy(io.Discard, resp.Body)
	value := map[string]any{"status": resp.StatusCode, "body": string(body), "length": int64(len(body)) + rest}
	if resp.TLS != nil {
		value["issuer"] = resp.TLS.PeerCertificates[0].Issuer.CommonName
	}
	err = errors.Join(err, restErr)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return value, err
}

func storm(args []string) {
	if len(args) != 2 {
		fail(usage)
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		fail(err.Error() + "\n")
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	opened := 0
	var last error
	slots := make(chan struct{}, 64)
	for range n {
		slots <- struct{}{}
		wg.Go(func() {
			err := connect(args[0])
			mu.Lock()
			if last = err; err == nil {
				opened++
			}
			mu.Unlock()
			<-slots
		})
	}
	wg.Wait()
	if opened > 0 {
		last = nil
	}
	report("connect-storm", args[0], opened, last)
}
