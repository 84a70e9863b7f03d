package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
)

// table is how the rows of a list command are printed. A row is what --json
// prints of it, a contract with its readers.
type table[T any] struct {
	head  []string
	cells func(T) []string
	name  func(T) string // what --quiet prints, nothing for an empty one; nil has no such flag
	quiet string         // what --quiet is for
	note  func(T) string // a line below the table; nil and empty are none
	plain func(T) T      // a row with text of agents and projects made safe to show; nil where there is none

	asJSON, asNames bool
	format          string
	template        *template.Template
}

// register adds the flags, which are checked before the command runs.
func (t *table[T]) register(c *cobra.Command) {
	var fields []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if !f.Anonymous {
			fields = append(fields, "."+f.Name)
		}
	}
	c.Flags().BoolVar(&t.asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&t.format, "format", "", "print each row by a Go `TEMPLATE` of "+strings.Join(fields, ", ")+"; {{json .}} is all of it")
	if t.name != nil {
		c.Flags().BoolVarP(&t.asNames, "quiet", "q", false, t.quiet)
	}
	c.PreRunE = func(*cobra.Command, []string) error { return t.check() }
}

func (t *table[T]) check() (err error) {
	chosen := 0
	for _, is := range []bool{t.asJSON, t.asNames, t.format != ""} {
		if is {
			chosen++
		}
	}
	if chosen > 1 {
		return fmt.Errorf("--json, --format and --quiet exclude each other: %w", errdefs.ErrInvalidArgument)
	}
	if t.format == "" {
		return nil
	}
	text := strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(t.format) // as docker's
	t.template, err = template.New("format").Funcs(template.FuncMap{"json": compactJSON}).Parse(text)
	return t.refuse(err)
}

// refuse says which template is wrong.
func (t *table[T]) refuse(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("--format %s: %w: %w", quote(t.format), err, errdefs.ErrInvalidArgument)
}

func compactJSON(v any) (string, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(text.String(), "\n"), err
}

func (t *table[T]) print(w io.Writer, rows []T) error {
	if t.asJSON {
		return printJSON(w, append([]T{}, rows...)) // empty and not null
	}
	if t.plain != nil {
		shown := make([]T, 0, len(rows))
		for _, row := range rows {
			shown = append(shown, t.plain(row))
		}
		rows = shown
	}
	switch {
	case t.asNames:
		return t.printNames(w, rows)
	case t.template != nil:
		return t.printTemplate(w, rows)
	default:
		return t.printCells(w, rows)
	}
}

func (t *table[T]) printNames(w io.Writer, rows []T) error {
	for _, row := range rows {
		name := t.name(row)
		if name == "" {
			continue
		}
		if _, err := fmt.Fprintln(w, name); err != nil {
			return err
		}
	}
	return nil
}

func (t *table[T]) printTemplate(w io.Writer, rows []T) error {
	for _, row := range rows {
		var line bytes.Buffer
		if err := t.template.Execute(&line, row); err != nil {
			return t.refuse(err)
		}
		if _, err := fmt.Fprintln(w, line.String()); err != nil {
			return err
		}
	}
	return nil
}

func (t *table[T]) printCells(w io.Writer, rows []T) error {
	cells := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(cells, strings.Join(t.head, "\t")) // Flush tells
	for _, row := range rows {
		_, _ = fmt.Fprintln(cells, strings.Join(t.cells(row), "\t"))
	}
	if err := cells.Flush(); err != nil || t.note == nil {
		return err
	}
	for _, row := range rows {
		if note := t.note(row); note != "" {
			if _, err := fmt.Fprintln(w, note); err != nil {
				return err
			}
		}
	}
	return nil
}
