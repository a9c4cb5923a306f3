package dist

import (
	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/model"
)

// PreviewRules is what a change means for the ports, access lists, groups, records and routes of the hosts; it changes nothing. Hosts for which these
// stay what they are do not come up; without records and routes where they do not fit into one message; nil: nor does the rest.
func (d *Distributor) PreviewRules(puts []model.Resource, deletes []model.Key) map[string]*hostv1.Update {
	d.mu.Lock()
	oldPuts, oldDeletes := d.undo(puts, deletes)
	forth := d.compiled.Apply(puts, deletes)
	d.compiled.Apply(oldPuts, oldDeletes)
	d.mu.Unlock()
	out := map[string]*hostv1.Update{}
	for host, all := range forth {
		rules := goal.Delta{PutPorts: all.PutPorts, PutLists: all.PutLists, PutGroups: all.PutGroups,
			DeletePorts: all.DeletePorts, DeleteLists: all.DeleteLists, DeleteGroups: all.DeleteGroups}
		whole := rules
		whole.PutRecords, whole.DeleteRecords, whole.PutRoutes, whole.DeleteRoutes = all.PutRecords, all.DeleteRecords, all.PutRoutes, all.DeleteRoutes
		if whole.Empty() {
			continue
		}
		out[host] = nil
		for _, d := range []goal.Delta{whole, rules} {
			if updates := hostwire.Updates(d, 0, goal.Digest{}, false); len(updates) == 1 {
				out[host] = updates[0]
				break
			}
		}
	}
	return out
}
