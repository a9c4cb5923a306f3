package dist

import (
	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/model"
)

// PreviewRules is what a change means for the ports, access lists and groups of the hosts; it changes nothing. Hosts for which these
// stay what they are do not come up; nil: it does not fit into one message.
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
		if rules.Empty() {
			continue
		}
		out[host] = nil
		if updates := hostwire.Updates(rules, 0, goal.Digest{}, false); len(updates) == 1 {
			out[host] = updates[0]
		}
	}
	return out
}
