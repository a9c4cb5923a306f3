package agent

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDefaultConfigIsWhatItSays(t *testing.T) {
	c, err := ParseConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if c.Host != host || c.Underlay != nil || c.ProviderAddresses != nil || c.Audit != time.Minute || c.Limits.Records != 262144 {
		t.Errorf("%+v", c)
	}
}

func TestConfigTakesLists(t *testing.T) {
	c, err := ParseConfig([]byte("host: h1\nunderlay: [eth0, eth1]\nproviderAddresses: 192.0.2.1\n"))
	if err != nil || !slices.Equal(c.Underlay, Choice{"eth0", "eth1"}) || !slices.Equal(c.ProviderAddresses, Choice{"192.0.2.1"}) {
		t.Errorf("%+v %v", c, err)
	}
}

func TestConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"hots: h1":                              "hots",
		"server: http://x:1":                    "https://",
		"decap: fast":                           "decap",
		"providerAddresses: [\"fe80::1%eth0\"]": "providerAddresses",
		"audit: 1ms":                            "audit",
		"learnedTimeout: 1s":                    "learnedTimeout",
		"socket: \"\"":                          "socket",
		"limits: {ports: 10, gremlins: 11}":     "gremlins",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
