package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Wrong is the first line of a record that is not as it was written.
type Wrong struct {
	Line int
	What string
}

func (w Wrong) Error() string { return fmt.Sprintf("line %d %s", w.Line, w.What) }

// Read gives the entries of a record to emit, and returns how far it is whole. It
// fails with a Wrong for a line that does not follow from the one before, which it
// does not emit.
func Read(r io.Reader, instance string, emit func(Event)) (Head, error) {
	head := Head{Hash: Seed(instance)}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return head, nil
		}
		if errors.Is(err, io.EOF) {
			return head, Wrong{head.Entries + 1, "is cut off"}
		}
		if err != nil {
			return head, err
		}
		line = line[:len(line)-1]
		e, err := follow(head, line)
		if err != nil {
			return head, err
		}
		head = Head{Entries: e.Number, Hash: sum(line)}
		emit(e)
	}
}

// follow reads the line after head.
func follow(head Head, line []byte) (Event, error) {
	var e Event
	at := head.Entries + 1
	switch err := json.Unmarshal(line, &e); {
	case err != nil:
		return e, Wrong{at, "is no entry: it was changed or inserted"}
	case e.Number > at:
		return e, Wrong{at, fmt.Sprintf("is entry %d: before it %d were removed", e.Number, e.Number-at)}
	case e.Number < at:
		return e, Wrong{at, fmt.Sprintf("is another entry %d: it was inserted", e.Number)}
	case e.Before == head.Hash:
		return e, nil
	case at == 1:
		return e, Wrong{at, "is not the first of this bottle's record: it was changed, or is another's"}
	default:
		return e, Wrong{at - 1, fmt.Sprintf("is not what line %d was added to: one of them was changed or inserted", at)}
	}
}

// Compare fails with a Wrong where a record that is whole up to head is not the
// one that went as far as known.
func (h Head) Compare(known Head) error {
	switch {
	case h.Entries < known.Entries:
		return Wrong{h.Entries + 1, fmt.Sprintf("is missing: the record was cut off, it had %d entries", known.Entries)}
	case h.Entries > known.Entries:
		return Wrong{known.Entries + 1, fmt.Sprintf("was added: the record had %d entries", known.Entries)}
	case h.Hash != known.Hash:
		return Wrong{h.Entries, "was changed: it is not the last one that was written"}
	}
	return nil
}
