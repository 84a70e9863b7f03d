package vm

import "testing"

// TestJournal: what a service logs is found by bottle and agent; what the agent
// said is told from what carboy did, and has no say in its priority.
func TestJournal(t *testing.T) {
	rig(t)
	end(t, "carboy@alarms")
	dropIn(t, "alarms", "ExecStart=\nExecStart=/usr/local/bin/carboy run --yes --name %%i --timeout 1s %%i")
	do(t, "systemctl start carboy@alarms")
	eventually(t, "the time ends", func() bool { return show(t, "carboy@alarms").ActiveState == "failed" })
	entries := journal(t, "CARBOY_BOTTLE=alarms CARBOY_AGENT=alarms")
	for message, identifier := range map[string]string{
		"<0>it alarms":                        "alarms",
		"carboy: it lies":                     "alarms", // to standard error
		"without an end":                      "alarms",
		"carboy: the command took longer tha": "carboy",
	} {
		if e := find(entries, message); e.Identifier != identifier || e.Priority != "6" {
			t.Errorf("%s: %+v among %+v", message, e, entries)
		}
	}
	if e := find(journal(t, "-t alarms"), "carboy: the command took"); e.Message != "" {
		t.Errorf("among what the agent said is %+v", e)
	}
}

// TestVerdicts: what the proxy decided is found by verdict and host.
func TestVerdicts(t *testing.T) {
	rig(t)
	end(t, "carboy@asks")
	do(t, "systemctl start carboy@asks")
	for verdict, priority := range map[string]string{"deny": "5", "allow": "6"} {
		eventually(t, verdict+" is logged", func() bool {
			e := find(journal(t, "CARBOY_BOTTLE=asks CARBOY_VERDICT="+verdict+" CARBOY_HOST="+verdict+".example"), "proxy: "+verdict+" "+verdict+".example")
			return e.Identifier == "carboy" && e.Priority == priority
		})
	}
}
