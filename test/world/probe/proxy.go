package main

import (
	"flag"
	"net/http"
	"time"
)

// beProxy takes the place of pipelock in tests of what is done for it: it is
// asked for its health, and lets nothing through.
func beProxy(args []string) {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	_ = flags.String("config", "", "file of the configuration")
	listen := flags.String("listen", "", "address")
	_ = flags.Parse(args) // it exits
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	server := http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: time.Minute}
	fail(server.ListenAndServe().Error() + "\n")
}
