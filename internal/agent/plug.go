package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// plugWait bounds how long one plug or unplug may take in all.
const plugWait = 30 * time.Second

// defaultIfName is what the guest's device is called when nobody says.
const defaultIfName = "eth0"

// What can be wrong with a plug.
var (
	errUsage       = errors.New("give either device or netns")
	errPlugged     = errors.New("port is plugged already")
	errDeviceTaken = errors.New("device is plugged into another port")
	errDeviceUse   = errors.New("device cannot be a port")
	errNotPlugged  = errors.New("port is not plugged here")
	errProgram     = errors.New("port could not be programmed")
)

// portName is a port in the plugs file.
type portName struct {
	Tenant string `json:"tenant"`
	Port   string `json:"port"`
}

func (n portName) ref() model.Ref { return model.Ref{Tenant: n.Tenant, Name: n.Port} }

// plug says which device a port is on. The device may come and go; its name stays.
type plug struct {
	portName
	Device  string `json:"device"`
	Created bool   `json:"created,omitempty"` // a veth that we made, and delete on unplug
	Netns   string `json:"netns,omitempty"`   // where we put its other end
	Pending bool   `json:"pending,omitempty"` // whoever asked has not been told that it is done

	ifindex  uint32 // 0: no such device now
	prepared int    // MTU for which the device was made ready
	attached bool
	problem  error
}

// plugState is a plug as a view shows it.
type plugState struct {
	device   string
	present  bool
	attached bool
	ready    bool // attached, and the kernel holds the port's rows
	behind   bool // the last write of the rows failed
	problem  error
	created  bool
}

// text names a state for people.
func (s plugState) text(known bool) string {
	switch {
	case !s.present:
		return "device absent"
	case s.problem != nil:
		return s.problem.Error()
	case !known:
		return "no policy for this port on this host"
	case !s.ready:
		return "not programmed"
	}
	return "programmed"
}

func (l *loop) stateOf(p *plug, h held, want table.Set) plugState {
	s := plugState{device: p.Device, present: p.ifindex != 0, attached: p.attached, problem: p.problem, created: p.Created}
	row, rendered := want.Ports[p.ifindex]
	id := row.ID
	if vlan, on := want.VLANPorts[p.ifindex]; on {
		id, rendered = vlan.ID, true
	}
	s.behind = rendered && l.rowsErr != nil && (l.behind == nil || l.behind[id])
	if s.behind && s.problem == nil {
		s.problem = l.rowsErr
	}
	s.ready = rendered && p.attached && s.problem == nil
	return s
}

// devices finds the plugged devices that are present, by the port that they
// serve in the Goal, and notices when one was recreated. Ports of a team may serve each other's.
func (l *loop) devices(g *goal.Goal) map[model.PortID]device {
	byName := make(map[string]netdev.Link, len(l.links))
	for _, link := range l.links {
		byName[link.Name] = link
	}
	ids := make(map[model.Ref]model.PortID, len(l.plugs))
	for id, p := range g.Ports {
		if _, plugged := l.plugs[p.Ref]; plugged {
			ids[p.Ref] = id
		}
	}
	out := make(map[model.PortID]device, len(l.plugs))
	for ref, p := range l.plugs {
		link, present := byName[p.Device]
		if link.Index != p.ifindex {
			p.ifindex, p.prepared, p.attached, p.problem = link.Index, 0, false, nil
		}
		if id, ok := ids[ref]; ok && present {
			out[id] = device{ifindex: link.Index, veth: link.PeerElsewhere}
		}
	}
	if l.last.goal == nil {
		l.recallTeams(g, out)
	}
	l.teams.place(g.Ports, out)
	return out
}

// recallTeams finds which ports had changed places before this process.
func (l *loop) recallTeams(g *goal.Goal, devices map[model.PortID]device) {
	for id := range devices {
		if g.Ports[id].Settings.Team == "" {
			continue
		}
		have, err := l.sw.ReadBack()
		if err != nil {
			l.log.Warn("ports that have changed places are on their own devices again", "error", err)
			return
		}
		l.teams.recall(have, g.Ports, devices)
		return
	}
}

// ours are the plugged devices and the orphans, as far as they are present.
func (l *loop) ours() map[uint32]bool {
	out := make(map[uint32]bool, len(l.plugs)+len(l.orphans))
	for _, p := range l.plugs {
		if p.ifindex != 0 {
			out[p.ifindex] = true
		}
	}
	for index := range l.orphans {
		out[index] = true
	}
	return out
}

// restorePlugs reads the plugs of earlier processes. Where the file is missing
// or unreadable the kernel tells: the veths that we made carry their port's
// name, and for other devices the switch knows the port's id.
func (l *loop) restorePlugs() error {
	links, err := netdev.Links()
	if err != nil {
		return err
	}
	disk, err := readPlugs(l.cfg.StateDir)
	if err == nil {
		return l.resumePlugs(disk, links)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		l.log.Error("the plugs file is not usable; the kernel tells which devices are plugged", "error", err)
	}
	return l.findPlugs(links)
}

