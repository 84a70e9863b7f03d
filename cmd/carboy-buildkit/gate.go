package main

import (
	"context"
	"fmt"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/control"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"carboy/runtime/buildproto"
)

// gate is what the client half may ask of the controller: the client runs as
// the invoker, who can trace it and speak in its place. It builds Dockerfiles
// into images of this namespace; all else BuildKit could be asked is not
// answered.
type gate struct {
	controlapi.UnimplementedControlServer
	controller *control.Controller
	network    string
	invoker    int
}

// Solve takes one Dockerfile and the options of `carboy build`.
func (g gate) Solve(ctx context.Context, r *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	if r.FrontendAttrs == nil {
		r.FrontendAttrs = map[string]string{}
	}
	if why := g.refuse(r); why != "" {
		return nil, status.Error(codes.PermissionDenied, why+" is not carboy's to build")
	}
	r.Internal = true // no history: it would fill a namespace of its own
	r.Cache = &controlapi.CacheOptions{}
	r.FrontendAttrs[cacheNamespace] = fmt.Sprintf("carboy-%d-%s", g.invoker, r.FrontendAttrs[cacheNamespace])
	return g.controller.Solve(ctx, r)
}

func (g gate) refuse(r *controlapi.SolveRequest) string {
	switch {
	case r.Frontend != frontendName:
		return "frontend " + r.Frontend
	case r.Definition != nil || len(r.FrontendInputs) > 0:
		return "a definition"
	case r.EnableSessionExporter || r.SourcePolicy != nil || r.SourcePolicySession != "" || r.ProxyNetwork:
		return "an option of the request"
	case r.Cache != nil && (len(r.Cache.Exports) > 0 || len(r.Cache.Imports) > 0):
		return "a remote cache"
	case len(r.Exporters) != 1 || r.Exporters[0].Type != "image":
		return "an export that is no image"
	}
	for key := range r.Exporters[0].Attrs {
		if !exportAttrs[key] {
			return "export option " + key
		}
	}
	for key := range r.FrontendAttrs {
		if !strings.HasPrefix(key, "build-arg:") && !frontendAttrs[key] {
			return "option " + key
		}
	}
	for _, e := range r.Entitlements {
		if e != "network.host" || g.network != buildproto.NetworkHost {
			return "entitlement " + e
		}
	}
	return ""
}

const frontendName = "dockerfile.v0"

// cacheNamespace keeps the cache mounts of RUN apart: those of one invoker are
// none of another's business.
const cacheNamespace = "build-arg:BUILDKIT_CACHE_MOUNT_NS"

var exportAttrs = map[string]bool{"name": true, "unpack": true, "compression": true, "compression-level": true, "oci-mediatypes": true}

var frontendAttrs = map[string]bool{
	"add-hosts": true, "cmdline": true, "filename": true, "force-network-mode": true, "image-resolve-mode": true, "no-cache": true, "platform": true, "target": true,
}

// Status streams the progress of a build.
func (g gate) Status(r *controlapi.StatusRequest, s controlapi.Control_StatusServer) error {
	return g.controller.Status(r, s)
}

// Session carries the client's files, secrets and credentials.
//
// Files that it says are unchanged are taken from the copy of the build before
// with the same key, unread: so the key is one of this invoker's.
func (g gate) Session(s controlapi.Control_SessionServer) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	md = md.Copy()
	for _, key := range []string{sharedKeyHeader, sharedKeyHeader + "-encoded"} {
		md.Delete(key)
	}
	given, _ := metadata.FromIncomingContext(s.Context())
	md.Set(sharedKeyHeader, fmt.Sprintf("%d-%s", g.invoker, strings.Join(given.Get(sharedKeyHeader), "")))
	return g.controller.Session(keyed{s, metadata.NewIncomingContext(s.Context(), md)})
}

// sharedKeyHeader is BuildKit's (v0.34.2, session/session.go).
const sharedKeyHeader = "x-docker-expose-session-sharedkey"

type keyed struct {
	controlapi.Control_SessionServer
	ctx context.Context
}

func (k keyed) Context() context.Context { return k.ctx }
