package vm

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// modules of a virtio NIC. One that the package does not have is built into its
// kernel.
var modules = []string{"virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
	"failover", "net_failover", "virtio_net"}

// kernel is a kernel image and the modules that its virtio NIC needs.
type kernel struct {
	version string
	image   string            // path
	modules map[string][]byte // by name
}

// metaPackages depend on the current small kernel of Debian and of Ubuntu.
var metaPackages = []string{"linux-image-cloud-amd64", "linux-image-virtual"}

// getKernel takes a kernel from the cache, or from the archive into the cache.
func getKernel() (kernel, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return kernel{}, err
	}
	cache := filepath.Join(base, "weft-test")
	debs, err := cached(cache)
	if err != nil {
		return kernel{}, err
	}
	if len(debs) == 0 {
		if debs, err = download(cache); err != nil {
			return kernel{}, fmt.Errorf("get a kernel from the archive: %w", err)
		}
	}
	return extract(debs, cache)
}

func cached(cache string) ([]string, error) {
	return filepath.Glob(filepath.Join(cache, "linux-*.deb"))
}

// download fetches the kernel's packages into the cache, all or none.
func download(cache string) ([]string, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	names, err := kernelPackages()
	if err != nil {
		// A machine whose package lists are empty or old knows no kernel.
		if out, err := exec.Command("apt-get", "update", "-qq").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("apt-get update: %w: %s", err, out)
		}
		if names, err = kernelPackages(); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("apt-get", append([]string{"download", "-qq"}, names...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("apt-get download %s: %w: %s", strings.Join(names, " "), err, out)
	}
	fetched, err := cached(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range fetched {
		if err := os.Rename(f, filepath.Join(cache, filepath.Base(f))); err != nil {
			return nil, err
		}
	}
	return cached(cache)
}

// kernelPackages resolves the meta package to the image's package and, where it
// is another one, the modules'.
func kernelPackages() ([]string, error) {
	for _, meta := range metaPackages {
		out, err := exec.Command("apt-cache", "depends", meta).Output()
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(out)) {
			version, ok := strings.CutPrefix(field, "linux-image-")
			if !ok || field == meta || version[0] < '0' || version[0] > '9' {
				continue
			}
			names := []string{field}
			if exec.Command("apt-cache", "show", "linux-modules-"+version).Run() == nil {
				names = append(names, "linux-modules-"+version)
			}
			return names, nil
		}
	}
	return nil, fmt.Errorf("no package of %s in the archive", strings.Join(metaPackages, ", "))
}

// extract takes the image and the modules out of the packages; the image goes
// into dir, once.
func extract(debs []string, dir string) (kernel, error) {
	k := kernel{modules: map[string][]byte{}}
	for _, deb := range debs {
		cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return kernel{}, err
		}
		if err := cmd.Start(); err != nil {
			return kernel{}, err
		}
		readErr := k.read(tar.NewReader(pipe), dir)
		if err := errors.Join(readErr, cmd.Wait()); err != nil {
			return kernel{}, fmt.Errorf("%s: %w; remove it if it is damaged", deb, err)
		}
	}
	if k.image == "" {
		return kernel{}, fmt.Errorf("no kernel image in %s", strings.Join(debs, ", "))
	}
	return k, nil
}

// read takes what it wants out of one package.
func (k *kernel) read(r *tar.Reader, dir string) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Base(h.Name)
		if version, ok := strings.CutPrefix(name, "vmlinuz-"); ok && h.Typeflag == tar.TypeReg {
			k.version, k.image = version, filepath.Join(dir, name)
			if err := writeOnce(k.image, r); err != nil {
				return err
			}
			continue
		}
		stem, suffix, ok := strings.Cut(name, ".ko")
		if stem = strings.ReplaceAll(stem, "-", "_"); !ok || !slices.Contains(modules, stem) {
			continue
		}
		if k.modules[stem], err = decompress(suffix, r); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func writeOnce(to string, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(to); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return os.WriteFile(to, b, 0o644)
}

// decompress undoes what the suffix behind .ko says.
func decompress(suffix string, r io.Reader) ([]byte, error) {
	tool, ok := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[suffix]
	if !ok {
		return io.ReadAll(r)
	}
	cmd := exec.Command(tool, "-dc")
	cmd.Stdin = r
	return cmd.Output()
}
