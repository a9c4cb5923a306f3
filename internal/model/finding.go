package model

import "strings"

// Finding is a reason why what a guest says does not agree with policy, as conditions show it.
type Finding string

// The findings.
const (
	FindingDuplicateAddress Finding = "DuplicateAddress"
	FindingForeignAddress   Finding = "ForeignAddress"
	FindingForeignMAC       Finding = "ForeignMAC"
	FindingWrongGateway     Finding = "WrongGateway"
	FindingWrongPrefix      Finding = "WrongPrefix"
	FindingAddressLimit     Finding = "AddressLimit"
)

// FindingInfo is what people should know of a finding.
type FindingInfo struct {
	Finding  Finding
	Sentence string // what was seen
	Action   string // what to do
}

var findings = []FindingInfo{
	{FindingDuplicateAddress, "The guest uses, or asks for, an address that belongs to somebody else of its subnet.",
		"Give the guest the addresses of its Port, or take the address from its other owner; `weft lookup VSID CA` names that one."},
	{FindingForeignAddress, "The guest speaks from an address that its Port does not have.",
		"Configure the guest as its Port says, or add the address to spec.addresses, or let addresses be learned with spec.dynamicAddressLimit."},
	{FindingForeignMAC, "The guest speaks from a MAC that its Port does not have.",
		"Set the MAC of the VM's NIC to spec.mac; for a guest that bridges, set spec.allowSpoofing."},
	{FindingWrongGateway, "The guest looks for a router where its subnet has none.",
		"Set the guest's default route to the gateway of its VirtualSubnet."},
	{FindingWrongPrefix, "The guest looks on its link for addresses outside its subnet.",
		"Set the guest's prefix length to that of its VirtualSubnet, and its default route to the gateway."},
	{FindingAddressLimit, "The guest uses more addresses than may be learned.",
		"Raise spec.dynamicAddressLimit of the Port, or unplug and plug it to forget those that are not used any more."},
}

// Findings lists all of them.
func Findings() []FindingInfo { return append([]FindingInfo(nil), findings...) }

// FindingByName finds a finding by its name in any case.
func FindingByName(name string) (FindingInfo, bool) {
	for _, f := range findings {
		if strings.EqualFold(string(f.Finding), name) {
			return f, true
		}
	}
	return FindingInfo{}, false
}
