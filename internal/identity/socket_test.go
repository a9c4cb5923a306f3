package identity

import (
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dialAs connects as another user, with the credentials of one thread that is thrown
// away afterwards, and reports whether the other end answered.
func dialAs(t *testing.T, path string, uid, gid int, groups ...uint32) bool {
	t.Helper()
	answered := make(chan bool, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(answered)
		first := unsafe.Pointer(nil)
		if len(groups) > 0 {
			first = unsafe.Pointer(&groups[0])
		}
		_, _, e1 := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0)
		_, _, e2 := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
		_, _, e3 := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		if e1 != 0 || e2 != 0 || e3 != 0 {
			t.Errorf("become uid %d (this test needs root): %v %v %v", uid, e1, e2, e3)
			return
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Errorf("dial: %v", err)
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		answered <- string(b) == "hello"
	}()
	return <-answered
}

func TestAStrangerOnTheLocalSocketIsCutOff(t *testing.T) {
	dir, err := os.MkdirTemp("", "weft-identity-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s.sock")
	l, err := ListenUnix(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.(*unixListener).gid = 60077
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	// Somebody opened the file's mode by mistake: the credentials must hold alone.
	os.Chmod(dir, 0o755)
	os.Chmod(path, 0o666)
	if !dialAs(t, path, 0, 0) {
		t.Error("root was refused")
	}
	if dialAs(t, path, 65534, 65534) {
		t.Error("nobody was let in")
	}
	if dialAs(t, path, 65534, 65534, 60078) {
		t.Error("another group was let in")
	}
	if !dialAs(t, path, 65534, 65534, 60078, 60077) {
		t.Error("a member of the group was refused")
	}
	if !dialAs(t, path, 65534, 60077) {
		t.Error("a member by primary group was refused")
	}
	if !dialAs(t, path, 0, 0) {
		t.Error("after strangers, root is refused")
	}
}
