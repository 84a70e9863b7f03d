package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// tunnel opens one by CONNECT and asks a name in it, which may be another than
// the tunnel's.
func tunnel(args []string) {
	flags := flag.NewFlagSet("tunnel", flag.ExitOnError)
	ca := flags.String("ca", "", "file of trusted certificates")
	_ = flags.Parse(args) // it exits
	if flags.NArg() != 3 {
		fail(usage)
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		fail(err.Error() + "\n")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	proxy, target, name := flags.Arg(0), flags.Arg(1), flags.Arg(2)
	report("tunnel", target+" "+name, nil, ask(proxy, target, &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12}))
}

func ask(proxy, target string, config *tls.Config) error {
	conn, err := net.DialTimeout("tcp", proxy, patience)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(3 * patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return err
	}
	head := bufio.NewReader(io.LimitReader(conn, 4<<10))
	answer, err := http.ReadResponse(head, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // its body is the connection
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	inside := tls.Client(conn, config)
	if _, err := fmt.Fprintf(inside, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", config.ServerName); err != nil {
		return err
	}
	_, err = io.ReadAll(inside)
	return err
}
