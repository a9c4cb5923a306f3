package hostwire

import (
	"fmt"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
)

func fromProviderRoute(r goal.ProviderRouteRow) *hostv1.ProviderRoute {
	return &hostv1.ProviderRoute{Name: r.Name, Prefix: fromPrefix(r.Route.Prefix), NextHop: address(r.Route.NextHop),
		Interface: r.Route.Interface, Metric: r.Route.Metric}
}

func toProviderRoute(w *hostv1.ProviderRoute) (row goal.ProviderRouteRow, err error) {
	row.Name, row.Route.Interface, row.Route.Metric = w.GetName(), w.GetInterface(), w.GetMetric()
	if row.Route.Prefix, err = toPrefix(w.GetPrefix()); err != nil {
		return row, err
	}
	if row.Route.NextHop, err = toAddress(w.GetNextHop()); err != nil {
		return row, fmt.Errorf("next_hop: %w", err)
	}
	return row, checked(row.Check())
}

func toName(name string) (string, error) {
	if name == "" || len(name) > goal.MaxName {
		return "", wrong("a name of %d bytes", len(name))
	}
	return name, nil
}
