// Package initramfs writes the first and only file system of a test's virtual
// machine: an archive in the "newc" format of cpio, as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst describes it.
//
// It must never look at the machine that it runs on: the caller brings all contents.
package initramfs

import (
	"bytes"
	"fmt"
	"path"
)

// Archive is the file system. Its zero value is empty; the directories above a
// name come by themselves.
type Archive struct {
	b     bytes.Buffer
	inode int
	dirs  map[string]bool
}

// Modes of cpio entries: file type and permissions, as in stat(2).
const (
	modeDir     = 0o040755
	modeFile    = 0o100755
	modeLink    = 0o120777
	modeConsole = 0o020600
)

// Dir adds a directory.
func (a *Archive) Dir(name string) {
	if name == "." || name == "/" || a.dirs[name] {
		return
	}
	a.Dir(path.Dir(name))
	if a.dirs == nil {
		a.dirs = map[string]bool{}
	}
	a.dirs[name] = true
	a.add(name, modeDir, 0, 0, nil)
}

// File adds a file that may be executed.
func (a *Archive) File(name string, content []byte) {
	a.Dir(path.Dir(name))
	a.add(name, modeFile, 0, 0, content)
}

// Link adds a symbolic link.
func (a *Archive) Link(name, to string) {
	a.Dir(path.Dir(name))
	a.add(name, modeLink, 0, 0, []byte(to))
}

// Console adds the device that process 1 speaks through.
func (a *Archive) Console() {
	a.Dir("dev")
	a.add("dev/console", modeConsole, 5, 1, nil)
}

// Bytes ends the archive.
func (a *Archive) Bytes() []byte {
	a.add("TRAILER!!!", 0, 0, 0, nil)
	return a.b.Bytes()
}

func (a *Archive) add(name string, mode int, major, minor int, content []byte) {
	a.inode++
	fmt.Fprintf(&a.b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0)
	a.b.WriteString(name)
	a.b.WriteByte(0)
	a.pad()
	a.b.Write(content)
	a.pad()
}

// pad fills up to four bytes: names and contents start there.
func (a *Archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}