// resumePlugs takes over what the plugs file says, and undoes what was half done.
func (l *loop) resumePlugs(disk plugsOnDisk, links map[uint32]netdev.Link) error {
	for _, n := range disk.Unbind {
		l.unbind[n.ref()] = true
	}
	for _, p := range disk.Plugs {
		l.plugs[p.ref()] = p
	}
	// All are known by now: abandon writes the file anew.
	for _, p := range disk.Plugs {
		if !p.Pending {
			continue
		}
		if err := l.abandon(p); err != nil {
			return err
		}
	}
	return l.deleteStrays(links)
}

// findPlugs finds plugs without the file.
func (l *loop) findPlugs(links map[uint32]netdev.Link) error {
	for _, link := range links {
		if n, ok := ownerName(link.Owner); ok {
			l.plugs[n.ref()] = &plug{portName: n, Device: link.Name, Created: true}
		}
	}
	have, err := l.sw.ReadBack()
	if err != nil {
		return fmt.Errorf("read the switch: %w", err)
	}
	ids := map[uint32]model.PortID{}
	for index, p := range have.Ports {
		ids[index] = p.ID
	}
	for index, p := range have.VLANPorts {
		ids[index] = p.ID
	}
	for index, id := range ids {
		if link, present := links[index]; present && link.Owner == "" {
			l.orphans[index] = id
		}
	}
	return l.writePlugs()
}

// abandon undoes a plug in the middle of which a former process died.
func (l *loop) abandon(p *plug) error {
	l.log.Warn("undoing a plug that was never finished", "port", p.ref(), "device", p.Device)
	if p.Created {
		if err := netdev.DeleteLink(p.Device); err != nil {
			return err
		}
	}
	delete(l.plugs, p.ref())
	l.unbind[p.ref()] = true
	return l.writePlugs()
}

// deleteStrays removes veths of ours that no plug explains: an unplug that died
// after it was written down.
func (l *loop) deleteStrays(links map[uint32]netdev.Link) error {
	for _, link := range links {
		n, ours := ownerName(link.Owner)
		if !ours || l.plugs[n.ref()] != nil {
			continue
		}
		l.log.Warn("deleting a veth that no plug explains", "device", link.Name, "port", n.ref())
		if err := netdev.DeleteLink(link.Name); err != nil {
			return err
		}
	}
	return nil
}

// nameOrphans turns orphans into plugs as soon as the Goal names their ports.
// Once the server has spoken, the rest are given up.
func (l *loop) nameOrphans(h held) {
	if len(l.orphans) == 0 {
		return
	}
	for index, id := range l.orphans {
		link, present := l.links[index]
		p, known := h.goal.Ports[id]
		if !present || h.synced && !known {
			delete(l.orphans, index)
		}
		if !present || !known {
			continue
		}
		delete(l.orphans, index)
		n := portName{p.Ref.Tenant, p.Ref.Name}
		l.plugs[p.Ref] = &plug{portName: n, Device: link.Name}
		l.log.Info("found the device of a port again", "port", p.Ref, "device", link.Name)
	}
	if err := l.writePlugs(); err != nil {
		l.log.Error("plugs could not be written down", "error", err)
	}
}

func (l *loop) writePlugs() error {
	var d plugsOnDisk
	for _, p := range l.plugs {
		d.Plugs = append(d.Plugs, p)
	}
	slices.SortFunc(d.Plugs, func(a, b *plug) int { return compareRefs(a.ref(), b.ref()) })
	for _, ref := range slices.SortedFunc(maps.Keys(l.unbind), compareRefs) {
		d.Unbind = append(d.Unbind, portName{ref.Tenant, ref.Name})
	}
	return d.write(l.cfg.StateDir)
}

func compareRefs(a, b model.Ref) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Name, b.Name))
}

// owner and ownerName write a port into the mark of its veth and read it back.
func (n portName) owner() string { return n.Tenant + "/" + n.Port }

func ownerName(owner string) (portName, bool) {
	tenant, port := filepath.Split(owner)
	if tenant == "" || port == "" {
		return portName{}, false
	}
	return portName{tenant[:len(tenant)-1], port}, true
}

// plugRequest is what people ask for.
type plugRequest struct {
	portName
	device string
	netns  string
	ifname string
}

// plugged is what they get.
type pluggedPort struct {
	device    string
	mac       model.MAC
	addresses []netip.Prefix
	gateways  []netip.Addr
	mtu       int
}

