package lab

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// guest is one guest of the lab with what policy says of it.
type guest struct {
	portRef
	host, subnet, network string
	space                 string
	isolation             model.IsolationID
	addresses             [2]netip.Addr // IPv4, IPv6; invalid where there is none
	responder             *responder
}

// families in the order of guest.addresses.
var families = [2]string{"IPv4", "IPv6"}

// nobody is what is expected and observed when no one answers.
const nobody = "nobody"

// answering is what is expected and observed when a guest answers to both.
func answering(name string) string { return name + " + ping" }

// row of the truth table.
type row struct {
	from, to *guest
	expected string
	observed [2]string
	leaked   []string // marks that the guest meant got, though it must not
}

func (r row) holds() bool {
	for i, o := range r.observed {
		if r.to.addresses[i].IsValid() && o != r.expected {
			return false
		}
	}
	return len(r.leaked) == 0
}

// Demo probes every ordered pair of the lab's guests, writes what is expected
// and what is observed, and says whether they agree. Expected is what policy
// says: guests of one virtual network reach each other and nobody else; behind
// an address that exists in several tenants, each finds its own.
func (l Lab) Demo(ctx context.Context, w io.Writer) (holds bool, err error) {
	guests, err := l.openGuests(ctx)
	defer func() {
		for _, g := range guests {
			g.responder.listener.Close()
		}
	}()
	if err != nil {
		return false, err
	}
	fmt.Fprintf(w, "\nA TCP service in every guest answers with the guest's name; ping must be answered too.\n")
	rows, err := probeAll(ctx, guests, guests)
	if err != nil {
		return false, err
	}
	across := slices.IndexFunc(rows, func(r row) bool { return r.from.network != r.to.network })
	if across < 0 {
		across = len(rows)
	}
	wrong := printRows(w, "Inside a network, everybody reaches everybody.", rows[:across])
	wrong += printRows(w, "Across networks, nobody does: behind the other's address is one's own guest or\nnobody, and the other hears nothing.", rows[across:])
	gone, err := l.probeGone(ctx, w, guests)
	if err != nil {
		return false, err
	}
	wrong += gone.wrong
	fmt.Fprintf(w, "\n%d of %d rows are as expected.\n", len(rows)+gone.rows-wrong, len(rows)+gone.rows)
	return wrong == 0, nil
}

// openGuests reads what policy says of the lab's guests and opens the identity
// service in each.
func (l Lab) openGuests(ctx context.Context) ([]*guest, error) {
	s, err := l.readState()
	if err != nil {
		return nil, err
	}
	if len(s.Guests) < 2 {
		return nil, fmt.Errorf("lab %s has %d guests: two are needed to talk", l.name, len(s.Guests))
	}
	var guests []*guest
	for _, spec := range s.Guests {
		g, err := l.openGuest(ctx, spec)
		if err != nil {
			return guests, err
		}
		guests = append(guests, g)
	}
	return guests, nil
}

func (l Lab) openGuest(ctx context.Context, spec GuestSpec) (*guest, error) {
	ref, err := parsePortRef(spec.Port)
	if err != nil {
		return nil, err
	}
	port, err := l.port(ctx, ref)
	if err != nil {
		return nil, err
	}
	key := &weftv1.Key{Kind: "VirtualSubnet", Tenant: ref.tenant, Name: port.GetSpec().GetSubnet()}
	subnet, err := l.server().Policy().Get(ctx, connect.NewRequest(&weftv1.GetRequest{Key: key}))
	if err != nil {
		return nil, fmt.Errorf("guest %s: %w", ref, err)
	}
	g := &guest{portRef: ref, host: spec.Host, space: l.guestSpace(ref), subnet: port.GetSpec().GetSubnet(),
		network: ref.tenant + "/" + subnet.Msg.GetResource().GetVirtualSubnet().GetSpec().GetNetwork()}
	if g.isolation, err = l.isolation(ctx, ref.tenant, port.GetSpec()); err != nil {
		return nil, fmt.Errorf("guest %s: %w", ref, err)
	}
	for _, text := range port.GetSpec().GetAddresses() {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("guest %s: %w", ref, err)
		}
		if i := family(a); !g.addresses[i].IsValid() {
			g.addresses[i] = a
		}
	}
	if g.responder, err = respond(g.space, ref.String()); err != nil {
		return nil, err
	}
	return g, nil
}

