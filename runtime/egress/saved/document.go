package saved

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"carboy/runtime/manifest"
)

// document is a manifest's text, whose lines end in \n, and where in it what is.
type document struct {
	text   string
	egress *ast.MappingValueNode // nil where there is none
	allow  *ast.MappingValueNode // nil where there is none
}

func read(text string) (d document, err error) {
	file, err := parser.ParseBytes([]byte(text), 0)
	if err != nil {
		return d, err
	}
	d.text = text
	for _, doc := range file.Docs {
		d.egress = entry(doc.Body, "egress")
	}
	if d.egress != nil {
		d.allow = entry(d.egress.Value, "allow")
	}
	return d, nil
}

func entry(n ast.Node, key string) *ast.MappingValueNode {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		return nil
	}
	for _, v := range m.Values {
		if v.Key.GetToken().Value == key {
			return v
		}
	}
	return nil
}

// add appends to egress.allow, which is made where it has to be.
func add(text string, hosts []manifest.Allowed) (string, error) {
	d, err := read(text)
	if err != nil {
		return "", err
	}
	switch {
	case d.egress == nil:
		return d.splice(d.below(strings.Count(text, "\n")+1, append([]string{"egress:", "  allow:"}, items(4, hosts)...)))
	case d.allow == nil:
		return d.splice(d.newList(hosts)...)
	default:
		return d.splice(d.longer(hosts)...)
	}
}

// newList is for an egress that says nothing of hosts.
func (d document) newList(hosts []manifest.Allowed) []splice {
	m, _ := d.egress.Value.(*ast.MappingNode)
	if m != nil && m.IsFlowStyle {
		text := "allow: [" + inline(hosts) + "]"
		if len(m.Values) > 0 {
			text += ", "
		}
		return []splice{d.insert(d.after(m.Start), text)}
	}
	indent := column(d.egress.Key.GetToken()) + 2
	if m != nil {
		indent = column(m.Values[0].Key.GetToken())
	}
	lines := append([]string{spaces(indent) + "allow:"}, items(indent+2, hosts)...)
	return []splice{d.below(line(d.egress.Key.GetToken()), lines)}
}

// longer appends in the style that the list has. One that is empty has none.
func (d document) longer(hosts []manifest.Allowed) []splice {
	key := d.allow.Key.GetToken()
	s, _ := d.allow.Value.(*ast.SequenceNode)
	inBraces := d.egress.Value.(*ast.MappingNode).IsFlowStyle
	switch {
	case s == nil, s.IsFlowStyle && len(s.Values) == 0 && line(s.Start) == line(s.End) && !inBraces:
		all := []splice{d.below(line(key), items(column(key)+2, hosts))}
		if s != nil {
			all = append(all, splice{d.offset(s.Start) - 1, d.after(s.End), ""})
		}
		return all
	case s.IsFlowStyle && len(s.Values) == 0:
		return []splice{d.insert(d.after(s.Start), inline(hosts))}
	case s.IsFlowStyle:
		return []splice{d.insert(d.end(s.Values[len(s.Values)-1]), ", "+inline(hosts))}
	default:
		return []splice{d.below(lastLine(s.Values[len(s.Values)-1]), items(column(s.Start), hosts))}
	}
}

// remove takes entries out of egress.allow, which holds all of them in their order.
func remove(text string, gone func(manifest.Allowed) bool, all []manifest.Allowed) (string, error) {
	all = slices.Clone(all)
	for i := len(all) - 1; i >= 0; i-- {
		if !gone(all[i]) {
			continue
		}
		d, err := read(text)
		if err != nil {
			return "", err
		}
		if d.allow == nil {
			return "", errors.New("it has no list")
		}
		s, ok := d.allow.Value.(*ast.SequenceNode)
		if !ok || len(s.Values) != len(all) {
			return "", errors.New("it is no list of these")
		}
		if text, err = d.splice(d.without(s, i)...); err != nil {
			return "", err
		}
		all = slices.Delete(all, i, i+1)
	}
	return text, nil
}

// without leaves [] of the last entry: nothing there would look forgotten.
func (d document) without(s *ast.SequenceNode, i int) []splice {
	last := len(s.Values) - 1
	switch {
	case s.IsFlowStyle && last == 0:
		return []splice{{d.after(s.Start), d.offset(s.End), ""}}
	case s.IsFlowStyle && i < last:
		return []splice{{d.begin(s.Values[i]), d.begin(s.Values[i+1]), ""}}
	case s.IsFlowStyle:
		return []splice{{d.end(s.Values[i-1]), d.end(s.Values[i]), ""}}
	}
	lines := splice{d.lineStart(line(s.Entries[i].Start)), d.lineStart(lastLine(s.Values[i]) + 1), ""}
	if last > 0 {
		return []splice{lines}
	}
	return []splice{d.insert(d.after(d.allow.Start), " []"), lines}
}

// items are lines of a list in block style.
func items(indent int, hosts []manifest.Allowed) (lines []string) {
	for _, h := range hosts {
		text := bracketed(h)
		if h.TLS == "" {
			text = quoted(h.Host, "*")
		}
		lines = append(lines, spaces(indent)+"- "+text)
	}
	return lines
}

func inline(hosts []manifest.Allowed) string {
	var all []string
	for _, h := range hosts {
		all = append(all, bracketed(h))
	}
	return strings.Join(all, ", ")
}

// bracketed is how a host is written in brackets, where host:443 may be a key.
func bracketed(h manifest.Allowed) string {
	host := quoted(h.Host, "*:")
	if h.TLS != "" {
		return fmt.Sprintf("{host: %s, tls: %s}", host, h.TLS)
	}
	return host
}

// quoted has quotes where it would be no text, as 1.e5 and null, or has some of what
// needs them.
func quoted(host, special string) string {
	if host[0] >= 'a' && host[0] <= 'z' && strings.Contains(host, ".") && !strings.ContainsAny(host, special) {
		return host
	}
	return `"` + host + `"`
}

func spaces(n int) string { return strings.Repeat(" ", n) }

func line(t *token.Token) int { return t.Position.Line }

// column counts from zero.
func column(t *token.Token) int { return t.Position.Column - 1 }
