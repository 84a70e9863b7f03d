package main

import (
	"maps"
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/pb"

	"carboy/runtime/buildproto"
)

// What the client half sends is let through; whatever else BuildKit would do
// for it, with root's rights, is not.
func TestGate(t *testing.T) {
	usual := func() *controlapi.SolveRequest {
		b := buildproto.Build{Names: []string{"carboy.test/x"}, Target: "t", Args: map[string]string{"A": "b"}, Network: buildproto.NetworkNone, NoCache: true, Pull: true,
			Platforms: []string{"linux/amd64"}, Hosts: []string{"a:1.2.3.4"}}
		return &controlapi.SolveRequest{
			Frontend: frontendName, FrontendAttrs: frontendOptions(b, "Dockerfile"),
			Exporters: []*controlapi.Exporter{{Type: "image", Attrs: map[string]string{"name": "carboy.test/x", "unpack": "false", "compression": "uncompressed", "oci-mediatypes": "true"}}},
		}
	}
	if why := (gate{network: buildproto.NetworkEgress}).refuse(usual()); why != "" {
		t.Errorf("the usual is refused: %s", why)
	}
	for name, change := range map[string]func(r *controlapi.SolveRequest){
		"definition":   func(r *controlapi.SolveRequest) { r.Definition = &pb.Definition{} },
		"input":        func(r *controlapi.SolveRequest) { r.FrontendInputs = map[string]*pb.Definition{"x": {}} },
		"frontend":     func(r *controlapi.SolveRequest) { r.Frontend = "gateway.v0" },
		"local export": func(r *controlapi.SolveRequest) { r.Exporters[0].Type = "local" },
		"two exports":  func(r *controlapi.SolveRequest) { r.Exporters = append(r.Exporters, r.Exporters[0]) },
		"no export":    func(r *controlapi.SolveRequest) { r.Exporters = nil },
		"old export":   func(r *controlapi.SolveRequest) { r.Exporters, r.ExporterDeprecated = nil, "local" },
		"push":         func(r *controlapi.SolveRequest) { r.Exporters[0].Attrs["push"] = "true" },
		"cache export": func(r *controlapi.SolveRequest) {
			r.Cache = &controlapi.CacheOptions{Exports: []*controlapi.CacheOptionsEntry{{}}}
		},
		"cache import": func(r *controlapi.SolveRequest) {
			r.Cache = &controlapi.CacheOptions{Imports: []*controlapi.CacheOptionsEntry{{}}}
		},
		"cache from":     func(r *controlapi.SolveRequest) { r.FrontendAttrs["cache-imports"] = "[]" },
		"cgroup":         func(r *controlapi.SolveRequest) { r.FrontendAttrs["cgroup-parent"] = "/" },
		"remote context": func(r *controlapi.SolveRequest) { r.FrontendAttrs["context"] = "https://example.com/x.git" },
		"named context":  func(r *controlapi.SolveRequest) { r.FrontendAttrs["context:x"] = "local:x" },
		"frontend image": func(r *controlapi.SolveRequest) { r.FrontendAttrs["source"] = "x" },
		"insecure":       func(r *controlapi.SolveRequest) { r.Entitlements = []string{"security.insecure"} },
		"host network":   func(r *controlapi.SolveRequest) { r.Entitlements = []string{"network.host"} },
		"device":         func(r *controlapi.SolveRequest) { r.Entitlements = []string{"device"} },
		"proxy":          func(r *controlapi.SolveRequest) { r.ProxyNetwork = true },
		"session export": func(r *controlapi.SolveRequest) { r.EnableSessionExporter = true },
	} {
		r := usual()
		r.Exporters[0].Attrs = maps.Clone(r.Exporters[0].Attrs)
		change(r)
		if (gate{network: buildproto.NetworkEgress}).refuse(r) == "" {
			t.Errorf("%s is let through", name)
		}
	}
	r := usual()
	r.Entitlements = []string{"network.host"}
	if why := (gate{network: buildproto.NetworkHost}).refuse(r); why != "" {
		t.Errorf("with --network host: %s", why)
	}
}

func TestTame(t *testing.T) {
	var b strings.Builder
	n, err := tame{&b}.Write([]byte("a\x1b[2J\u009b\x07\u00e9\tb\r\n"))
	if err != nil || n != 14 || b.String() != "a^[[2J^[^G\u00e9\tb\r\n" {
		t.Errorf("%d, %v, %q", n, err, b.String())
	}
}