// isolation of a port, by itself or by its profile.
func (l Lab) isolation(ctx context.Context, tenant string, port *weftv1.PortSpec) (model.IsolationID, error) {
	says := port.GetIsolation()
	if says == nil && port.GetProfile() != "" {
		key := &weftv1.Key{Kind: "PortProfile", Tenant: tenant, Name: port.GetProfile()}
		profile, err := l.server().Policy().Get(ctx, connect.NewRequest(&weftv1.GetRequest{Key: key}))
		if err != nil {
			return 0, err
		}
		says = profile.Msg.GetResource().GetPortProfile().GetSpec().GetIsolation()
	}
	return model.Isolation{Mode: model.IsolationMode(says.GetMode()), Community: says.GetCommunity()}.ID(), nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// atOnce bounds how many guests probe at the same time.
const atOnce = 64

// probeAll probes every ordered pair, its rows in order: pairs inside a network
// first, then those across.
func probeAll(ctx context.Context, all, targets []*guest) ([]row, error) {
	var rows []row
	for _, across := range []bool{false, true} {
		for _, from := range all {
			for _, to := range targets {
				if from != to && (from.network != to.network) == across {
					rows = append(rows, row{from: from, to: to, expected: expect(from, to, all)})
				}
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range rows {
		group.Go(func() error { return rows[i].probe(ctx) })
	}
	return rows, group.Wait()
}

// expect is who answers when from asks for to's addresses: whoever has them in
// from's own network, but those of its subnet that isolation keeps from it.
func expect(from, to *guest, all []*guest) string {
	for _, g := range all {
		if g.network == from.network && g.subnet == from.subnet && g.isolation.Apart(from.isolation) {
			continue
		}
		if g.network == from.network && g.addresses == to.addresses {
			return answering(g.String())
		}
	}
	return nobody
}

// probe asks and pings both families at once: who finds nobody waits long enough as it is.
func (r *row) probe(ctx context.Context) error {
	var group errgroup.Group
	var who [2]string
	var answered [2]bool
	for i, a := range r.to.addresses {
		if !a.IsValid() {
			continue
		}
		mark := fmt.Sprintf("%s to %s %s", r.from, r.to, families[i])
		group.Go(func() (err error) {
			who[i], err = ask(ctx, r.from.space, mark, a)
			return err
		})
		group.Go(func() (err error) {
			answered[i], err = ping(ctx, r.from.space, a)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, a := range r.to.addresses {
		if a.IsValid() {
			r.observed[i] = observation(who[i], answered[i])
		}
	}
	if r.from.network != r.to.network {
		r.leaked = r.to.responder.heard(r.from.String())
	}
	return ctx.Err()
}

func observation(who string, ping bool) string {
	switch {
	case who == "" && !ping:
		return nobody
	case who == "":
		return "ping alone"
	case !ping:
		return who + " without ping"
	}
	return answering(who)
}

// printRows writes a table with its title, and counts what is not as expected.
func printRows(w io.Writer, title string, rows []row) (wrong int) {
	if len(rows) == 0 {
		return 0
	}
	fmt.Fprintf(w, "\n%s\n\n", title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FROM\tTO\tHOST\tSUBNET\tNETWORK\tEXPECTED\tOBSERVED IPv4\tOBSERVED IPv6\tVERDICT")
	for _, r := range rows {
		verdict := "ok"
		if !r.holds() {
			verdict = strings.TrimSpace("WRONG " + strings.Join(r.leaked, "; "))
			wrong++
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.from, r.to, sameCross(r.from.host == r.to.host),
			sameCross(r.from.network == r.to.network && r.from.subnet == r.to.subnet), sameCross(r.from.network == r.to.network),
			r.expected, r.observed[0], r.observed[1], verdict)
	}
	t.Flush()
	return wrong
}

func sameCross(same bool) string { return word(same, "same", "cross") }

// counted is how many rows a table has, and how many are wrong.
type counted struct{ rows, wrong int }

// probeGone unplugs a guest whose addresses other tenants have too. From its own
// network nobody may answer there now, though the other's guest is alive; the
// others must notice nothing. Then it is plugged in again.
func (l Lab) probeGone(ctx context.Context, w io.Writer, guests []*guest) (c counted, err error) {
	gone := withTwin(guests)
	if gone == nil {
		return counted{}, nil
	}
	agent := l.agent(gone.host).Agent()
	_, err = agent.Unplug(ctx, connect.NewRequest(&weftv1.UnplugRequest{Tenant: gone.tenant, Port: gone.port}))
	if err != nil {
		return counted{}, fmt.Errorf("unplug %s: %w", gone, err)
	}
	var targets []*guest
	for _, g := range guests {
		if g == gone || g.network != gone.network && g.addresses == gone.addresses {
			targets = append(targets, g)
		}
	}
	rest := slices.DeleteFunc(slices.Clone(guests), func(g *guest) bool { return g == gone })
	rows, err := probeAll(ctx, rest, targets)
	if err != nil {
		return counted{}, err
	}
	title := fmt.Sprintf("With %s unplugged, its own network finds nobody behind its addresses, though\nthey live on elsewhere; the others notice nothing.", gone)
	c = counted{len(rows), printRows(w, title, rows)}
	_, err = agent.Plug(ctx, connect.NewRequest(&weftv1.PlugRequest{Tenant: gone.tenant, Port: gone.port, Netns: gone.space}))
	if err != nil {
		return c, fmt.Errorf("plug %s again: %w", gone, err)
	}
	return c, nil
}

// withTwin is a guest whose addresses a guest of another network has too.
func withTwin(guests []*guest) *guest {
	for _, g := range guests {
		for _, other := range guests {
			if g.network != other.network && g.addresses == other.addresses {
				return g
			}
		}
	}
	return nil
}

// Suggest writes commands to try in the lab.
func (l Lab) Suggest(w io.Writer) error {
	s, err := l.readState()
	if err != nil {
		return err
	}
	weftd := here("weftd")
	name := ""
	if l.name != DefaultName {
		name = " --name " + l.name
	}
	host := s.Hosts[0]
	fmt.Fprintf(w, "\nThe lab is running. Try:\n")
	if len(s.Guests) > 0 {
		guest := s.Guests[0].Port
		if other := s.peerAddress(l, guest); other != "" {
			fmt.Fprintf(w, "  %s lab exec%s %s -- ping -c1 %s\n", weftd, name, guest, other)
		}
		fmt.Fprintf(w, "  %s lab exec%s %s -- ip address\n", weftd, name, guest)
	}
	for _, command := range []string{"weft status", "weft get ports", "weft drops", "weft verify", "weft explain SPOOFED_CA"} {
		fmt.Fprintf(w, "  %s lab exec%s %s -- %s\n", weftd, name, host, command)
	}
	fmt.Fprintf(w, "  %s lab status%s\n  %s lab down%s\n", weftd, name, weftd, name)
	return nil
}

// peerAddress is an IPv4 address that the guest should reach, or "".
func (s state) peerAddress(l Lab, from string) string {
	tenant, _, _ := strings.Cut(from, "/")
	for _, g := range s.Guests {
		ref, err := parsePortRef(g.Port)
		if err != nil || ref.tenant != tenant || g.Port == from {
			continue
		}
		port, err := l.port(context.Background(), ref)
		if err == nil && len(port.GetSpec().GetAddresses()) > 0 {
			return port.GetSpec().GetAddresses()[0]
		}
	}
	return ""
}

// here is how to call a program that lies beside this one.
func here(program string) string {
	self, err := os.Executable()
	if err != nil {
		return program
	}
	directory, err := os.Getwd()
	if err != nil {
		return filepath.Join(filepath.Dir(self), program)
	}
	if short, err := filepath.Rel(directory, filepath.Join(filepath.Dir(self), program)); err == nil && !strings.HasPrefix(short, "..") {
		return short
	}
	return filepath.Join(filepath.Dir(self), program)
}
