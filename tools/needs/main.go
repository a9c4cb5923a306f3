// Command needs looks for the programs that a make target runs and installs
// the packages of those that are missing, saying so, by apt-get.
//
// What is there is left alone. It must never run apt-get when nothing is
// missing, and never remove anything.
package main

import (
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// need is a program on the PATH, or a file, and the Debian package that brings it.
type need struct{ what, deb string }

var (
	lab = []need{{"ip", "iproute2"}, {"ping", "iputils-ping"}}

	generate = []need{{"git", "git"}, {"make", "make"}, {"clang", "clang"}, {"llvm-strip", "llvm"}, {"protoc", "protobuf-compiler"},
		{"/usr/include/bpf/bpf_helpers.h", "libbpf-dev"}, {"/usr/include/linux/bpf.h", "linux-libc-dev"},
		{"/usr/include/google/protobuf/timestamp.proto", "libprotobuf-dev"}}

	// attack is what attackers use; test/attack does.
	attack = []need{{"arpspoof", "dsniff"}, {"ettercap", "ettercap-text-only"}, {"yersinia", "yersinia"}, {"hping3", "hping3"}, {"atk6-fake_router26", "thc-ipv6"}}

	test = []need{{"tshark", "tshark"}, {"qemu-system-x86_64", "qemu-system-x86"}, {"iperf3", "iperf3"}, {"ethtool", "ethtool"}, {"nft", "nftables"}, {"dnsmasq", "dnsmasq-base"}, {"busybox", "busybox"}, {"arping", "iputils-arping"}, {"nsenter", "util-linux"},
		{"dpkg-deb", "dpkg"}, {"xz", "xz-utils"}, {"bpftool", "bpftool"}, {"curl", "curl"}, {"ovs-vswitchd", "openvswitch-switch"}, {"/etc/ssl/certs/ca-certificates.crt", "ca-certificates"}}
)

// inGuest goes from here into the virtual machines of test/kernels.
var inGuest = []need{{"sysctl", "procps"}, {"sh", "dash"}, {"ldd", "libc-bin"}, {"/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"}}

// targets maps a make target to what it needs.
var targets = map[string][]need{
	"demo":     lab,
	"generate": generate,
	"check":    generate,
	"bench":    slices.Concat(lab, test),
	"test":     slices.Concat(lab, generate, test, attack, inGuest),

	"test-kernels": slices.Concat(lab, test, inGuest),
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 || targets[os.Args[1]] == nil {
		log.Fatalf("usage: needs %s", strings.Join(slices.Sorted(maps.Keys(targets)), "|"))
	}
	target := os.Args[1]
	debs := missing(targets[target], present)
	if len(debs) == 0 {
		return
	}
	fmt.Printf("make %s needs packages that are not installed: %s\n", target, strings.Join(debs, " "))
	if err := install(debs); err != nil {
		log.Fatalf("install them by hand and try again: %v", err)
	}
	if still := missing(targets[target], present); len(still) > 0 {
		log.Fatalf("still missing after apt-get: %s", strings.Join(still, " "))
	}
}

// missing lists the packages of the needs that present does not find, once each, in order.
func missing(needs []need, present func(string) bool) []string {
	var debs []string
	for _, n := range needs {
		if !present(n.what) && !slices.Contains(debs, n.deb) {
			debs = append(debs, n.deb)
		}
	}
	return debs
}

func present(what string) bool {
	if filepath.IsAbs(what) {
		_, err := os.Stat(what)
		return err == nil
	}
	_, err := exec.LookPath(what)
	return err == nil
}

func install(debs []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("not root")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return err
	}
	fmt.Println("installing them with apt-get")
	for _, args := range [][]string{
		{"update", "-qq"},
		append([]string{"install", "-y", "-qq", "--no-install-recommends"}, debs...),
	} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}