// plug puts a port on a device and waits until packets flow. When it fails
// nothing of it is left.
func (a *Agent) plug(ctx context.Context, l *loop, r plugRequest) (pluggedPort, error) {
	a.plugMu.Lock()
	defer a.plugMu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, plugWait)
	defer cancel()
	if (r.device == "") == (r.netns == "") {
		return pluggedPort{}, errUsage
	}
	if err := a.plugAllowed(ctx, l, r); err != nil {
		return pluggedPort{}, err
	}
	bound, err := a.bind(ctx, l, r.ref())
	if err == nil {
		var out pluggedPort
		if out, err = a.plugBound(ctx, l, r); err == nil {
			return out, nil
		}
	}
	return pluggedPort{}, errors.Join(err, a.undoPlug(l, r.ref(), bound))
}

// plugAllowed checks what can be known before anything is changed.
func (a *Agent) plugAllowed(ctx context.Context, l *loop, r plugRequest) error {
	checked, err := onLoop(ctx, a, func() error {
		if p, ok := l.plugs[r.ref()]; ok && p.ifindex != 0 {
			return fmt.Errorf("%w: %s is on %s; unplug it first", errPlugged, r.ref(), p.Device)
		}
		for ref, p := range l.plugs {
			if r.device != "" && p.Device == r.device && ref != r.ref() {
				return fmt.Errorf("%w: %s is on %s", errDeviceTaken, ref, p.Device)
			}
		}
		return nil
	})
	if err := errors.Join(checked, err); err != nil || r.device == "" {
		return err
	}
	link, err := netdev.ByName(r.device)
	if err != nil {
		return err
	}
	if link.Kind != "veth" && link.Kind != "tuntap" && link.Kind != "tun" {
		return fmt.Errorf("%w: %s is of kind %s; only taps and veths are", errDeviceUse, link.Name, link.Kind)
	}
	if link.MAC.IsZero() {
		return fmt.Errorf("%w: %s carries IP packets and no Ethernet; make it a tap", errDeviceUse, link.Name)
	}
	if _, uplink := a.view.Load().uplinks[link.Index]; uplink {
		return fmt.Errorf("%w: %s leads to the other hosts", errDeviceUse, link.Name)
	}
	return nil
}

// bind makes sure that the port is this host's. The server decides; when it is
// out of reach, the Goal that is held must have placed the port here already.
func (a *Agent) bind(ctx context.Context, l *loop, ref model.Ref) (bound bool, err error) {
	held := a.view.Load().port(ref) != nil
	if !held {
		// Written down first: should this process die before the plug is, the port
		// is given back.
		if err := a.promiseUnbind(ctx, l, ref); err != nil {
			return false, err
		}
	}
	revision, err := a.server.bind(ctx, ref)
	if held && errors.Is(err, errUnreachable) {
		return false, nil
	}
	if err != nil {
		return !held, err
	}
	// What this host remembers of the port may be from before the binding.
	err = a.await(ctx, func(v *view) bool { return v.revision >= revision && v.port(ref) != nil })
	if err != nil {
		err = fmt.Errorf("%w: %s is bound to this host, but its policy has not come: %w", errProgram, ref, err)
	}
	return !held, err
}

func (a *Agent) promiseUnbind(ctx context.Context, l *loop, ref model.Ref) error {
	wrote, err := onLoop(ctx, a, func() error {
		l.unbind[ref] = true
		return l.writePlugs()
	})
	return errors.Join(wrote, err)
}

func (a *Agent) plugBound(ctx context.Context, l *loop, r plugRequest) (pluggedPort, error) {
	v := a.view.Load()
	port := v.port(r.ref())
	if port == nil {
		return pluggedPort{}, fmt.Errorf("%w: %s has left this host", errProgram, r.ref())
	}
	mtu := v.mtus[port.Network]
	if port.Settings.VLAN != nil {
		mtu = cmp.Or(v.external[port.Interface].mtu, ethernetMTU)
	}
	out := describe(port, r.device, mtu)
	p := &plug{portName: r.portName, Device: r.device, Pending: true}
	if r.netns != "" {
		p.Device, p.Created = "wfp"+strconv.FormatUint(uint64(port.ID), 10), true
		p.Netns = r.netns
		out.device = p.Device
	}
	// Written down before the veth is made, so that a crash leaves no stray.
	if err := a.register(ctx, l, p); err != nil {
		return pluggedPort{}, err
	}
	if p.Created {
		guest := netdev.Guest{Namespace: r.netns, Name: cmp.Or(r.ifname, defaultIfName), MAC: port.MAC,
			MTU: out.mtu, Addresses: out.addresses, Gateways: out.gateways}
		if _, err := netdev.CreateVeth(p.Device, p.owner(), guest); err != nil {
			// It left nothing, so a device of that name is not ours to delete.
			_, forgot := onLoop(ctx, a, func() bool { p.Created = false; return true })
			return pluggedPort{}, errors.Join(err, forgot)
		}
	}
	if err := a.relook(ctx, l); err != nil {
		return pluggedPort{}, err
	}
	if err := a.awaitReady(ctx, r.ref()); err != nil {
		return pluggedPort{}, err
	}
	wrote, err := onLoop(ctx, a, func() error { p.Pending = false; return l.writePlugs() })
	return out, errors.Join(wrote, err)
}

