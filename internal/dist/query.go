package dist

import (
	"context"
	"errors"
	"fmt"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
)

// ErrAway is returned for a question to a host whose agent is not connected.
var ErrAway = errors.New("its agent is not connected")

func errAway(host string) error { return fmt.Errorf("host %q: %w", host, ErrAway) }

type answer struct {
	message *hostv1.Answer
	err     error
}

// Query asks a host's agent and waits for the answer, no longer than ctx. The
// query's id is chosen here. What the agent could not do is an error.
func (d *Distributor) Query(ctx context.Context, host string, q *hostv1.Query) (*hostv1.Answer, error) {
	s, id, result, err := d.ask(host, q)
	if err != nil {
		return nil, err
	}
	defer d.unask(s, id)
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("host %q: %w", host, ctx.Err())
	case a := <-result:
		if a.err != nil {
			return nil, a.err
		}
		if a.message.GetError() != "" {
			return nil, fmt.Errorf("host %q: %s", host, a.message.GetError())
		}
		return a.message, nil
	}
}

func (d *Distributor) ask(host string, q *hostv1.Query) (*session, uint64, <-chan answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[host]
	if h == nil || h.session == nil || h.session.answers == nil {
		return nil, 0, nil, errAway(host)
	}
	s := h.session
	if len(s.answers) == maxQueries {
		return nil, 0, nil, fmt.Errorf("host %q: %d questions are under way; try again", host, maxQueries)
	}
	d.query++
	result := make(chan answer, 1)
	asked := &hostv1.Query{Id: d.query, Query: q.GetQuery()}
	select {
	case s.queries <- asked:
	default:
		return nil, 0, nil, fmt.Errorf("host %q: does not read; try again", host)
	}
	s.answers[d.query] = result
	return s, d.query, result, nil
}

func (d *Distributor) unask(s *session, id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(s.answers, id)
}

// answered hands an answer to whoever waits for it, and reports whether anybody did;
// late ones are dropped.
func (s *session) answered(a *hostv1.Answer) bool {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	to, ok := s.answers[a.GetId()]
	if ok {
		delete(s.answers, a.GetId())
		to <- answer{message: a}
	}
	return ok
}
