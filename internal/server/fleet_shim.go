package server

func newFleet(s *Server) fleet { return nil }
