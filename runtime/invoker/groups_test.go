package invoker

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestMemberOf(t *testing.T) {
	nobody := User{UID: 65534, GID: 65534}
	for _, tt := range []struct {
		who    User
		groups []string
		want   string
	}{
		{nobody, nil, ""},
		{nobody, []string{"daemon", "nogroup"}, "nogroup"},
		{nobody, []string{"65534"}, "65534"},
		{nobody, []string{"daemon", "sys"}, ""},
		{User{UID: 65534, GID: 65534, Groups: []int{1}}, []string{"sys", "daemon"}, "daemon"},
		{User{UID: 65534, GID: 1}, []string{"daemon"}, "daemon"}, // as sudo says
	} {
		if got, err := tt.who.MemberOf(t.Context(), tt.groups); got != tt.want || err != nil {
			t.Errorf("%+v of %q: %q, %v", tt.who, tt.groups, got, err)
		}
	}
}

// TestMemberOfWhatIsNotKnown is never a member of none.
func TestMemberOfWhatIsNotKnown(t *testing.T) {
	for _, tt := range []struct {
		who    User
		groups []string
	}{
		{User{UID: 65534, GID: 65534}, []string{"nogroup", "no-such-group"}},
		{User{UID: 1999999999, GID: 65534}, []string{"daemon"}},
	} {
		if got, err := tt.who.MemberOf(t.Context(), tt.groups); !errdefs.IsNotFound(err) {
			t.Errorf("%+v of %q: %q, %v", tt.who, tt.groups, got, err)
		}
	}
	if _, err := (User{UID: 65534}).MemberOf(t.Context(), []string{"-s"}); err == nil {
		t.Error("an option is no group")
	}
}

// TestInFiles is what a host without getent(1) has.
func TestInFiles(t *testing.T) {
	for _, key := range []string{"daemon", "1"} {
		if got, err := inFiles("group", key); err != nil || len(got) < len("daemon:x:1:") || got[:7] != "daemon:" {
			t.Errorf("%s: %q, %v", key, got, err)
		}
	}
	if _, err := inFiles("group", "no-such-group"); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}
