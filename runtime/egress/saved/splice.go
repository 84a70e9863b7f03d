package saved

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// splice puts a text where bytes from one to another were.
type splice struct {
	from, to int
	text     string
}

// splice fails where the parser's positions make no sense.
func (d document) splice(all ...splice) (string, error) {
	slices.SortFunc(all, func(a, b splice) int { return cmp.Compare(b.from, a.from) })
	text := d.text
	for _, s := range all {
		if s.from < 0 || s.from > s.to || s.to > len(text) {
			return "", errors.New("its list of hosts cannot be told apart from what is around it")
		}
		text = text[:s.from] + s.text + text[s.to:]
	}
	return text, nil
}

func (d document) insert(at int, text string) splice { return splice{at, at, text} }

// below inserts lines after one, which may be the last and have no end.
func (d document) below(line int, lines []string) splice {
	at, text := d.lineStart(line+1), strings.Join(lines, "\n")
	if at > 0 && d.text[at-1] != '\n' {
		return d.insert(at, "\n"+text)
	}
	return d.insert(at, text+"\n")
}

// lineStart is where a line starts, counted from 1: the end where there are fewer.
func (d document) lineStart(line int) int {
	at := 0
	for range line - 1 {
		i := strings.IndexByte(d.text[at:], '\n')
		if i < 0 {
			return len(d.text)
		}
		at += i + 1
	}
	return at
}

// offset is where a token starts. The parser counts runes.
func (d document) offset(t *token.Token) int {
	start, runes := d.lineStart(t.Position.Line), 0
	for i := range d.text[start:] {
		if runes++; runes == t.Position.Column {
			return start + i
		}
	}
	return -1
}

// after is where a token of one line ends.
func (d document) after(t *token.Token) int {
	return d.offset(t) + len(strings.TrimSpace(t.Origin))
}

// begin and end are those of an entry in brackets.
func (d document) begin(n ast.Node) int { return d.offset(n.GetToken()) }

func (d document) end(n ast.Node) int {
	if m, ok := n.(*ast.MappingNode); ok {
		if m.End == nil { // [host: a.test]
			return -1
		}
		return d.after(m.End)
	}
	return d.after(n.GetToken())
}

// lastLine is that on which something ends.
func lastLine(n ast.Node) int {
	var last latest
	ast.Walk(&last, n)
	return int(last)
}

type latest int

func (l *latest) Visit(n ast.Node) ast.Visitor {
	*l = max(*l, latest(line(n.GetToken())))
	if m, ok := n.(*ast.MappingNode); ok && m.End != nil {
		*l = max(*l, latest(line(m.End)))
	}
	return l
}
