package doctor

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/invoker"
	"carboy/runtime/proxy/policy"
)

// Bundle is what a bug report gets. Nobody but its maker knows what a log or a
// variable holds, so it has none.
type Bundle struct {
	Report   Report
	Versions []Setting
	Config   []Setting         // what the configuration file sets, without its comments
	Settings []Setting         // what is in force
	Withheld map[string]string // texts that must not be in it, and what stands for each
}

// Setting is a name with its value, and where that comes from.
type Setting struct{ Name, Value, Source string }

// Versions are those of what bottles are made with.
func (p *Patient) Versions(ctx context.Context) []Setting {
	list := []Setting{{Name: "carboy", Value: p.Build}, {Name: "go", Value: runtime.Version()}, {Name: "platform", Value: runtime.GOOS + "/" + runtime.GOARCH}}
	var name unix.Utsname
	if unix.Uname(&name) == nil { // which cannot fail but for a bad address
		list = append(list, Setting{Name: "kernel", Value: unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Version[:])})
	}
	release, _ := p.text("etc/os-release") // not all have one
	for row := range strings.Lines(release) {
		if value, found := strings.CutPrefix(row, "PRETTY_NAME="); found {
			list = append(list, Setting{Name: "system", Value: strings.Trim(value, "\"\n")})
		}
	}
	if p.daemon != nil {
		if version, err := p.daemon.Version(ctx); err == nil {
			list = append(list, Setting{Name: "containerd", Value: version})
		}
	}
	return list
}

// Write makes the file with the rights of who asks, and refuses one that is
// there.
func (b Bundle) Write(who invoker.User, path string) error {
	file, err := who.Create(path)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if err := errors.Join(file.Chmod(0o600), b.pack(file)); err != nil {
		return errors.Join(fmt.Errorf("bundle: %w", err), file.Discard())
	}
	if err := file.CommitNew(); err != nil {
		return fmt.Errorf("bundle %s: %w", path, err)
	}
	return nil
}

func (b Bundle) pack(w io.Writer) error {
	findings, err := json.MarshalIndent(b.without(), "", "  ")
	if err != nil {
		return err
	}
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	for _, f := range []struct{ name, text string }{
		{"doctor.json", string(findings) + "\n"}, {"versions.txt", lines(b.Versions)},
		{"config.txt", lines(b.Config)}, {"settings.txt", lines(b.Settings)},
	} {
		header := &tar.Header{Name: "carboy-doctor/" + f.name, Mode: 0o644, Size: int64(len(f.text)), ModTime: time.Now()}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.WriteString(archive, f.text); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}

// without is the report with nothing withheld in it; a text of a few letters
// means nothing and would be found in other words.
func (b Bundle) without() Report {
	const fewest = 4
	withheld := slices.DeleteFunc(slices.Collect(maps.Keys(b.Withheld)), func(text string) bool { return len(text) < fewest })
	slices.SortFunc(withheld, func(x, y string) int { return cmp.Compare(len(y), len(x)) }) // one may begin another
	var pairs []string
	for _, text := range withheld {
		pairs = append(pairs, text, b.Withheld[text])
	}
	hide := strings.NewReplacer(pairs...)
	r := b.Report
	r.Checks = slices.Clone(r.Checks)
	for i, f := range r.Checks {
		r.Checks[i].Found, r.Checks[i].Out = hide.Replace(f.Found), hide.Replace(f.Out)
	}
	return r
}

func lines(list []Setting) string {
	var text strings.Builder
	for _, s := range list {
		fmt.Fprintf(&text, "%s: %s", s.Name, policy.OneLine(s.Value))
		if s.Source != "" {
			fmt.Fprintf(&text, "  (%s)", s.Source)
		}
		text.WriteByte('\n')
	}
	return text.String()
}
