package dist

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// An agent that captures says something at least every second.
const captureSilence = 30 * time.Second

var errCaptureOver = connect.NewError(connect.CodeNotFound, errors.New("nobody wants these packets (any more)"))

// capture is one under way: who may bring its packets, and who takes them.
type capture struct {
	host, uid string
	messages  chan *weftv1.CaptureResponse
	over      chan struct{} // closed when nobody takes any more
	end       chan error    // of one: why the agent stopped
}

// Capture has a host's agent capture packets, and gives every message to take until
// ctx ends (nil), take fails, or the agent stops. A slow take makes the agent lose
// packets, which it counts.
func (d *Distributor) Capture(ctx context.Context, host string, q *hostv1.CaptureQuery, take func(*weftv1.CaptureResponse) error) error {
	q.Id = rand.Text()
	c := &capture{host: host, messages: make(chan *weftv1.CaptureResponse), over: make(chan struct{}), end: make(chan error, 1)}
	d.mu.Lock()
	c.uid = d.uidOf(host)
	d.captures[q.Id] = c
	d.mu.Unlock()
	defer func() {
		close(c.over)
		d.mu.Lock()
		delete(d.captures, q.Id)
		d.mu.Unlock()
	}()
	if err := d.startCapture(ctx, host, q); err != nil {
		return err
	}
	silence := time.NewTimer(captureSilence)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-c.end:
			return fmt.Errorf("host %q: its agent ended the capture: %w", host, err)
		case <-silence.C:
			return fmt.Errorf("host %q: its agent has brought nothing for %s", host, captureSilence)
		case m := <-c.messages:
			silence.Reset(captureSilence)
			if err := take(m); err != nil {
				return err
			}
		}
	}
}

func (d *Distributor) startCapture(ctx context.Context, host string, q *hostv1.CaptureQuery) error {
	ctx, cancel := context.WithTimeout(ctx, captureSilence)
	defer cancel()
	a, err := d.Query(ctx, host, &hostv1.Query{Query: &hostv1.Query_Capture{Capture: q}})
	if err != nil {
		return err
	}
	if a.GetCapture() == nil {
		return fmt.Errorf("host %q: its agent gave no answer to the question", host)
	}
	return nil
}

// Capture implements hostv1connect.HostServiceHandler. A host brings only what it was
// asked for.
func (d *service) Capture(ctx context.Context, stream *connect.ClientStream[hostv1.CaptureUpload]) (*connect.Response[hostv1.CaptureDone], error) {
	from := caller(ctx)
	if from.err != nil {
		return nil, from.err
	}
	var c *capture
	for stream.Receive() {
		_ = from.control.SetReadDeadline(time.Now().Add(captureSilence))
		_ = from.control.SetWriteDeadline(time.Now().Add(2 * captureSilence))
		if c == nil {
			d.mu.Lock()
			c = d.captures[stream.Msg().GetId()]
			d.mu.Unlock()
			if c == nil || c.host != from.host.Name || c.uid != from.host.UID {
				return nil, errCaptureOver
			}
			defer func() { c.tell(stream.Err()) }()
		}
		select {
		case <-c.over:
			return nil, errCaptureOver
		case c.messages <- stream.Msg().GetMessage():
		}
	}
	return respond(&hostv1.CaptureDone{}, stream.Err())
}

// tell says why nothing more comes.
func (c *capture) tell(err error) {
	if err == nil {
		err = errors.New("it ended")
	}
	select {
	case c.end <- err:
	default:
	}
}
