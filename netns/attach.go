package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"carboy/netns/links"
	"carboy/netns/sysctl"
)

// undoTime bounds the undoing of an Attach that failed.
const undoTime = 30 * time.Second

// Attach plugs both links. When it fails it undoes its own work, and both
// namespaces are as Open made them.
func (n *Network) Attach(ctx context.Context) (err error) {
	mark, err := n.record.takeMark(ctx)
	if err != nil {
		return fmt.Errorf("mark of the bottle's CNI plugins: %w", err)
	}
	defer func() {
		err = errors.Join(err, mark.Close()) // before the undoing, which waits for plugins
		if err != nil {
			err = errors.Join(err, n.undo(context.WithoutCancel(ctx)))
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.plugEgress(gctx, mark) })
	g.Go(func() error { return inNamespace(n.egress, func() error { return n.plugInternal(gctx, mark) }) })
	return g.Wait()
}

// plugEgress has the host's rules in force before there is a link: ptp turns
// its forwarding on.
func (n *Network) plugEgress(ctx context.Context, mark *os.File) error {
	if n.record.Own {
		if err := n.record.shared().Enter(ctx, n.Instance, n.Range, n.Resolvers); err != nil {
			return fmt.Errorf("address translation on the host: %w", err)
		}
	}
	return onThread(func() error { return n.record.plug(ctx, n.record.Egress, n.EgressPath(), mark) })
}

// plugInternal runs in the egress namespace, so that the link joins the two
// namespaces and the host never sees it.
func (n *Network) plugInternal(ctx context.Context, mark *os.File) error {
	if err := n.record.plug(ctx, n.record.Internal, n.IsolatedPath(), mark); err != nil {
		return err
	}
	return sysctl.Set(sysctl.Forward, "0") // ptp turned it on
}

// undo takes back what Attach made of itself.
func (n *Network) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	return errors.Join(
		n.record.detach(ctx, n.egress),
		inNamespace(n.egress, links.DeleteAll),
		inNamespace(n.isolated, links.DeleteAll),
		inNamespace(n.egress, func() error { return sysctl.Set(sysctl.Forward, "0") }),
	)
}

// Reassert puts back what bottles need of the host's rules, where a foreign
// tool has flushed them. The seal itself does not rest on it. It touches
// nothing else, and nothing at all once the bottle was detached.
func (n *Network) Reassert(ctx context.Context) error {
	if !n.record.Own {
		return nil
	}
	return n.record.shared().Reassert(ctx, n.Instance)
}

// Detach undoes Attach by its record, from any process and as often as needed.
// It takes every step and joins the errors. End what runs in the namespaces
// first: links go with them. Where egressNS is the path of the bottle's egress
// namespace, still alive, an operator's network is deleted from it and our own
// link with it at once; any other path, such as that of a process id which was
// used again, counts as none.
func Detach(ctx context.Context, r Record, egressNS string) error {
	ns, err := r.living(egressNS)
	if ns != nil {
		defer ns.Close()
	}
	return errors.Join(err, r.detach(ctx, ns))
}

// detach has the egress namespace if it is alive, else nil.
func (r Record) detach(ctx context.Context, ns *os.File) error {
	if err := r.awaitPlugins(ctx); err != nil {
		return err // what one does now could not be undone any more
	}
	var errs []error
	if r.Own {
		errs = append(errs, r.detachOwn(ctx, ns))
	} else {
		path := ""
		if ns != nil {
			path = descriptorPath(ns)
		}
		errs = append(errs, r.unplug(ctx, r.Egress, path))
	}
	return errors.Join(append(errs, r.removeFiles())...)
}

// detachOwn gives the address back last: while the link lives so does the
// host's route to it.
func (r Record) detachOwn(ctx context.Context, ns *os.File) error {
	link, err := r.hostLink()
	errs := []error{err}
	if ns != nil {
		errs = append(errs, inNamespace(ns, func() error { return links.Delete(linkName) }))
	}
	return errors.Join(append(errs, links.AwaitGone(ctx, link), r.release(ctx), r.shared().Leave(ctx, r.Instance))...)
}

// removeFiles also removes the instance's directory, unless its owner keeps
// more in it.
func (r Record) removeFiles() error {
	err := os.Remove(r.markFile())
	if os.IsNotExist(err) {
		err = nil
	}
	errs := []error{err, os.RemoveAll(r.internalIPAM()), os.RemoveAll(r.cacheDir())}
	if err := os.Remove(r.dir()); err != nil && !os.IsNotExist(err) && !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// living opens a namespace if it is this bottle's: it is of the right kind and
// its link holds an address that the bottle was given.
func (r Record) living(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	ns, err := os.Open(path)
	if err != nil {
		return nil, nil //nolint:nilerr // its last process has ended
	}
	own, err := r.holds(ns)
	if err != nil || !own {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

func (r Record) holds(ns *os.File) (bool, error) {
	if is, err := isNamespace(ns); err != nil || !is {
		return false, err
	}
	given, err := r.egressAddrs()
	if err != nil || len(given) == 0 {
		return false, err
	}
	has := false
	err = inNamespace(ns, func() (err error) {
		has, err = links.Holds(linkName, given)
		return err
	})
	return has, err
}
