package provision

import (
	"slices"
	"strings"
	"testing"
)

func TestAuthority(t *testing.T) {
	a := Agent{User: "1000:1000", Prompt: "Be brief.", Authority: []byte("certificate\n")}
	files, err := a.Files()
	if err != nil {
		t.Fatal(err)
	}
	if last := files[len(files)-1]; last.Path != promptPath {
		t.Errorf("the authority is not before all else: the last is %s", last.Path)
	}
	for _, f := range files[:len(files)-1] {
		if string(f.Data) != "certificate\n" || f.Owner != "0:0" || f.Mode&0o222&^0o200 != 0 {
			t.Errorf("%s: %q of %s, mode %o", f.Path, f.Data, f.Owner, f.Mode)
		}
		inRun := strings.HasPrefix(f.Path, runDir)
		if f.Append == inRun || (len(f.After) > 0) != (f.Path == bundlePath) {
			t.Errorf("%s: append %v, after %v", f.Path, f.Append, f.After)
		}
	}
	env := a.Env()
	for _, want := range []string{
		"NODE_EXTRA_CA_CERTS=/run/carboy/ca.pem", "SSL_CERT_FILE=/run/carboy/ca-bundle.pem", "REQUESTS_CA_BUNDLE=/run/carboy/ca-bundle.pem",
		"GIT_SSL_CAINFO=/run/carboy/ca-bundle.pem", "CURL_CA_BUNDLE=/run/carboy/ca-bundle.pem", "CARBOY_PROMPT_FILE=" + promptPath,
	} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %v", want, env)
		}
	}
}

func TestNoAuthority(t *testing.T) {
	a := Agent{User: "1000:1000"}
	if files, err := a.Files(); err != nil || len(files)+len(a.Env()) != 0 {
		t.Errorf("%v, %v, %v", files, a.Env(), err)
	}
}
