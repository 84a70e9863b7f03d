package vm

import "testing"

// TestBoots: with bottles alive the machine is shut down, and its power is cut.
// After either boot an enabled service runs again, and nothing of the others is
// left.
func TestBoots(t *testing.T) {
	m := rig(t)
	end(t, "carboy@stays")
	t.Cleanup(func() { do(t, "systemctl -q disable carboy@stays carboy-gc.timer") })
	do(t, "systemctl -q enable carboy@stays carboy-gc.timer && systemctl start carboy@stays")
	for _, b := range []struct {
		name string
		boot func() error
	}{
		{"reboot", func() error { return m.Reboot(t.Context()) }},
		{"power cut", func() error { m.PowerCut(); return m.Boot(t.Context()) }},
	} {
		t.Run(b.name, func(t *testing.T) {
			do(t, "carboy run -d --yes --name beside stays && systemctl start carboy@reads && sync")
			before := do(t, "carboy ls -q | sort")
			if before != "beside\nreads\nstays\n" {
				t.Fatalf("before: %s", before)
			}
			boot := do(t, "cat /proc/sys/kernel/random/boot_id")
			if err := b.boot(); err != nil {
				t.Fatal(err)
			}
			if now := do(t, "cat /proc/sys/kernel/random/boot_id"); now == boot {
				t.Fatal("the machine has not booted")
			}
			eventually(t, "the enabled one runs", func() bool { return show(t, "carboy@stays").ActiveState == "active" })
			eventually(t, "the timer has removed the others", func() bool {
				gc := show(t, "carboy-gc.service")
				return gc.InvocationID != "" && gc.Result == "success" && do(t, "ctr -n carboy leases ls -q") == "carboy-stays\n"
			})
			if states := bottles(t); len(states) != 1 || states["stays"] != "running" {
				t.Errorf("after: %v", states)
			}
			do(t, "systemctl stop carboy@stays")
			checkClean(t)
			do(t, "systemctl start carboy@stays")
		})
	}
}
