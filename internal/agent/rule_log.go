package agent

import (
	"context"
	"log/slog"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/table"
)

// logRules tells of packets that rules log: one line for each, to the agent's log, which is the journal's. In it
// "suppressed" counts, exactly, the packets of the same rule since its last line that have none of their own.
func (a *Agent) logRules(ctx context.Context) error {
	matches, err := a.sw.RuleLog(ctx)
	if err != nil {
		a.log.Error("rules count, but what they log cannot be read", "error", err)
		return nil
	}
	for m := range matches {
		name := ""
		if v := a.view.Load(); v != nil {
			name = v.portNames()[m.Port]
		}
		a.log.LogAttrs(ctx, slog.LevelInfo, "rule", ruleAttrs(m, name)...)
	}
	return nil
}

func ruleAttrs(m datapath.RuleMatch, port string) []slog.Attr {
	q := m.Query
	out := []slog.Attr{
		slog.Time("at", m.Time), slog.String("list", m.Rule.List.String()), slog.String("rule", m.Rule.Rule),
		slog.String("port", port), slog.String("direction", m.Direction.String()), slog.Uint64("bytes", uint64(m.Length)),
		slog.Uint64("suppressed", m.Suppressed), slog.String("localMAC", q.LocalMAC.String()), slog.String("remoteMAC", q.RemoteMAC.String()),
	}
	if !q.IP {
		return out
	}
	out = append(out, slog.String("local", q.Local.String()), slog.String("remote", q.Remote.String()), slog.Int("protocol", int(q.Protocol)))
	switch q.Upper {
	case table.ShowsPorts:
		out = append(out, slog.Int("localPort", int(q.LocalPort)), slog.Int("remotePort", int(q.RemotePort)))
	case table.ShowsType:
		out = append(out, slog.Int("type", int(q.ICMPType)), slog.Int("code", int(q.ICMPCode)))
	}
	return out
}
