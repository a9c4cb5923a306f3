package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AdminGroup may use the local sockets, besides root.
const AdminGroup = "weft-admins"

// maxGroups bounds how many supplementary groups of a peer are read (NGROUPS_MAX is 65536).
const maxGroups = 65536

// ListenUnix opens the local socket path for root, the daemon's own user and the
// members of AdminGroup, and closes every other connection at once. The group need
// not exist. A socket that a dead process left behind is replaced; one on which
// somebody answers is not.
func ListenUnix(path string, log *slog.Logger) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("local socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("local socket: %w", err)
	}
	u := &unixListener{UnixListener: l, gid: -1, log: log}
	if g, err := user.LookupGroup(AdminGroup); err == nil {
		u.gid, _ = strconv.Atoi(g.Gid)
	}
	// The mode is the first lock; the credentials of the peer are the second, and
	// hold from the first moment.
	err = os.Chmod(path, 0o660)
	if u.gid >= 0 {
		err = errors.Join(err, os.Chown(path, -1, u.gid))
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("local socket: %w", err)
	}
	return u, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("local socket: %s is in the way and is not a socket", path)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return fmt.Errorf("local socket: another process answers on %s", path)
	}
	return os.Remove(path)
}

type unixListener struct {
	*net.UnixListener
	gid int
	log *slog.Logger
}

// unixConn is a connection from somebody who may.
type unixConn struct {
	*net.UnixConn
	principal Principal
}

// Principal of the other end.
func (c *unixConn) Principal() Principal { return c.principal }

// Accept waits for the next connection from somebody who may.
func (l *unixListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := l.admit(c)
		if err == nil {
			return &unixConn{c, Principal{Role: RoleAdmin, Name: fmt.Sprintf("uid %d", uid)}}, nil
		}
		l.log.Warn("local connection refused", "error", err)
		c.Close()
	}
}

func (l *unixListener) admit(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var groups []uint32
	var inner error
	err = raw.Control(func(fd uintptr) {
		if cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner == nil {
			groups, inner = peerGroups(int(fd))
		}
	})
	if err = errors.Join(err, inner); err != nil {
		return 0, fmt.Errorf("peer credentials: %w", err)
	}
	if mayUse(cred.Uid, append(groups, cred.Gid), l.gid) {
		return cred.Uid, nil
	}
	return 0, fmt.Errorf("uid %d is neither root nor in group %s", cred.Uid, AdminGroup)
}

func mayUse(uid uint32, groups []uint32, gid int) bool {
	if uid == 0 || int(uid) == os.Geteuid() {
		return true
	}
	return gid >= 0 && slices.Contains(groups, uint32(gid))
}

// peerGroups reads the supplementary groups that the peer had when it connected
// (SO_PEERGROUPS): /etc/group may say otherwise by now.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == syscall.ERANGE && len(groups) < maxGroups:
			groups = make([]uint32, maxGroups)
		default:
			return nil, errno
		}
	}
}
