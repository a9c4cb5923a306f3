package hostwire

import (
	"cmp"
	"errors"
	"fmt"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
)

// ErrDigest is returned when the rows of an Update do not give the digest that
// it announces. The agent then acknowledges the Update's revision with the
// digest that it holds, and the server answers with a snapshot.
var ErrDigest = errors.New("goal does not have the digest that the server announced")

// Receiver follows the Updates of one session and holds the Goal they lead to.
// Use it from one goroutine.
type Receiver struct {
	goal     *goal.Goal
	digest   goal.Digest
	revision int64

	parts part // of the revision that is arriving
	open  bool
}

type part struct {
	revision int64
	digest   goal.Digest
	snapshot bool
	delta    goal.Delta
}

// NewReceiver starts with the Goal of the disk cache, or goal.New() and 0. The
// Receiver owns g from then on.
func NewReceiver(g *goal.Goal, revision int64) *Receiver {
	return &Receiver{goal: g, digest: g.Digest(), revision: revision}
}

// Goal, which callers must not change. A later Receive that completes a
// revision makes a new one and leaves this one as it is.
func (r *Receiver) Goal() *goal.Goal { return r.goal }

// Digest of Goal.
func (r *Receiver) Digest() goal.Digest { return r.digest }

// Revision of Goal.
func (r *Receiver) Revision() int64 { return r.revision }

// Restart forgets the parts of a revision that was cut short by the end of a session.
func (r *Receiver) Restart() { r.parts, r.open = part{}, false }

// Receive takes one part. It reports true when the part completed a revision:
// then Goal, Digest and Revision have moved. On any error they have not.
// ErrMessage means that the peer is unsound and the session must end;
// ErrDigest that the session goes on, with a snapshot to come.
func (r *Receiver) Receive(u *hostv1.Update) (bool, error) {
	if err := r.add(u); err != nil {
		r.Restart()
		return false, err
	}
	if !u.GetLast() {
		return false, nil
	}
	whole := r.parts
	r.Restart()
	next, digest := r.goal.Clone(), r.digest
	if whole.snapshot {
		next, digest = goal.New(), goal.Digest{}
	}
	digest = whole.delta.Digest(next, digest)
	whole.delta.Apply(next)
	if digest != whole.digest {
		return false, fmt.Errorf("%w: revision %d, %s announced, %s held", ErrDigest, whole.revision, whole.digest, digest)
	}
	r.goal, r.digest, r.revision = next, digest, whole.revision
	return true, nil
}

func (r *Receiver) add(u *hostv1.Update) error {
	digest, err := Digest(u.GetDigest())
	if err != nil {
		return err
	}
	d, err := Delta(u)
	if err != nil {
		return err
	}
	if !r.open {
		r.parts, r.open = part{revision: u.GetRevision(), digest: digest, snapshot: u.GetSnapshot()}, true
	}
	p := &r.parts
	if u.GetRevision() != p.revision || digest != p.digest || u.GetSnapshot() != p.snapshot {
		return wrong("a part of revision %d within revision %d", u.GetRevision(), p.revision)
	}
	if p.delta.Rows()+d.Rows() > MaxRows {
		return wrong("revision %d has more than %d rows", p.revision, MaxRows)
	}
	p.delta = concat(p.delta, d)
	return nil
}

func concat(a, b goal.Delta) goal.Delta {
	return goal.Delta{
		PutSettings: cmp.Or(b.PutSettings, a.PutSettings),
		PutPAs:      append(a.PutPAs, b.PutPAs...), PutPeers: append(a.PutPeers, b.PutPeers...), PutRecords: append(a.PutRecords, b.PutRecords...),
		PutRoutes: append(a.PutRoutes, b.PutRoutes...), PutPorts: append(a.PutPorts, b.PutPorts...),
		PutGroups: append(a.PutGroups, b.PutGroups...), PutLists: append(a.PutLists, b.PutLists...),
		DeleteGroups: append(a.DeleteGroups, b.DeleteGroups...), DeleteLists: append(a.DeleteLists, b.DeleteLists...),
		DeletePorts: append(a.DeletePorts, b.DeletePorts...), DeleteRoutes: append(a.DeleteRoutes, b.DeleteRoutes...),
		DeleteRecords: append(a.DeleteRecords, b.DeleteRecords...), DeletePeers: append(a.DeletePeers, b.DeletePeers...), DeletePAs: append(a.DeletePAs, b.DeletePAs...),
		PutProviderRoutes: append(a.PutProviderRoutes, b.PutProviderRoutes...), DeleteProviderRoutes: append(a.DeleteProviderRoutes, b.DeleteProviderRoutes...),
	}
}
