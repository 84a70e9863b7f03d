// Command carboy runs AI coding agents in sealed bottles on containerd.
package main

import (
	"os"

	"carboy/cmd/carboy/cmd"
)

func main() { os.Exit(cmd.Main()) }
