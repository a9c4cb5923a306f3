package identity

import "time"

// Until is when the authority's own certificate ends, and all that it signed with it.
func (a *Authority) Until() time.Time { return a.cert.NotAfter }

// Until is when the host's certificate ends; zero while there is none.
func (h *Host) Until() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cert == nil {
		return time.Time{}
	}
	return h.cert.Leaf.NotAfter
}
