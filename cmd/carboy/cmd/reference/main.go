// Command reference writes what carboy's commands say of themselves as Markdown
// and as man pages. The same commands make the same files on every day.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"carboy/cmd/carboy/cmd"
)

func main() {
	markdown := flag.String("markdown", "", "`DIR` for Markdown, from which it removes what is of no command")
	man := flag.String("man", "", "`DIR` for man pages, of section 1")
	flag.Parse()
	if err := write(*markdown, *man); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func write(markdown, man string) error {
	for dir, page := range map[string]format{markdown: {".md", markdownPage}, man: {".1", manPage}} {
		if dir == "" {
			continue
		}
		if err := os.RemoveAll(dir); err != nil { // commands that are no more
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		root := cmd.Root()
		root.InitDefaultHelpFlag()
		if err := page.write(dir, root); err != nil {
			return err
		}
	}
	return nil
}

type format struct {
	ext  string
	page func(*bytes.Buffer, *cobra.Command) error
}

// write makes a page of each command that help shows.
func (f format) write(dir string, c *cobra.Command) error {
	c.DisableAutoGenTag = true // it has a date
	var page bytes.Buffer
	if err := f.page(&page, c); err != nil {
		return fmt.Errorf("%s: %w", c.CommandPath(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, f.name(c)), page.Bytes(), 0o644); err != nil {
		return err
	}
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := f.write(dir, sub); err != nil {
			return err
		}
	}
	return nil
}

// name is as cobra's pages name each other.
func (f format) name(c *cobra.Command) string {
	separator := "_"
	if f.ext == ".1" {
		separator = "-"
	}
	return strings.ReplaceAll(c.CommandPath(), " ", separator) + f.ext
}

func markdownPage(w *bytes.Buffer, c *cobra.Command) error { return doc.GenMarkdown(c, w) }

// manPage has no date: cobra can only be given one.
func manPage(w *bytes.Buffer, c *cobra.Command) error {
	day := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	var dated bytes.Buffer
	if err := doc.GenMan(c, &doc.GenManHeader{Section: "1", Date: &day, Source: "carboy", Manual: "carboy"}, &dated); err != nil {
		return err
	}
	_, err := w.Write(bytes.Replace(dated.Bytes(), []byte(`"`+day.Format("Jan 2006")+`"`), []byte(`""`), 1))
	return err
}
