package runtime

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDamagedHistory: what a loss of power left of one record hides no other.
func TestDamagedHistory(t *testing.T) {
	h := &Host{Config: Config{LogDir: t.TempDir(), Namespace: "carboy"}}
	for instance, text := range map[string]string{"aaa": "", "bbb": `{"name":`, "ccc": `{"name": "whole", "instance": "ccc", "containerdNamespace": "carboy"}`} {
		dir := filepath.Join(h.LogDir, instance)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, historyFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := h.Histories()
	if err != nil || len(all) != 1 || all[0].Name != "whole" {
		t.Errorf("%+v, %v", all, err)
	}
	for _, instance := range []string{"aaa", "ccc", "none"} {
		if err := h.endHistory(Record{Instance: instance}); err != nil {
			t.Errorf("%s: %v", instance, err)
		}
	}
	if all, err = h.Histories(); err != nil || all[0].Ended.IsZero() {
		t.Errorf("its end: %+v, %v", all, err)
	}
}
