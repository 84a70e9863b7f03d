package veil

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func TestHide(t *testing.T) {
	for _, value := range []string{
		"s3cret-Value", `with "quotes" and \ and 中/€😀`, "two\nlines\tof it", "a%41b+c d&e=f?", `ends in \`, `%41%42%43-escaped`,
		"nabcdefg-h", "9f8e7d6c5b4a", `{"json": "text"}`, "<html>&amp;",
	} {
		v := New([]string{value, "shorter"})
		inJSON, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		text := string(inJSON[1 : len(inJSON)-1])
		path, err := json.Marshal("/" + url.PathEscape(value))
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{
			value, strings.ToLower(value), strings.ToUpper(value), url.QueryEscape(value), url.PathEscape(value), strings.ToLower(url.QueryEscape(value)),
			url.QueryEscape(url.QueryEscape(value)), text, url.QueryEscape(text), strings.Trim(string(path), `"/`), strings.Trim(strconv.QuoteToASCII(value), `"`),
		} {
			if got := string(v.Hide([]byte("shorter " + form + " end"))); got != "shorter [secret] end" {
				t.Errorf("%q as %q: %q", value, form, got)
			}
		}
	}
}

func TestJSONStaysJSON(t *testing.T) {
	const value = `nabcdefg\`
	v := New([]string{value})
	for _, text := range []string{value, `C:\` + value, value + `"`, `%` + value, "x" + value + value + "x", `\n` + value} {
		line, err := json.Marshal(map[string]string{"url": text, "other": "kept"})
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		shown := v.Hide(line)
		if err := json.Unmarshal(shown, &got); err != nil || strings.Contains(got["url"], "abcdefg") || got["other"] != "kept" || len(shown) > len(line) {
			t.Errorf("%s: %s, %v", line, shown, err)
		}
	}
}

func TestHideOfNothing(t *testing.T) {
	const line = `{"url": "http://a.test/%41?b\n"}`
	for _, v := range []*Veil{{}, New(nil), New([]string{"", "1234567", " 1234567\n"}), New([]string{"elsewhere"})} {
		if got := string(v.Hide([]byte(line))); got != line {
			t.Errorf("%q", got)
		}
	}
}

// TestAdd: what is added is hidden by those who had the veil before.
func TestAdd(t *testing.T) {
	v := New([]string{"s3cret-value"})
	var got strings.Builder
	l := v.Lines(func(line []byte) { got.Write(line) })
	write := func() { _, _ = l.Write([]byte("s3cret-value later-value\n")) }
	write()
	v.Add([]string{"later-value", "short", "s3cret-value"})
	write()
	if want := "[secret] later-value\n[secret] [secret]\n"; got.String() != want {
		t.Errorf("%q", got.String())
	}
}

// TestLongValues are found by their parts.
func TestLongValues(t *testing.T) {
	value := strings.Repeat("0123456789", 2*longest/10) + "tail-of-it"
	if got := string(New([]string{value}).Hide([]byte("<" + value + ">"))); got != "<[secret]>" {
		t.Errorf("%.100q", got)
	}
}

func TestLinesAreWhole(t *testing.T) {
	const text = "one\nGET /?t=s3cret-value HTTP\n\nlast s3cret-value"
	for size := 1; size <= len(text); size++ {
		var got []string
		l := New([]string{"s3cret-value"}).Lines(func(line []byte) { got = append(got, string(line)) })
		for at := 0; at < len(text); at += size {
			if _, err := l.Write([]byte(text[at:min(at+size, len(text))])); err != nil {
				t.Fatal(err)
			}
		}
		l.Flush()
		l.Flush()
		if all := strings.Join(got, "|"); all != "one\n|GET /?t=[secret] HTTP\n|\n|last [secret]\n" {
			t.Errorf("%d bytes at a time: %q", size, all)
		}
	}
}

// TestLongLinesAreCut: also where the cut goes through a value.
func TestLongLinesAreCut(t *testing.T) {
	const value = "s3cret-value"
	for _, before := range []int{longestLine - 5, longestLine - ragged - 5, 10, longestLine} {
		var got strings.Builder
		l := New([]string{value}).Lines(func(line []byte) { got.Write(line) })
		_, _ = l.Write([]byte(strings.Repeat(".", before) + value + strings.Repeat(".", 2*longestLine)))
		_, _ = l.Write([]byte(value + "\nnext\n"))
		all := got.String()
		if strings.Contains(all, "s3cre") || !strings.HasSuffix(all, "... (cut)\nnext\n") || len(all) > longestLine {
			t.Errorf("%d bytes before: %d bytes, ends in %q", before, len(all), all[max(0, len(all)-40):])
		}
	}
	var got strings.Builder
	exact := strings.Repeat(".", longestLine-1) + "\n"
	l := New(nil).Lines(func(line []byte) { got.Write(line) })
	_, _ = l.Write([]byte(exact))
	if got.String() != exact {
		t.Errorf("a line of %d bytes: %d", len(exact), got.Len())
	}
}
