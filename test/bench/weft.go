package main

import (
	"context"
	"errors"
)

func (s *site) buildWeft(ctx context.Context) error { return errors.New("not yet") }