func (a *Agent) register(ctx context.Context, l *loop, p *plug) error {
	wrote, err := onLoop(ctx, a, func() error {
		l.plugs[p.ref()] = p
		delete(l.unbind, p.ref())
		return l.writePlugs()
	})
	return errors.Join(wrote, err)
}

// relook makes the loop see what was done to the devices.
func (a *Agent) relook(ctx context.Context, l *loop) error {
	_, err := onLoop(ctx, a, func() struct{} { l.stale |= netdev.ChangeLinks; return struct{}{} })
	return err
}

func (a *Agent) awaitReady(ctx context.Context, ref model.Ref) error {
	var state plugState
	err := a.await(ctx, func(v *view) bool {
		state = v.plugs[ref]
		return state.ready || state.problem != nil
	})
	if state.problem != nil {
		return fmt.Errorf("%w: %s: %w", errProgram, ref, state.problem)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %s: %w", errProgram, ref, state.text(true), err)
	}
	return nil
}

// undoPlug runs even when the caller has gone.
func (a *Agent) undoPlug(l *loop, ref model.Ref, unbind bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), plugWait)
	defer cancel()
	return a.remove(ctx, l, ref, unbind)
}

// unplug takes a port off its device. It works without the server; with it, the
// port can be plugged on another host as soon as this returns.
func (a *Agent) unplug(ctx context.Context, l *loop, ref model.Ref) error {
	ctx, cancel := context.WithTimeout(ctx, plugWait)
	defer cancel()
	if err := a.takeOff(ctx, l, ref); err != nil {
		return err
	}
	a.server.giveBack(ctx, ref)
	return nil
}

func (a *Agent) takeOff(ctx context.Context, l *loop, ref model.Ref) error {
	a.plugMu.Lock()
	defer a.plugMu.Unlock()
	there, err := onLoop(ctx, a, func() bool { return l.plugs[ref] != nil })
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("%w: %s", errNotPlugged, ref)
	}
	return a.remove(ctx, l, ref, true)
}

// remove undoes a plug, as far as it got: the veth if we made one, the
// attachment, the rows, the binding.
func (a *Agent) remove(ctx context.Context, l *loop, ref model.Ref, unbind bool) error {
	type outcome struct {
		ifindex uint32
		err     error
	}
	done, err := onLoop(ctx, a, func() outcome {
		p := l.plugs[ref]
		if unbind {
			l.unbind[ref] = true
		}
		if p == nil {
			return outcome{err: l.writePlugs()}
		}
		index := p.ifindex
		delete(l.plugs, ref)
		errs := []error{l.writePlugs()}
		if p.Created {
			errs = append(errs, netdev.DeleteLink(p.Device))
		}
		l.stale |= netdev.ChangeLinks
		return outcome{index, errors.Join(errs...)}
	})
	if err := errors.Join(err, done.err); err != nil {
		return err
	}
	if unbind {
		a.server.unbindSoon()
	}
	return a.await(ctx, func(v *view) bool {
		_, row := v.want.Ports[done.ifindex]
		_, vlan := v.want.VLANPorts[done.ifindex]
		_, still := v.plugs[ref]
		return !row && !vlan && !still
	})
}

// describe says how the guest of a port must be configured.
func describe(p *goal.Port, device string, mtu int) pluggedPort {
	out := pluggedPort{device: device, mac: p.MAC, mtu: mtu}
	for _, ca := range p.CAs {
		out.addresses = append(out.addresses, netip.PrefixFrom(ca, prefixLength(ca, p.Prefixes)))
	}
	for _, gw := range []netip.Addr{p.Gateway4, p.Gateway6} {
		if gw.IsValid() && speaks(p.CAs, gw) {
			out.gateways = append(out.gateways, gw)
		}
	}
	return out
}

func speaks(cas []netip.Addr, gw netip.Addr) bool {
	return slices.ContainsFunc(cas, func(ca netip.Addr) bool { return ca.Is4() == gw.Is4() })
}

func prefixLength(ca netip.Addr, prefixes []netip.Prefix) int {
	for _, p := range prefixes {
		if p.Contains(ca) {
			return p.Bits()
		}
	}
	return ca.BitLen()
}

// port finds a port of this host by name; nil if policy has none.
func (v *view) port(ref model.Ref) *goal.Port {
	for _, p := range v.goal.Ports {
		if p.Ref == ref {
			return &p
		}
	}
	return nil
}
