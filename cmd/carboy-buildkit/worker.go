package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/executor/containerdexecutor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/source/http"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/imageutil"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/util/winlayers"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	fscopy "github.com/tonistiigi/fsutil/copy"
	bolt "go.etcd.io/bbolt"

	"carboy/image/registry"
	"carboy/runtime/buildproto"
)

// buildkit is the controller with the one worker that it has.
type buildkit struct {
	controller *control.Controller
	worker     *base.Worker
	unsynced   *unsynced
	root       string
	network    string
	invoker    int
	stop       chan struct{}
}

func newBuildkit(ctx context.Context, c buildproto.Controller, client *containerd.Client, ask *asker) (*buildkit, error) {
	fscopy.UmaskIsZero = true
	options, err := workerOptions(ctx, c, client, ask)
	if err != nil {
		return nil, err
	}
	var written *unsynced
	written, options.Snapshotter = unsyncedIfKnown(options.Snapshotter, marker{path: filepath.Join(c.Root, buildproto.RunningFile)}.sync)
	k := &buildkit{unsynced: written, root: c.Root, network: c.Network, invoker: c.Invoker, stop: make(chan struct{})}
	if k.worker, err = base.NewWorker(ctx, options); err != nil {
		return nil, fmt.Errorf("build worker: %w", err)
	}
	fetcher, err := http.NewSource(http.Opt{CacheAccessor: k.worker.CacheMgr, Transport: fetchTransport(c.Network, ask)})
	if err != nil {
		return nil, err
	}
	k.worker.SourceManager.Register(fetcher)
	if k.controller, err = newController(ctx, c, client, k); err != nil {
		return nil, fmt.Errorf("build controller: %w", err)
	}
	return k, nil
}

func newController(ctx context.Context, c buildproto.Controller, client *containerd.Client, k *buildkit) (*control.Controller, error) {
	sessions, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	workers := &worker.Controller{}
	if err := workers.Add(&aliasWorker{k.worker, k.unsynced, client.SnapshotService(c.Snapshotter), c.Snapshotter, client.ContentStore()}); err != nil {
		return nil, err
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(c.Root, "cache.db"))
	if err != nil {
		return nil, err
	}
	history, err := boltutil.SafeOpen(filepath.Join(c.Root, "history.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return nil, err
	}
	var entitlements []string
	if c.Network == buildproto.NetworkHost {
		entitlements = []string{"network.host"}
	}
	return control.NewController(control.Opt{
		SessionManager: sessions, WorkerController: workers,
		Frontends:    map[string]frontend.Frontend{frontendName: forwarder.NewGatewayForwarder(workers.Infos(), dockerfile.Build)},
		CacheManager: solver.NewCacheManager(ctx, "local", cache, worker.NewCacheResultStorage(workers)),
		CacheStore:   cache, HistoryDB: history, Entitlements: entitlements,
		LeaseManager: k.worker.LeaseManager(), ContentStore: k.worker.ContentStore(),
		GarbageCollect: k.worker.GarbageCollect, GracefulStop: k.stop,
	})
}

// close also lets go of what BuildKit would hold for builds to come, in a
// process that has none.
func (k *buildkit) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	close(k.stop)
	imageutil.CancelCacheLeases()
	return errors.Join(k.dropTemporary(ctx), k.controller.Close(), k.worker.Close())
}

const closeTime = 10 * time.Second

// workerOptions are BuildKit's own for a containerd worker (v0.34.2,
// worker/containerd), less what a single build has no use for and pays for at
// each start: a CNI namespace, a proxy's RSA key, device managers.
func workerOptions(ctx context.Context, c buildproto.Controller, client *containerd.Client, ask *asker) (o base.WorkerOpt, err error) {
	dir := filepath.Join(c.Root, "containerd-"+c.Snapshotter)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return o, fmt.Errorf("make directory of the build cache: %w", err)
	}
	id, err := base.ID(dir)
	if err != nil {
		return o, err
	}
	records, err := metadata.NewStore(filepath.Join(dir, "metadata_v2.db"))
	if err != nil {
		return o, fmt.Errorf("records of the build cache: %w", err)
	}
	lm := leaseutil.WithNamespace(ownLeases{client.LeasesService(), containerPrefix(c.Root)}, c.Namespace)
	content := containerdsnapshot.NewContentStore(chunkedStore{client.ContentStore()}, c.Namespace)
	unpacked := &unpacked{Snapshotter: client.SnapshotService(c.Snapshotter), full: map[string]bool{}}
	apply := applier{client.DiffService(), unpacked}
	return base.WorkerOpt{
		ID: id, Root: dir, MetadataStore: records,
		Labels:      map[string]string{},
		Platforms:   []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		Executor:    newExecutor(c, client, dir, providers(c.Network, limits{c.Pids, c.Memory}, ask)),
		Snapshotter: containerdsnapshot.NewSnapshotter(c.Snapshotter, unpacked, c.Namespace, nil), ContentStore: content, ImageStore: client.ImageService(), LeaseManager: lm,
		Applier:       winlayers.NewFileSystemApplierWithWindows(content, apply),
		Differ:        winlayers.NewWalkingDiffWithWindows(content, client.DiffService()),
		RegistryHosts: registry.Access{Insecure: c.Insecure}.Hosts(ctx),
		MountPoolRoot: filepath.Join(dir, "cachemounts"),
		GarbageCollect: func(ctx context.Context) (gc.Stats, error) {
			l, err := lm.Create(ctx)
			if err != nil {
				return nil, err
			}
			return nil, lm.Delete(ctx, leases.Lease{ID: l.ID}, leases.SynchronousDelete)
		},
	}, nil
}

func newExecutor(c buildproto.Controller, client *containerd.Client, dir string, networks map[pb.NetMode]network.Provider) *executor {
	options := containerdexecutor.ExecutorOptions{Client: client, Root: dir, NetworkProviders: networks, ApparmorProfile: c.AppArmor, Selinux: c.SELinux}
	if c.Network == buildproto.NetworkEgress {
		options.DNSConfig = &oci.DNSConfig{Nameservers: c.Resolvers}
	}
	return &executor{Executor: containerdexecutor.New(options), prefix: containerPrefix(c.Root)}
}
