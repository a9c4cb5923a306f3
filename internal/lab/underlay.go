package lab

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// underlayMTU is that of an ordinary data centre, so that guests get what they
// would get there: 1458.
const underlayMTU = 1500

// buildUnderlay makes the namespaces of router, server and hosts and the wires
// between them. Every node has one device, eth0, in a subnet of its own of either
// family, and its default routes lead to the router.
func (l Lab) buildUnderlay(ctx context.Context, hosts []string) error {
	nodes := append([]string{serverSpace}, hosts...)
	lines := []string{"netns add " + l.space(routerSpace)}
	for _, n := range nodes {
		lines = append(lines, "netns add "+l.space(n))
	}
	if err := batch(ctx, "", lines); err != nil {
		return err
	}
	lines = []string{"link set lo up"}
	for i, n := range nodes {
		port := fmt.Sprintf("n%d", i)
		lines = append(lines,
			fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d netns %s", port, underlayMTU, underlayMTU, l.space(n)),
			fmt.Sprintf("address add %s/24 dev %s", gatewayOf(i), port),
			fmt.Sprintf("address add %s/64 dev %s nodad", gateway6Of(i), port),
			fmt.Sprintf("link set %s up", port))
	}
	if err := batch(ctx, l.space(routerSpace), lines); err != nil {
		return err
	}
	for _, s := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := setting(l.space(routerSpace), s, "1"); err != nil {
			return fmt.Errorf("underlay router: %w", err)
		}
	}
	if err := batch(ctx, l.space(routerSpace), poolRoutes(len(nodes))); err != nil {
		return err
	}
	for i, n := range nodes {
		err := batch(ctx, l.space(n), []string{
			"link set lo up",
			fmt.Sprintf("address add %s/24 dev eth0", nodeOf(i)),
			fmt.Sprintf("address add %s/64 dev eth0 nodad", node6Of(i)),
			"link set eth0 up",
			fmt.Sprintf("route add default via %s", gatewayOf(i)),
			fmt.Sprintf("route add default via %s", gateway6Of(i)),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// poolRoutes lead the pool of each node to it.
func poolRoutes(nodes int) []string {
	var lines []string
	for i := range nodes {
		pools := poolsOf(i)
		lines = append(lines, fmt.Sprintf("route add %s via %s", pools[0], nodeOf(i)), fmt.Sprintf("route add %s via %s", pools[1], node6Of(i)))
	}
	return lines
}

// needBPFFS mounts the bpf filesystem where pins live, if nobody has.
func needBPFFS() error {
	var s unix.Statfs_t
	if err := unix.Statfs(bpffs, &s); err == nil && s.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := os.MkdirAll(bpffs, 0o755); err != nil {
		return fmt.Errorf("bpf filesystem: %w", err)
	}
	if err := unix.Mount("bpf", bpffs, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount the bpf filesystem on %s: %w", bpffs, err)
	}
	return nil
}
