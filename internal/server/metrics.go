package server

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// metrics of one server. Each has a registry of its own, so that several servers can
// live in one process.
type metrics struct {
	registry  *prometheus.Registry
	resources *prometheus.GaugeVec
	revision  prometheus.Gauge
	commits   *prometheus.CounterVec
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	watches   prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		resources: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_server_resources", Help: "Resources in policy."}, []string{"kind"}),
		revision:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "weft_server_policy_revision", Help: "Revision of policy that the server has."}),
		commits:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_server_commits_total", Help: "Attempts to store a set, by outcome."}, []string{"outcome"}),
		requests:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_server_requests_total", Help: "Requests of the public API, by procedure and code."}, []string{"procedure", "code"}),
		seconds:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "weft_server_request_seconds", Help: "Duration of unary requests of the public API.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"procedure"}),
		watches:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "weft_server_watches", Help: "Watch streams that are open."}),
	}
	m.registry.MustRegister(m.resources, m.revision, m.commits, m.requests, m.seconds, m.watches)
	return m
}

// observe adds what is read when asked for.
func (m *metrics) observe(s *Server) {
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	gauge("weft_server_store_up", "1 while the store can be reached.", func() float64 {
		if _, err := s.policy.ready(); err != nil {
			return 0
		}
		return 1
	})
	gauge("weft_server_hosts_connected", "Hosts whose agent is connected.", func() float64 {
		n := 0
		for _, h := range s.dist.Hosts() {
			if h.Connected {
				n++
			}
		}
		return float64(n)
	})
}

// policy notes what a change led to.
func (m *metrics) policy(st *intent.State) {
	m.revision.Set(float64(st.Revision()))
	for _, k := range model.Kinds {
		m.resources.WithLabelValues(string(k)).Set(float64(st.Count(k)))
	}
}

func (m *metrics) count(procedure string, err error) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	m.requests.WithLabelValues(procedure, code).Inc()
}

// interceptor counts requests.
func (m *metrics) interceptor() connect.Interceptor { return counting{m} }

type counting struct{ *metrics }

func (c counting) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		res, err := next(ctx, req)
		c.seconds.WithLabelValues(req.Spec().Procedure).Observe(time.Since(began).Seconds())
		c.count(req.Spec().Procedure, err)
		return res, err
	}
}

func (counting) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (c counting) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		err := next(ctx, conn)
		c.count(conn.Spec().Procedure, err)
		return err
	}
}
