package server

import (
	"context"
	"net/http"
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// fleet is what the server asks of the distribution to hosts.
type fleet interface {
	listener
	Handler() (string, http.Handler)
	Status(model.Key) Status
	Hosts() []HostState
	Query(context.Context, string, *hostv1.Query) (*hostv1.Answer, error)
	Preview(puts []model.Resource, deletes []model.Key) []HostDifference
}

type Status struct {
	Desired, Current, Failing int
	OldestLag                 time.Duration
	Failures                  []string
}

type HostState struct {
	Name               string
	Connected          bool
	Sent, Acknowledged int64
	Ports, Records     int
	Lag                time.Duration
	Failures           []string
	Version            string
	Decap              string
}

type HostDifference struct {
	Host           string
	Added, Removed []string
}
