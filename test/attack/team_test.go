package attack

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// teamed makes alice and evil two NICs of one VM, which lets in what it has asked for and calls to one service.
const teamed = `
kind: AccessList
metadata: {tenant: red, name: vm}
spec:
  default: {inbound: deny}
  rules:
  - {name: ping, direction: inbound, action: allow, protocol: icmp}
  - {name: ping6, direction: inbound, action: allow, protocol: icmpv6}
---
kind: PortProfile
metadata: {tenant: red, name: vm}
spec: {allowTeaming: true, accessLists: [vm]}
`

var ofTeam = strings.NewReplacer("name: alice}", "name: alice, labels: {vm: one}}", "name: evil}", "name: evil, labels: {vm: one}}",
	"host: h1}", "host: h1, profile: vm}", "host: h1, stormLimit: 300}", "host: h1, profile: vm}", ", accessLists: [victims]", "")

// TestATeamFailsOver has a VM go on at its second NIC with the MAC and the addresses of the first, as a bond with a
// backup does, and come back: others reach it where it is, from the same host and another, and an agent that starts
// anew knows where. The second NIC's own address is at the first one meanwhile.
func TestATeamFailsOver(t *testing.T) {
	f := newField(t)
	if err := f.Apply(teamed + "---\n" + ofTeam.Replace(policy)).Err(); err != nil {
		t.Fatal(err)
	}
	f.Verified()
	f.failsOver("10.0.0.5/24", "fd00:a::5/64")
}

// TestATeamOnAVLANFailsOver does the same on a VLAN.
func TestATeamOnAVLANFailsOver(t *testing.T) {
	f := newVLANField(t, vlanPolicy, alice, bob, evil)
	if err := f.Apply(teamed + "---\n" + ofTeam.Replace(vlanPolicy)).Err(); err != nil {
		t.Fatal(err)
	}
	f.Verified()
	f.failsOver("10.0.0.5/24", "fd00:a::5/64")
}

func (f *field) failsOver(addresses ...string) {
	f.T.Helper()
	takes := func(from, to string) { // a NIC fails, and the VM speaks from the other one
		f.do(from, "ip link set eth0 down")
		f.do(to, "ip link set eth0 down")
		f.do(to, "ip address flush dev eth0 scope global")
		f.do(to, "ip link set eth0 address 02:00:00:00:00:05")
		f.do(to, "ip link set eth0 up")
		for _, a := range addresses {
			f.do(to, "ip address add "+a+" dev eth0"+map[bool]string{true: " nodad"}[strings.Contains(a, ":")])
		}
		f.do(to, "ping -n -c1 -w5 10.0.0.6")
	}
	reached := func(at string) {
		f.T.Helper()
		f.Poll("bob reaches "+at, func() error {
			was := received(f, at)
			for _, a := range addresses {
				ca, _, _ := strings.Cut(a, "/")
				if err := f.On(bob, words("ping -n -c3 -i0.01 -W1 "+ca)...).Err(); err != nil {
					return err
				}
			}
			if now := received(f, at); now < was+6 {
				return fmt.Errorf("%d packets came to it", now-was)
			}
			return nil
		})
	}
	takes(alice, evil)
	reached(evil)
	f.Verified()
	f.Kill("h1", syscall.SIGKILL)
	f.Start("h1")
	reached(evil)
	f.Verified()
	takes(evil, alice)
	reached(alice)
	f.Verified()
}

// received is how many frames have come to a guest.
func received(f *field, guest string) (n int) {
	f.T.Helper()
	_, counts, _ := strings.Cut(f.On(guest, words("grep eth0 /proc/net/dev")...).Out, ":")
	var octets int
	if _, err := fmt.Sscan(counts, &octets, &n); err != nil {
		f.T.Fatal(err)
	}
	return n
}
