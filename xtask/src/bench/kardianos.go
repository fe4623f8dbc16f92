// The heartbeat example, as one writes it in Go: what examples/heartbeat is measured against.
package main

import (
	"log"
	"time"

	"github.com/kardianos/service"
)

type heartbeat struct {
	logger service.Logger
	done   chan struct{}
}

func (h *heartbeat) Start(service.Service) error {
	go func() {
		beat := time.NewTicker(5 * time.Second)
		for {
			select {
			case <-beat.C:
				h.logger.Info("alive")
			case <-h.done:
				return
			}
		}
	}()
	return nil
}

func (h *heartbeat) Stop(service.Service) error {
	close(h.done)
	return nil
}

func main() {
	h := &heartbeat{done: make(chan struct{})}
	s, err := service.New(h, &service.Config{Name: "heartbeat", DisplayName: "Heartbeat"})
	if err != nil {
		log.Fatal(err)
	}
	if h.logger, err = s.Logger(nil); err != nil {
		log.Fatal(err)
	}
	if err := s.Run(); err != nil {
		log.Fatal(err)
	}
}
