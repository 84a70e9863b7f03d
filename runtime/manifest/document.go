package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"carboy/runtime/proxy/policy"
)

// Bounds of a manifest: its bytes, those of its YAML, of which an agent has
// little, and how deep that is nested. The parser takes time that grows with the square of the depth, and
// worse where brackets stay open.
const (
	maxSize  = 1 << 20
	maxYAML  = 64 << 10
	maxHead  = 16 << 10
	maxDepth = 16
)

// problem is one thing that is wrong with a file. What the file says is shown
// without what would disturb a terminal.
func problem(path string, line int, format string, args ...any) error {
	text := policy.Visible(fmt.Sprintf(format, args...))
	return Place{File: path, Line: line}.Fault(fmt.Errorf("%s: %w", text, errdefs.ErrInvalidArgument))
}

// shown is a path without what would disturb a terminal: whoever made the
// directories of a project named them.
func shown(path string) string { return policy.Visible(path) }

// checkText refuses what is no text that can be shown.
func checkText(path string, b []byte) error {
	if !utf8.Valid(b) {
		for i, line := range bytes.Split(b, []byte("\n")) {
			if !utf8.Valid(line) {
				return problem(path, i+1, "not UTF-8")
			}
		}
	}
	if i := bytes.IndexFunc(b, control); i >= 0 {
		r, _ := utf8.DecodeRune(b[i:])
		return problem(path, 1+bytes.Count(b[:i], []byte("\n")), "control character %U", r)
	}
	return nil
}

// control characters move cursors, or end what programs in C read.
func control(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0
}

// frontMatter splits a Markdown file at its --- lines. The head keeps its
// first line, so that line numbers in errors are the file's.
func frontMatter(b []byte) (head, body []byte) {
	const mark = "---\n"
	text := bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !bytes.HasPrefix(text, []byte(mark)) {
		return nil, text
	}
	head, body, found := bytes.Cut(text[len(mark)-1:], []byte("\n"+mark))
	if !found {
		head = bytes.TrimSuffix(head, []byte("\n---"))
	}
	return head, body
}

// parse returns the mapping that a document is, nil of an empty one. It takes
// little time, whatever the document is.
func parse(path string, b []byte) (*ast.MappingNode, error) {
	if len(b) > maxYAML {
		return nil, problem(path, 1, "more than %d KiB of YAML", maxYAML>>10)
	}
	tokens := lexer.Tokenize(string(b))
	if err := checkTokens(path, tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			return nil, problem(path, at.GetToken().Position.Line, "%s", at.GetMessage())
		}
		return nil, problem(path, 1, "not valid YAML")
	}
	return mapping(path, file)
}

func mapping(path string, file *ast.File) (*ast.MappingNode, error) {
	if len(file.Docs) == 0 || file.Docs[0].Body == nil || file.Docs[0].Body.Type() == ast.CommentType {
		return nil, nil
	}
	body := file.Docs[0].Body
	m, ok := body.(*ast.MappingNode)
	if !ok {
		return nil, problem(path, body.GetToken().Position.Line, "give keys and values, as in `image: busybox`")
	}
	return m, nil
}

// checkTokens refuses what manifests do not need and what makes a small
// document large, or its parser slow: anchors, aliases, tags, directives, keys
// that are more than a word, further documents and deep nesting.
func checkTokens(path string, tokens token.Tokens) error {
	depth, line, dashes := 0, 0, 0
	begun := false
	for _, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return problem(path, line, "anchors and aliases are not used in manifests: write it out, or extend another bottle")
		case token.DocumentHeaderType:
			if begun {
				return problem(path, line, "more than one YAML document")
			}
		case token.TagType, token.DirectiveType, token.MappingKeyType, token.DocumentEndType:
			return problem(path, line, "%q is not used in manifests", cut(t.Value))
		case token.SequenceEntryType:
			dashes++
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		}
		begun = begun || t.Type != token.CommentType
		if max(depth, dashes) > maxDepth {
			return problem(path, line, "nested deeper than %d", maxDepth)
		}
	}
	return nil
}

// cut bounds what is shown of a word.
func cut(word string) string { return bounded(word, 60) }

func bounded(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}
