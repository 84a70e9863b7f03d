package proxy

import (
	"encoding/json"
	"strings"
	"testing"

	"carboy/runtime/proxy/policy"
)

func TestDecisions(t *testing.T) {
	const rest = `"client_ip":"10.66.0.2","request_id":"1","agent":"anonymous","time":"2026-11-25T08:00:00Z"}`
	for line, want := range map[string]Decision{
		`{"level":"info","component":"pipelock","event":"tunnel_open","target":"a.test:443",` + rest:                                                         {Host: "a.test", Port: 443, Method: "CONNECT", Verdict: "allow"},
		`{"level":"info","component":"pipelock","event":"tunnel_close","target":"a.test:443","total_bytes":1234,` + rest:                                     {Host: "a.test", Port: 443, Method: "CONNECT", Verdict: "close", Bytes: 1234},
		`{"level":"info","event":"forward_http","method":"GET","url":"http://A.test/x?y","size_bytes":12,` + rest:                                            {Host: "a.test", Port: 80, Method: "GET", Verdict: "allow", Bytes: 12},
		`{"level":"warn","event":"blocked","method":"CONNECT","target":"b.test:22","scanner":"allowlist","reason":"domain not in allowlist: b.test",` + rest: {Host: "b.test", Port: 22, Method: "CONNECT", Verdict: "deny", Rule: "allowlist", Reason: "domain not in allowlist: b.test", WantsRule: true},
		`{"event":"blocked","method":"POST","url":"https://a.test:8443/[redacted]","scanner":"dlp","reason":"key",` + rest:                                   {Host: "a.test", Port: 8443, Method: "POST", Verdict: "deny", Rule: "dlp", Reason: "key"},
		`{"event":"error","method":"CONNECT","target":"a.test:443","error":"dial",` + rest:                                                                   {Host: "a.test", Port: 443, Method: "CONNECT", Verdict: "allow", Reason: "dial"},
		`{"event":"sni_mismatch","connect_host":"a.test","sni_host":"b.test","category":"mismatch",` + rest:                                                  {Host: "a.test", Method: "CONNECT", Verdict: "deny", Rule: "sni", Reason: "TLS is for another host or none: mismatch b.test"},
		`{"event":"kill_switch_deny","transport":"http","endpoint":"/","source":"config","deny_message":"paused",` + rest:                                    {Verdict: "deny", Rule: "paused", Reason: "paused"},
		`{"event":"body_dlp","method":"POST","url":"http://a.test/","action":"block","patterns":["one","two"],` + rest:                                       {Host: "a.test", Port: 80, Method: "POST", Verdict: "deny", Rule: "body_dlp", Reason: "one, two"},
		`{"event":"header_dlp","method":"GET","url":"http://a.test/","action":"warn","patterns":["one"],` + rest:                                             {Host: "a.test", Port: 80, Method: "GET", Verdict: "warn", Rule: "header_dlp", Reason: "one"},
		`{"event":"anomaly","method":"CONNECT","target":"a.test:443","scanner":"tls_intercept","reason":"active",` + rest:                                    {Host: "a.test", Port: 443, Method: "CONNECT", Verdict: "allow", Rule: "intercept"},
		`{"event":"blocked","method":"G\u001b[2J","url":"http://a\u202eb.test/","scanner":"parser","reason":"\u001b]0;x",` + rest:                            {Host: `"a\u202eb.test"`, Port: 80, Method: `G\x1b[2J`, Verdict: "deny", Rule: "parser", Reason: `\x1b]0;x`},
		`{"event":"startup","listen":"10.66.0.1:8888",` + rest:                                                                                               {},
		`{"event":"config_reload","status":"success",` + rest:                                                                                                {},
		`{"event":"error","method":"CONFIG_RELOAD","resource":"x","error":"rejected",` + rest:                                                                {},
		`{"event":"anomaly","reason":"no scanner","target":"a.test:443",` + rest:                                                                             {},
		`Pipelock stopped.`: {},
		``:                  {},
	} {
		checkDecision(t, pipelock(), line, want)
	}
	const at = `"time":"2026-11-25T08:00:00Z"}`
	for line, want := range map[string]Decision{
		`{"event":"decision","verdict":"allow","method":"CONNECT","host":"a.test","port":443,"addr":"1.2.3.4:443","rule":"*.test",` + at:  {Host: "a.test", Port: 443, Method: "CONNECT", Verdict: "allow", Rule: "*.test"},
		`{"event":"close","method":"CONNECT","host":"a.test","port":443,"bytes_up":3,"bytes_down":4,"ms":5,` + at:                         {Host: "a.test", Port: 443, Method: "CONNECT", Verdict: "close", Bytes: 7},
		`{"event":"decision","verdict":"deny","method":"GET","host":"b.test","port":80,"reason":"host b.test is not allowed",` + at:       {Host: "b.test", Port: 80, Method: "GET", Verdict: "deny", Reason: "host b.test is not allowed", WantsRule: true},
		`{"event":"decision","verdict":"deny","method":"GET","host":"b.test","port":81,"reason":"port 81 of b.test is not allowed",` + at: {Host: "b.test", Port: 81, Method: "GET", Verdict: "deny", Reason: "port 81 of b.test is not allowed", WantsRule: true},
		`{"event":"decision","verdict":"deny","method":"GET","host":"c.test","port":80,"reason":"10.0.0.1 is private",` + at:              {Host: "c.test", Port: 80, Method: "GET", Verdict: "deny", Reason: "10.0.0.1 is private"},
		`{"event":"decision","verdict":"deny","method":"GET","host":"\"\\x1b[2J\"","reason":"x",` + at:                                    {Host: `"\x1b[2J"`, Method: "GET", Verdict: "deny", Reason: "x"},
		`{"event":"decision","method":"GET","host":"\u001b[2J","reason":"a taken engine\u0007",` + at:                                     {Host: `"\x1b[2J"`, Method: "GET", Verdict: "deny", Reason: `a taken engine\a`},
		`{"event":"config_reload","status":"success",` + at:                                                                               {},
		`{"event":"carboy","reason":"the proxy ended",` + at:                                                                              {},
		`carboy-egress: log`: {},
	} {
		checkDecision(t, allowlist(), line, want)
	}
}

