package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"carboy/netns/links"
)

// tcpListen is a state of a socket (include/net/tcp_states.h).
const tcpListen = 10

// EndConnections ends every TCP connection of the egress namespace, those between
// agent and proxy as well, at both ends. Who listens goes on. It fails with
// errdefs.ErrNotImplemented on a kernel without CONFIG_INET_DIAG_DESTROY.
func (n *Network) EndConnections() error {
	return inNamespace(n.egress, func() error {
		there, err := connections()
		if err != nil {
			return err
		}
		for _, id := range there {
			if err := endConnection(id); err != nil {
				return fmt.Errorf("end connection %s: %w", describe(id), err)
			}
		}
		left, err := connections()
		for _, id := range left {
			if slices.ContainsFunc(there, func(old netlink.SocketID) bool { return old.Cookie == id.Cookie }) {
				err = errors.Join(err, fmt.Errorf("connection %s does not end", describe(id)))
			}
		}
		return err
	})
}

func describe(id netlink.SocketID) string {
	return fmt.Sprintf("%s:%d to %s:%d", id.Source, id.SourcePort, id.Destination, id.DestinationPort)
}

func connections() (all []netlink.SocketID, err error) {
	sockets, err := links.Listed(func() ([]*netlink.Socket, error) { return netlink.SocketDiagTCP(unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	for _, s := range sockets {
		if s.State != tcpListen {
			all = append(all, s.ID)
		}
	}
	return all, nil
}

// endConnection names the socket by its cookie: netlink.SocketDestroy does not, and
// the kernel takes who listens for a connection that has gone meanwhile
// (net/ipv4/inet_diag.c, inet_diag_find_one_icsk).
func endConnection(id netlink.SocketID) error {
	request := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	request.AddRawData(destroyRequest(id))
	_, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotImplemented)
	}
	return err
}

// destroyRequest is a struct inet_diag_req_v2 (include/uapi/linux/inet_diag.h).
func destroyRequest(id netlink.SocketID) []byte {
	const anyState = 0xffffffff
	b := []byte{unix.AF_INET, unix.IPPROTO_TCP, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, anyState)
	b = binary.BigEndian.AppendUint16(b, id.SourcePort)
	b = binary.BigEndian.AppendUint16(b, id.DestinationPort)
	address := func(ip []byte) []byte { return append(slices.Clone(ip), make([]byte, 12)...) }
	b = append(b, address(id.Source.To4())...)
	b = append(b, address(id.Destination.To4())...)
	b = binary.NativeEndian.AppendUint32(b, id.Interface)
	b = binary.NativeEndian.AppendUint32(b, id.Cookie[0])
	return binary.NativeEndian.AppendUint32(b, id.Cookie[1])
}
