package vm

import (
	"bytes"
	"fmt"
)

// archive writes an initramfs in the "newc" format of cpio, as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst describes it.
type archive struct {
	bytes.Buffer
	inode int
}

// Modes of cpio entries: file type and permissions, as in stat(2).
const (
	modeDir     = 0o040755
	modeProgram = 0o100755
	modeConsole = 0o020600
)

func (a *archive) add(name string, mode int, major, minor int, content []byte) {
	a.inode++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0)
	a.WriteString(name)
	a.WriteByte(0)
	a.pad()
	a.Write(content)
	a.pad()
}

// pad fills up to four bytes: names and contents start there.
func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

// initramfs holds init as process 1, the modules, and a console for its voice.
func initramfs(init []byte, modules map[string][]byte) []byte {
	var a archive
	for _, dir := range []string{"dev", "proc", "sys", "modules"} {
		a.add(dir, modeDir, 0, 0, nil)
	}
	a.add("dev/console", modeConsole, 5, 1, nil)
	a.add("init", modeProgram, 0, 0, init)
	for name, m := range modules {
		a.add("modules/"+name+".ko", modeProgram, 0, 0, m)
	}
	a.add("TRAILER!!!", 0, 0, 0, nil)
	return a.Bytes()
}
