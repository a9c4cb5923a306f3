package agent

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weft-sdn/weft/internal/datapath"
)

// counts are what the loop counts of its own work.
type counts struct {
	mu        sync.Mutex
	reconcile prometheus.Histogram
	errors    float64
	drift     float64
	errorsOf  map[string]float64 // of the underlay, that guests were told of
}

func (c *counts) told(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.errorsOf == nil {
		c.errorsOf = map[string]float64{}
	}
	c.errorsOf[what]++
}

func (c *counts) tellings() map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.errorsOf)
}

func (c *counts) reconciled(took time.Duration, trouble bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.histogram().Observe(took.Seconds())
	if trouble {
		c.errors++
	}
}

func (c *counts) drifted(rows int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drift += float64(rows)
}

func (c *counts) read() (h prometheus.Histogram, failed, drift float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.histogram(), c.errors, c.drift
}

func (c *counts) histogram() prometheus.Histogram {
	if c.reconcile == nil {
		c.reconcile = prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weft_agent_reconcile_seconds", Help: "Time that one pass of the reconcile loop took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		})
	}
	return c.reconcile
}

// collector reads everything else from the switch and the view when it is asked.
type collector struct{ *Agent }

var (
	portLabels = []string{"tenant", "port"}

	descPackets   = prometheus.NewDesc("weft_port_packets_total", "Packets of a port, as its VM sees the direction.", append(portLabels, "direction"), nil)
	descBytes     = prometheus.NewDesc("weft_port_bytes_total", "Bytes of a port, as its VM sees the direction.", append(portLabels, "direction"), nil)
	descDrops     = prometheus.NewDesc("weft_drops_total", "Packets dropped, by reason.", append(portLabels, "direction", "reason"), nil)
	descDropBytes = prometheus.NewDesc("weft_drop_bytes_total", "Bytes dropped, by reason.", append(portLabels, "direction", "reason"), nil)
	descRevision  = prometheus.NewDesc("weft_agent_revision", "Revision of policy that this host holds.", nil, nil)
	descConnected = prometheus.NewDesc("weft_agent_connected", "1 while a session with the server stands.", nil, nil)
	descFailures  = prometheus.NewDesc("weft_agent_failures", "Resources that the kernel does not hold as policy says.", nil, nil)
	descErrors    = prometheus.NewDesc("weft_agent_reconcile_errors_total", "Passes of the reconcile loop that left failures.", nil, nil)
	descDrift     = prometheus.NewDesc("weft_agent_drift_total", "Rows of the kernel that the audit found changed, and repaired.", nil, nil)
	descTold      = prometheus.NewDesc("weft_agent_underlay_errors_total", "ICMP errors of the underlay about packets of guests, by what guests were told; arrived_too_big: senders on other hosts, by this one; untold_*: nobody was, and why.", []string{"kind"}, nil)
	descRows      = prometheus.NewDesc("weft_table_rows", "Rows that policy puts into a table of the switch.", []string{"table"}, nil)
	descLimit     = prometheus.NewDesc("weft_table_limit", "Rows that a table of the switch can take.", []string{"table"}, nil)
)

// Describe is part of prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPackets, descBytes, descDrops, descDropBytes, descRevision,
		descConnected, descFailures, descErrors, descDrift, descTold, descRows, descLimit} {
		out <- d
	}
	h, _, _ := c.counts.read()
	h.Describe(out)
}

// Collect is part of prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	v := c.view.Load()
	h, failed, drift := c.counts.read()
	h.Collect(out)
	counter(out, descErrors, failed)
	counter(out, descDrift, drift)
	for kind, n := range c.counts.tellings() {
		counter(out, descTold, n, kind)
	}
	gauge(out, descRevision, float64(v.revision))
	gauge(out, descFailures, float64(len(v.failures)))
	connected := 0.0
	if c.server.connected() {
		connected = 1
	}
	gauge(out, descConnected, connected)
	c.collectTables(v, out)
	c.collectTraffic(v, out)
	c.collectDrops(v, out)
}

func (c collector) collectTables(v *view, out chan<- prometheus.Metric) {
	for _, t := range []struct {
		name  string
		rows  int
		limit uint32
	}{
		{"ports", len(v.want.Ports), c.cfg.Limits.Ports},
		{"records", len(v.want.Records), c.cfg.Limits.Records},
		{"routes", len(v.want.Routes), c.cfg.Limits.Routes},
		{"peers", len(v.want.Peers), c.cfg.Limits.Peers},
	} {
		gauge(out, descRows, float64(t.rows), t.name)
		gauge(out, descLimit, float64(t.limit), t.name)
	}
}

func (c collector) collectTraffic(v *view, out chan<- prometheus.Metric) {
	traffic, err := c.sw.Traffic()
	if err != nil {
		out <- prometheus.NewInvalidMetric(descPackets, err)
		return
	}
	for id, t := range traffic {
		p, ok := v.goal.Ports[id]
		if !ok {
			continue
		}
		outbound, inbound := datapath.Outbound.String(), datapath.Inbound.String()
		counter(out, descPackets, float64(t.OutPackets), p.Ref.Tenant, p.Ref.Name, outbound)
		counter(out, descPackets, float64(t.InPackets), p.Ref.Tenant, p.Ref.Name, inbound)
		counter(out, descBytes, float64(t.OutBytes), p.Ref.Tenant, p.Ref.Name, outbound)
		counter(out, descBytes, float64(t.InBytes), p.Ref.Tenant, p.Ref.Name, inbound)
	}
}

// collectDrops adds up the drops of ports that policy no longer knows as drops
// of no port, so that a series is never written twice.
func (c collector) collectDrops(v *view, out chan<- prometheus.Metric) {
	drops, err := c.dropCounts()
	if err != nil {
		out <- prometheus.NewInvalidMetric(descDrops, err)
		return
	}
	type series struct{ tenant, port, direction, reason string }
	packets, bytes := map[series]float64{}, map[series]float64{}
	for _, d := range drops {
		ref := v.goal.Ports[d.Port].Ref
		s := series{ref.Tenant, ref.Name, d.Direction.String(), strings.ToLower(d.Reason.String())}
		packets[s] += float64(d.Packets)
		bytes[s] += float64(d.Bytes)
	}
	for s, n := range packets {
		counter(out, descDrops, n, s.tenant, s.port, s.direction, s.reason)
		counter(out, descDropBytes, bytes[s], s.tenant, s.port, s.direction, s.reason)
	}
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// listenMetrics opens the metrics endpoint; none when the configuration has none.
func listenMetrics(a *Agent) (*endpoint, error) {
	if a.cfg.Metrics == "" {
		return &endpoint{}, nil
	}
	registry := prometheus.NewRegistry()
	if err := errors.Join(registry.Register(collector{a}), registry.Register(prometheus.NewGoCollector())); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	listener, err := net.Listen("tcp", a.cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return &endpoint{&http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, listener}, nil
}
