package kernels

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// suites are where the kernels come from. Neither needs to be among the sources of
// this machine's apt: its mirror of Debian is asked with settings of our own.
const (
	oldSuite = "bookworm-backports" // 6.12
	newSuite = "trixie-backports"   // the newest there is
)

const (
	metaPackage = "linux-image-cloud-amd64" // depends on the current kernel for virtual machines
	keyring     = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// errNoMirror says that this machine's apt knows no archive of Debian.
var errNoMirror = errors.New("apt has no source of Debian's")

// kernel is an unpacked kernel.
type kernel struct {
	version string // 6.12.95+deb12-cloud-amd64
	dir     string
}

// series is what the version begins with: 6.12.
func (k kernel) series() string {
	f := strings.SplitN(k.version, ".", 3)
	return f[0] + "." + f[1]
}

// getKernel gives the suite's kernel: with fresh, the one that the archive has now,
// else whichever the cache holds.
func getKernel(suite string, fresh bool) (kernel, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return kernel{}, err
	}
	a := apt{suite, filepath.Join(base, "weft-test", suite)}
	if have, err := filepath.Glob(filepath.Join(a.dir, "kernel", "*")); err == nil && len(have) == 1 && !fresh {
		return kernel{filepath.Base(have[0]), have[0]}, nil
	}
	version, packages, err := a.current()
	if err != nil {
		return kernel{}, fmt.Errorf("look for a kernel in %s: %w", suite, err)
	}
	k := kernel{version, filepath.Join(a.dir, "kernel", version)}
	if _, err := os.Stat(k.dir); err == nil {
		return k, nil
	}
	return k, a.unpack(packages, k.dir)
}

// apt asks one suite; everything that it keeps is in dir.
type apt struct{ suite, dir string }

func (a apt) run(dir, tool string, args ...string) (string, error) {
	own := []string{
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(a.dir, "sources.list"), "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + filepath.Join(a.dir, "lists"), "-o", "Dir::State::status=/dev/null",
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"), "-o", "APT::Sandbox::User=root",
	}
	cmd := exec.Command(tool, append(own, args...)...)
	var said bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, said.String())
	}
	return string(out), nil
}

// current is the suite's kernel and the packages that hold its image and modules.
func (a apt) current() (version string, packages []string, err error) {
	mirror, err := debianMirror()
	if err != nil {
		return "", nil, err
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return "", nil, err
		}
	}
	line := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror, a.suite)
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(line), 0o644); err != nil {
		return "", nil, err
	}
	if _, err := a.run("", "apt-get", "update", "-qq"); err != nil {
		return "", nil, err
	}
	depends, err := a.run("", "apt-cache", "depends", metaPackage)
	if err != nil {
		return "", nil, err
	}
	for field := range strings.FieldsSeq(depends) {
		v, ok := strings.CutPrefix(field, "linux-image-")
		if !ok || v[0] < '0' || v[0] > '9' {
			continue
		}
		// Newer kernels come in pieces.
		pieces := []string{"linux-binary-" + v, "linux-modules-" + v}
		if _, err := a.run("", "apt-cache", "show", pieces[0]); err == nil {
			return v, pieces, nil
		}
		return v, []string{field}, nil
	}
	return "", nil, fmt.Errorf("%s names no kernel: %s", metaPackage, depends)
}

// debianMirror is where this machine's own apt gets Debian from.
func debianMirror() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(SITE)").Output()
	if err != nil {
		return "", errNoMirror
	}
	for line := range strings.Lines(string(out)) {
		if site, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian|Debian|"); ok {
			return site, nil
		}
	}
	return "", errNoMirror
}

// unpack fetches the packages and leaves their files in dir, all or none; the
// kernels of before go.
func (a apt) unpack(packages []string, dir string) error {
	work, err := os.MkdirTemp(a.dir, "work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if _, err := a.run(work, "apt-get", append([]string{"download", "-qq"}, packages...)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	tree := filepath.Join(work, "tree")
	for _, deb := range debs {
		if out, err := exec.Command("dpkg-deb", "-x", deb, tree).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", deb, err, out)
		}
	}
	if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	return os.Rename(tree, dir)
}

// find gives the first file of the kernel that is named so, or so with a suffix of
// compression.
func (k kernel) find(names ...string) (string, error) {
	var found string
	err := filepath.WalkDir(k.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		for _, n := range names {
			if b := filepath.Base(p); b == n || strings.HasPrefix(b, n+".") && strings.Contains(n, ".ko") {
				found = p
				return filepath.SkipAll
			}
		}
		return nil
	})
	if err == nil && found == "" {
		err = fmt.Errorf("no %s in %s", strings.Join(names, " or "), k.dir)
	}
	return found, err
}

func (k kernel) image() (string, error) { return k.find("vmlinuz-"+k.version, "vmlinuz") }

// modules gives the named modules and those that they need, in an order in which
// they can be loaded.
func (k kernel) modules(names ...string) (order []module, err error) {
	have := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if have[name] {
			return nil
		}
		have[name] = true
		file, err := k.find(name+".ko", strings.ReplaceAll(name, "_", "-")+".ko")
		if err != nil {
			return err
		}
		b, err := decompress(file)
		if err != nil {
			return err
		}
		for _, need := range needs(b) {
			if err := add(need); err != nil {
				return fmt.Errorf("%s needs %w", name, err)
			}
		}
		order = append(order, module{name, b})
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}

type module struct {
	name    string
	content []byte
}

// needs reads what a module says of itself in its section .modinfo.
func needs(module []byte) []string {
	_, rest, ok := bytes.Cut(module, []byte("\x00depends="))
	end := bytes.IndexByte(rest, 0)
	if !ok || end <= 0 {
		return nil
	}
	return strings.Split(string(rest[:end]), ",")
}

// decompress reads a file whose name says how it is compressed.
func decompress(file string) ([]byte, error) {
	tool, ok := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(file)]
	if !ok {
		return os.ReadFile(file)
	}
	return exec.Command(tool, "-dc", file).Output()
}