func checkDecision(t *testing.T, e Engine, line string, want Decision) {
	t.Helper()
	got, ok := e.Decision([]byte(line))
	if ok != (want.Verdict != "") || ok && got.Time.Hour() != 8 {
		t.Errorf("%s: %+v, %v", line, got, ok)
	}
	got.Time = want.Time
	if got != want {
		t.Errorf("%s:\n%+v, want\n%+v", line, got, want)
	}
}

// What the engine writes is what is read: the words of a refusal have one source.
func TestRefusalsWantARule(t *testing.T) {
	p := policyOf(t, "", "a.test")
	for _, tt := range []struct {
		host string
		port uint16
		want bool
	}{{"a.test", 8443, true}, {"b.test", 443, true}, {"127.1", 443, false}} {
		_, err := p.Decide(tt.host, tt.port)
		if err == nil {
			t.Fatalf("%s:%d is allowed", tt.host, tt.port)
		}
		line, err := json.Marshal(policy.Decision{Event: policy.EventDecision, Verdict: policy.Deny, Host: tt.host, Port: tt.port, Reason: err.Error()})
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := allowlist().Decision(line); !ok || d.WantsRule != tt.want {
			t.Errorf("%s: %+v", line, d)
		}
	}
}

func FuzzDecision(f *testing.F) {
	f.Add(`{"event":"blocked","url":"http://a\u202e.test/","method":"\u001b","reason":"\u0007"}`)
	f.Add(`{"event":"decision","host":"\"\u001b","rule":"\u009b"}`)
	f.Fuzz(func(t *testing.T, line string) {
		for _, e := range []Engine{pipelock(), allowlist()} {
			d, ok := e.Decision([]byte(line))
			shown := d.Host + d.Method + d.Rule + d.Reason + d.Verdict
			if !ok && shown != "" || strings.ContainsFunc(shown, func(r rune) bool { return r < ' ' || r > '~' }) || len(d.Host) > 253 {
				t.Fatalf("%q becomes %+v, %v", line, d, ok)
			}
		}
	})
}
