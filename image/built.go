package image

import (
	"regexp"
	"strings"
)

// BuiltName is the name of an image that was built without one.
func BuiltName(dir string) string {
	safe := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(dir), "-"), "-")
	if safe == "" {
		safe = "build"
	}
	return "carboy.local/" + safe + ":latest"
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)
