// Package version names the build. carboy and its helpers have to be of one.
package version

import "fmt"

// Build is set by the linker (Makefile).
var Build = "devel"

// Check refuses a helper, and a helper its caller, of another build.
func Check(helper, build, caller string) error {
	if build != caller {
		return fmt.Errorf("%s is of build %q and carboy of %q: install both from one build (make install)", helper, build, caller)
	}
	return nil
}
