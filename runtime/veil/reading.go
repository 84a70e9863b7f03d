package veil

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// mostLevels are encodings one in the other.
const mostLevels = 6

// reading is a text with its encodings undone, and for each byte where in the
// text it was written: from one offset to before another.
type reading struct {
	text     []byte
	from, to []int32
	level    int
}

func readingOf(text []byte) reading {
	r := reading{text: text, from: make([]int32, len(text)), to: make([]int32, len(text))}
	for i := range text {
		r.from[i], r.to[i] = int32(i), int32(i+1)
	}
	return r
}

// folded is the text in lower case, as of host names, and with blanks as a query
// has them.
func (r reading) folded() []byte {
	out := make([]byte, len(r.text))
	for i, b := range r.text {
		switch {
		case 'A' <= b && b <= 'Z':
			b += 'a' - 'A'
		case b == '+':
			b = ' '
		}
		out[i] = b
	}
	return out
}

// decode undoes one level of encoding, and says whether there was any.
func (r reading) decode() (reading, bool) {
	out := reading{level: r.level + 1}
	for i := 0; i < len(r.text); {
		decoded, n := first(r.text[i:])
		for _, b := range decoded {
			out.text = append(out.text, b)
			out.from, out.to = append(out.from, r.from[i]), append(out.to, r.to[i+n-1])
		}
		i += n
	}
	return out, len(out.text) != len(r.text) && out.level <= mostLevels
}

// spread hides all of an escape of which a part is hidden.
func (r reading) spread(hidden []bool) {
	for i, from := range r.from {
		part := false
		for j := from; j < r.to[i]; j++ {
			part = part || hidden[j]
		}
		for j := from; part && j < r.to[i]; j++ {
			hidden[j] = true
		}
	}
}

// first is what the beginning of a text stands for, and how long that is.
func first(text []byte) ([]byte, int) {
	switch {
	case len(text) >= 3 && text[0] == '%':
		if n, ok := hex(text[1:3]); ok {
			return []byte{byte(n)}, 3
		}
	case len(text) >= 2 && text[0] == '\\':
		return escaped(text)
	}
	return text[:1], 1
}

var escapes = map[byte]byte{'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v', '"': '"', '\\': '\\', '/': '/', '\'': '\''}

// escaped knows the escapes of JSON and of Go.
func escaped(text []byte) ([]byte, int) {
	if b, ok := escapes[text[1]]; ok {
		return []byte{b}, 2
	}
	digits := digitsAfter(text[1])
	if digits == 0 || len(text) < 2+digits {
		return text[:1], 1
	}
	n, ok := hex(text[2 : 2+digits])
	switch {
	case !ok:
		return text[:1], 1
	case digits == 2:
		return []byte{byte(n)}, 4
	case digits == 4 && utf16.IsSurrogate(rune(n)) && len(text) >= 12 && text[6] == '\\' && text[7] == 'u':
		if low, ok := hex(text[8:12]); ok {
			return utf8.AppendRune(nil, utf16.DecodeRune(rune(n), rune(low))), 12
		}
	}
	return utf8.AppendRune(nil, rune(n)), 2 + digits
}

func digitsAfter(letter byte) int {
	switch letter {
	case 'x':
		return 2
	case 'u':
		return 4
	case 'U':
		return 8
	}
	return 0
}

func hex(digits []byte) (uint32, bool) {
	n, err := strconv.ParseUint(string(digits), 16, 32)
	return uint32(n), err == nil
}
