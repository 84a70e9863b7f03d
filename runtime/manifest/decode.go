package manifest

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"carboy/runtime/proxy/policy"
)

// decode fills v, a pointer to a struct, with a YAML document, and returns where
// what is in it was written. All that is wrong with it is returned, with file and
// line. A text that is not quoted is taken as it is written: 1.10 stays 1.10.
func decode(path string, b []byte, v any) (places, error) {
	m, err := parse(path, b)
	if err != nil {
		return nil, err
	}
	r := reader{path: path, places: places{}}
	if m == nil {
		m = &ast.MappingNode{Start: &token.Token{Position: &token.Position{Line: 1}}}
	}
	r.mapping(m, reflect.ValueOf(v).Elem())
	return r.places, errors.Join(r.problems...)
}

type reader struct {
	path     string
	problems []error
	places   places
}

// below notes that what read reads is at n, and what is in it below the name
// that it has then.
func (r *reader) below(n ast.Node, read func(), name func() string) {
	outer := r.places
	r.places = places{}
	read()
	inner, key := r.places, name()
	outer[key] = Place{File: r.path, Line: n.GetToken().Position.Line}
	for k, place := range inner {
		outer[key+between+k] = place
	}
	r.places = outer
}

func (r *reader) add(n ast.Node, format string, args ...any) {
	const most = 50
	if len(r.problems) < most {
		r.problems = append(r.problems, problem(r.path, n.GetToken().Position.Line, format, args...))
	}
}

func (r *reader) mapping(m *ast.MappingNode, v reflect.Value) {
	known := fields(v.Type())
	given := map[string]bool{}
	for _, entry := range m.Values {
		key := entry.Key.GetToken().Value
		i := slices.IndexFunc(known, func(f field) bool { return f.key == key })
		if i < 0 {
			r.add(entry.Key, "unknown key %q%s", cut(key), Suggest(key, keysOf(known)))
			continue
		}
		if _, null := entry.Value.(*ast.NullNode); null {
			continue // as if the key were not there
		}
		given[key] = true
		r.below(entry.Key, func() { r.value(entry.Value, v.Field(known[i].index), known[i]) }, func() string { return key })
	}
	for _, f := range known {
		if f.required && !given[f.key] {
			r.add(m, "no %s: give one", f.key)
		}
	}
}

func keysOf(known []field) (keys []string) {
	for _, f := range known {
		keys = append(keys, f.key)
	}
	return keys
}

func (r *reader) value(n ast.Node, v reflect.Value, f field) {
	if t, ok := v.Addr().Interface().(texter); ok && scalar(n) {
		if text, ok := r.text(n, f); ok {
			t.setText(text)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(n, v.Elem(), f)
	case reflect.Struct:
		if m, ok := n.(*ast.MappingNode); ok {
			r.mapping(m, v)
			return
		}
		r.add(n, "%s: give keys and values", f.key)
	case reflect.Map:
		r.table(n, v, f)
	case reflect.Slice:
		r.list(n, v, f)
	case reflect.String:
		if text, ok := r.text(n, f); ok {
			v.SetString(text)
		}
	default:
		r.plain(n, v, f)
	}
}

// table fills a map of texts.
func (r *reader) table(n ast.Node, v reflect.Value, f field) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		r.add(n, "%s: give names and values, as in `%s: {NAME: value}`", f.key, f.key)
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, entry := range m.Values {
		key := entry.Key.GetToken().Value
		r.places[key] = Place{File: r.path, Line: entry.Key.GetToken().Position.Line}
		r.matches(entry.Key, key, f.key, f.keys)
		if text, ok := r.text(entry.Value, field{key: f.key + "." + cut(key), form: f.values}); ok {
			v.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(text))
		}
	}
}

func (r *reader) list(n ast.Node, v reflect.Value, f field) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		r.add(n, "%s: give a list, as in `%s: [a, b]`", f.key, f.key)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values)))
	for i, item := range s.Values {
		r.below(item, func() { r.value(item, v.Index(i), f) }, func() string { return elementKey(v.Index(i)) })
	}
}

func scalar(n ast.Node) bool {
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return true
	}
	return false
}

func (r *reader) text(n ast.Node, f field) (text string, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = n.Value.Value
	default:
		text = n.GetToken().Value
		if !scalar(n) || f.strict() {
			r.add(n, "%s: give a text; quotes make one of a number, and \"\" is an empty one", f.key)
			return "", false
		}
	}
	switch {
	case strings.ContainsFunc(text, control):
		r.add(n, "%s: a control character", f.key)
	case f.enum != nil && !slices.Contains(f.enum, text):
		r.add(n, "%s: unknown %q%s: known are %s", f.key, cut(text), Suggest(text, f.enum), strings.Join(f.enum, ", "))
	default:
		return text, r.matches(n, text, f.key, f.form)
	}
	return "", false
}

// matches says whether a text has its form.
func (r *reader) matches(n ast.Node, text, key string, f form) bool {
	wrong := f.pattern != nil && !f.pattern.MatchString(text)
	switch {
	case wrong && f.quiet:
		r.add(n, "%s: %s", key, f.hint)
	case wrong:
		r.add(n, "%s: %q is no %s: %s", key, cut(text), f.name, f.hint)
	case f.check != nil:
		err := f.check(text)
		if err != nil {
			r.add(n, "%s: %s", key, bounded(policy.Visible(err.Error()), 300))
		}
		return err == nil
	}
	return !wrong
}

// plain fills numbers and truth values.
func (r *reader) plain(n ast.Node, v reflect.Value, f field) {
	if v.Kind() == reflect.Bool {
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
			return
		}
		r.add(n, "%s: give true or false", f.key)
		return
	}
	x, ok := number(n)
	least, most := bounds(v.Type())
	whole := v.Kind() != reflect.Float64
	if !ok || x < least || x > most || whole && x != math.Trunc(x) {
		kind := "number"
		if whole {
			kind = "whole number"
		}
		r.add(n, "%s: give a %s from %.0f to %.0f", f.key, kind, least, most)
		return
	}
	v.Set(reflect.ValueOf(x).Convert(v.Type()))
}

func number(n ast.Node) (float64, bool) {
	switch n := n.(type) {
	case *ast.IntegerNode:
		// int64 or uint64: what the parser made of the many notations.
		x, err := strconv.ParseFloat(fmt.Sprint(n.Value), 64)
		return x, err == nil
	case *ast.FloatNode:
		return n.Value, true
	}
	return 0, false
}

// bounds of the numbers that a type takes: of ports, and of amounts.
func bounds(t reflect.Type) (least, most float64) {
	if t.Kind() == reflect.Uint16 {
		return 1, math.MaxUint16
	}
	return 0, 1 << 31
}
